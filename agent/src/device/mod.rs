//! Devices of the guest: where they are, and waiting for those that are yet to come.

pub(crate) mod block;

use std::time::Duration;

use crate::error::{ErrorKind, Kind};

/// Why a device could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// The name is neither a node nor a PCI path.
    #[error("{0:?} is neither a /dev path nor a PCI path such as 02/01")]
    BadAddress(String),
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
            DeviceError::BadAddress(_) => ErrorKind::Invalid,
            DeviceError::Timeout { .. } => ErrorKind::Timeout,
        }
    }
}
