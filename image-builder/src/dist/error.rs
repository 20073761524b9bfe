//! What can be wrong with a release.

use std::io;
use std::path::{Path, PathBuf};

use fs_image::TreeError;
use products::daemon;
use products::sbom::SbomError;
use store::cache::CacheError;

/// Why there is no release.
#[derive(Debug, thiserror::Error)]
pub enum DistError {
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
    /// A file of the release cannot be written.
    #[error("cannot write the release")]
    Write(#[from] CacheError),
    /// Two files of the release have the same place.
    #[error("cannot put the release together")]
    Tree(#[from] TreeError),
    /// There is nothing to pack.
    #[error("{} names no product; run `make dist`, which builds them", .0.display())]
    NoProducts(PathBuf),
    /// The daemon's crate is not on this machine, so nobody knows what is in it.
    #[error(
        "cargo has no source of {} {}; leave out --programs, or run `cargo install {} --version {}`",
        daemon::NAME,
        daemon::VERSION,
        daemon::NAME,
        daemon::VERSION
    )]
    NoSource,
    /// A product is not the one in the manifest.
    #[error("{} is not what manifest.json says; build it again", .0.display())]
    Stale(PathBuf),
    /// A program of the release does not work.
    #[error("{program} failed: {problem}")]
    Program {
        /// The command.
        program: String,
        /// What it said.
        problem: String,
    },
    /// Debian's tools would not accept the name of the maintainer.
    #[error("{0:?} is no maintainer; give a name and an address, such as 'Jane Doe <jane@example.org>'")]
    Maintainer(String),
    /// The archive formats have no room for it.
    #[error("{0} is a {1}; a release has only files, directories and symbolic links")]
    Kind(String, &'static str),
    /// The list of ingredients cannot be made.
    #[error(transparent)]
    Sbom(#[from] SbomError),
}

impl DistError {
    pub(super) fn io(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { operation, path, source }
    }
}
