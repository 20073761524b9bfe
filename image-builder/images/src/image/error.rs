//! What can be wrong with an image.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use store::cache::CacheError;

/// Why an image could not be made into a disk.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The cache could not be used.
    #[error("the image cache")]
    Cache(#[from] CacheError),
    /// Neither a layout, nor an archive, nor a directory.
    #[error("{}: {problem}", path.display())]
    Source {
        /// What was named.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A JSON document of the image does not parse.
    #[error("cannot understand {}", path.display())]
    Json {
        /// The document.
        path: PathBuf,
        /// Where it stopped making sense.
        #[source]
        source: serde_json::Error,
    },
    /// Content is not what its digest says.
    #[error("{}: {what} has digest {found}, but {expected} is expected; the image is damaged", path.display())]
    Digest {
        /// The image.
        path: PathBuf,
        /// The damaged part.
        what: String,
        /// What the image promises.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A layer cannot be applied.
    #[error("{}: cannot apply layer {layer}", path.display())]
    Layer {
        /// The image.
        path: PathBuf,
        /// The layer.
        layer: String,
        /// The entry and what is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The disk cannot be written.
    #[error("{}: cannot make a disk of it in {}", path.display(), place.display())]
    Disk {
        /// The image.
        path: PathBuf,
        /// Where the disk was to be.
        place: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ImageError {
    pub(crate) fn io(operation: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { operation, path: path.as_ref().to_path_buf(), source }
    }

    pub(crate) fn source(path: impl AsRef<Path>, problem: impl fmt::Display) -> Self {
        Self::Source { path: path.as_ref().to_path_buf(), problem: problem.to_string() }
    }
}
