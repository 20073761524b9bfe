//! What can be wrong with an artifact or its registry.
//!
//! Owns the texts. Promises that each names the file or URL and what to do. Must never hold a password or a token.

use std::io;
use std::path::{Path, PathBuf};

use registry::RegistryError;
use store::cache::CacheError;

/// Why a guest could not be packed, pushed or pulled.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the layout, or what was pulled, cannot be written.
    #[error("cannot write the guest")]
    Write(#[from] CacheError),
    /// The registry, or the way to it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// There is nothing to pack.
    #[error("{} names no product; run `image-builder build` first", .0.display())]
    NoProducts(PathBuf),
    /// A product is not the one in the manifest.
    #[error("{} is not what manifest.json says; run `image-builder build` again", .0.display())]
    Stale(PathBuf),
    /// The layout would mix with something else.
    #[error("{} is not empty; name a directory that is, or that does not exist", .0.display())]
    NotEmpty(PathBuf),
    /// A JSON document does not parse or cannot be made.
    #[error("cannot understand {subject}; it is no OCI document")]
    Json {
        /// The file or URL.
        subject: String,
        /// Where it stopped making sense.
        source: serde_json::Error,
    },
    /// The manifest is not one of a guest, or a dangerous one.
    #[error("{subject} is no guest of this program: {problem}; nothing of it was kept")]
    Foreign {
        /// The file or URL.
        subject: String,
        /// What is wrong.
        problem: String,
    },
    /// The guest is larger than wanted.
    #[error("{subject} has {size} bytes, more than {most}; --max-size raises that ceiling")]
    TooLarge {
        /// The reference.
        subject: String,
        /// What its manifest promises.
        size: u64,
        /// The ceiling.
        most: u64,
    },
}

impl ArtifactError {
    pub(super) fn io(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { operation, path, source }
    }

    pub(super) fn json(subject: impl ToString) -> impl FnOnce(serde_json::Error) -> Self {
        let subject = subject.to_string();
        move |source| Self::Json { subject, source }
    }

    pub(super) fn foreign(subject: impl ToString, problem: impl ToString) -> Self {
        Self::Foreign { subject: subject.to_string(), problem: problem.to_string() }
    }
}
