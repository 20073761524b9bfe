//! Why there is no list of ingredients.

use std::io;
use std::path::PathBuf;

use crate::program::ProgramError;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    /// There is nothing to list.
    #[error("{0} has no manifest.json that names products; `image-builder build` makes one")]
    NoManifest(PathBuf),
    /// A program is for a processor that this version does not know.
    #[error("{0} is for {1}, which this version of image-builder does not know; build it again")]
    Target(String, String),
    /// cargo failed.
    #[error("cannot ask cargo what {program} links")]
    Cargo {
        /// The program.
        program: String,
        /// How it failed.
        source: ProgramError,
    },
    /// The lock file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lock file is not understood.
    #[error("{path} is not understood")]
    Lock {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: Box<toml::de::Error>,
    },
}
