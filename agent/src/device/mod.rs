//! Devices of the guest: where they are, and waiting for those that are yet to come.

pub(crate) mod block;
pub(crate) mod container;

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{ErrorKind, Kind, kind_of_errno};

/// Why a device could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// The name is neither a node nor a PCI path.
    #[error("{0:?} is neither a /dev path nor a PCI path such as 02/01")]
    BadAddress(String),
    /// No such kind.
    #[error("device type {0:?} is unknown (this guest has: {1})")]
    UnknownKind(String, String),
    /// The request cannot be right.
    #[error("device {path:?} of type {kind:?}: {reason}")]
    Invalid {
        /// Kind.
        kind: String,
        /// Node in the container.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Its node vanished.
    #[error("look at {}", path.display())]
    Node {
        /// The node.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// It did not come in time.
    #[error("no block device at {address} after {} ms", waited.as_millis())]
    Timeout {
        /// What was waited for.
        address: String,
        /// For how long.
        waited: Duration,
    },
}

impl Kind for DeviceError {
    fn kind(&self) -> ErrorKind {
        match self {
            DeviceError::BadAddress(_) | DeviceError::Invalid { .. } => ErrorKind::Invalid,
            DeviceError::UnknownKind(..) => ErrorKind::Unsupported,
            DeviceError::Node { source, .. } => kind_of_errno(source.raw_os_error()),
            DeviceError::Timeout { .. } => ErrorKind::Timeout,
        }
    }
}
