//! Files that the host puts into the guest where the two share no file system.
//!
//! Owns the tree that CopyFile writes to and containers mount from. Promises that nothing outside it is ever
//! touched, whatever the request names and whatever links a container that has a part of the tree mounted makes meanwhile:
//! all work is done on directory descriptors, found by `openat2(2)`. A file appears under its name when it is complete,
//! with its owner and mode, and not before. Must never follow a link out of the directory that one container was given.

mod copy;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod path;
mod remove;

pub(crate) use copy::{Copies, CopyRequest};
pub(crate) use remove::remove_tree;
#[cfg(feature = "sandbox-api")]
pub(crate) use remove::remove_tree_at;

use std::io;
use std::path::PathBuf;

use crate::error::{ErrorKind, Kind, kind_of_errno};

/// Why a file could not be copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The path leads elsewhere, or nowhere.
    #[error("copy to {path:?}: {reason}")]
    Path {
        /// What the request named.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The numbers of a request do not fit together.
    #[error("copy to {path:?}: {reason}")]
    Numbers {
        /// What the request named.
        path: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// The kernel refused.
    #[error("copy to {path:?}: {operation}")]
    Io {
        /// What the request named.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Kind for FileError {
    fn kind(&self) -> ErrorKind {
        match self {
            FileError::Path { .. } | FileError::Numbers { .. } => ErrorKind::Invalid,
            // The path passes a link out of the tree, too many links, something that is no directory, or is too long.
            FileError::Io { source, .. } => match source.raw_os_error() {
                Some(
                    nix::libc::EXDEV
                    | nix::libc::ELOOP
                    | nix::libc::ENOTDIR
                    | nix::libc::ENAMETOOLONG
                    | nix::libc::EINVAL,
                ) => ErrorKind::Invalid,
                errno => kind_of_errno(errno),
            },
        }
    }
}
