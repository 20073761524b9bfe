//! Why a device could not be had.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{ErrorKind, Kind, kind_of_errno};

/// Why a device could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// Not where a device can be.
    #[error("{text:?} is not {expected}")]
    BadAddress {
        /// What was given.
        text: String,
        /// What it should have been.
        expected: &'static str,
    },
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
    /// This guest's kernel has no way to give it.
    #[error("device at {address}: {reason}")]
    Unsupported {
        /// Where it is.
        address: String,
        /// What is missing.
        reason: &'static str,
    },
    /// Its node or its directory in sysfs could not be read or written.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// It did not come in time.
    #[error("no {what} at {address} after {} ms", waited.as_millis())]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// Where.
        address: String,
        /// For how long.
        waited: Duration,
    },
}

impl DeviceError {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DeviceError {
        move |source| DeviceError::Io { operation, path: path.to_owned(), source }
    }
}

impl Kind for DeviceError {
    fn kind(&self) -> ErrorKind {
        match self {
            DeviceError::BadAddress { .. } | DeviceError::Invalid { .. } => ErrorKind::Invalid,
            DeviceError::UnknownKind(..) | DeviceError::Unsupported { .. } => ErrorKind::Unsupported,
            DeviceError::Io { source, .. } => kind_of_errno(source.raw_os_error()),
            DeviceError::Timeout { .. } => ErrorKind::Timeout,
        }
    }
}

/// Nothing was found in time.
#[derive(Debug)]
pub(crate) struct NoDevice {
    /// How long was waited.
    pub(crate) waited: Duration,
}

impl NoDevice {
    /// Says that it was a disk.
    pub(super) fn disk(self, address: &impl fmt::Display) -> DeviceError {
        self.named("block device", address.to_string())
    }

    /// Says what it was.
    pub(super) fn named(self, what: &'static str, address: String) -> DeviceError {
        DeviceError::Timeout { what, address, waited: self.waited }
    }
}
