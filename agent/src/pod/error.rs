//! Why the pod cannot do something.

use crate::error::{ErrorKind, Kind};
use crate::guest::modules::ModuleError;
use crate::storage::StorageError;

/// Why the pod cannot do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    /// CreateSandbox has not been called.
    #[error("there is no sandbox yet")]
    NotCreated,
    /// CreateSandbox was called before.
    #[error("the sandbox exists already")]
    Exists,
    /// DestroySandbox was called.
    #[error("the sandbox is shutting down")]
    Destroyed,
    /// The shared namespaces could not be made.
    #[error("{operation}")]
    Namespaces {
        /// What was being done.
        operation: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("write {path}")]
    Write {
        /// Which.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A storage could not be had.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A kernel module is not there.
    #[error(transparent)]
    Module(#[from] ModuleError),
}

impl Kind for PodError {
    fn kind(&self) -> ErrorKind {
        match self {
            PodError::NotCreated => ErrorKind::State,
            PodError::Exists => ErrorKind::Exists,
            PodError::Destroyed => ErrorKind::Busy,
            PodError::Namespaces { .. } | PodError::Write { .. } => ErrorKind::Internal,
            PodError::Storage(error) => error.kind(),
            PodError::Module(error) => error.kind(),
        }
    }
}

impl PodError {
    /// The work on the pod panicked.
    pub(super) fn panicked() -> PodError {
        let source = std::io::Error::other("panicked");
        PodError::Namespaces { operation: "create the sandbox".into(), source }
    }
}
