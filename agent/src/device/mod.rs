//! Devices of the guest: where they are, and waiting for those that are yet to come.
//!
//! Owns the conversation with sysfs. Finds a device by where it is plugged in, never by the order in which it came.

pub(crate) mod address;
pub(crate) mod cdi;
pub(crate) mod container;
pub(crate) mod pci;
mod spec;
pub(crate) mod vfio;
pub(crate) mod watch;

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::LinuxDeviceType;

use self::address::Address;
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
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DeviceError {
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
    fn disk(self, address: &Address) -> DeviceError {
        self.named("block device", address.to_string())
    }

    /// Says what it was.
    fn named(self, what: &'static str, address: String) -> DeviceError {
        DeviceError::Timeout { what, address, waited: self.waited }
    }
}

/// What kind of device a node is, and its major and minor number.
fn number_of(node: &Path) -> std::io::Result<(LinuxDeviceType, i64, i64)> {
    let status = node.metadata()?;
    let kind = match status.file_type() {
        kind if kind.is_block_device() => LinuxDeviceType::B,
        kind if kind.is_char_device() => LinuxDeviceType::C,
        _ => return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "no device node")),
    };
    let number = status.rdev();
    Ok((kind, rustix::fs::major(number).into(), rustix::fs::minor(number).into()))
}

/// Names in a directory, sorted; none where there is no such directory.
fn entries(directory: &Path) -> Vec<String> {
    let found = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = found.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn only_entry(directory: &Path) -> Option<String> {
    entries(directory).into_iter().next()
}
