//! Why a storage could not be had.

use std::io;
use std::path::PathBuf;

use rustjail::mount::{self, MountError};
use rustjail::plan::PlanError;

use crate::device::DeviceError;
use crate::error::{ErrorKind, Kind, kind_of_errno};

/// Why a storage could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// No such driver.
    #[error("storage driver {0:?} is unknown (this guest has: {1})")]
    UnknownDriver(String, String),
    /// The request cannot be right.
    #[error("storage {driver} on {mount_point}: {reason}")]
    Invalid {
        /// Driver.
        driver: String,
        /// Mount point.
        mount_point: String,
        /// What is wrong.
        reason: String,
    },
    /// Its options cannot be understood.
    #[error("storage on {0}")]
    Options(String, #[source] PlanError),
    /// Its device did not come.
    #[error("storage on {0}")]
    Device(String, #[source] DeviceError),
    /// Its blocks cannot be checked.
    #[error("storage on {0}")]
    Verity(String, #[source] VerityError),
    /// There are not that many huge pages.
    #[error("{got} of {wanted} huge pages of {size} KiB could be had; {path} has what there are")]
    HugePages {
        /// How many there are now.
        got: u64,
        /// How many there should be.
        wanted: u64,
        /// Size of one, in KiB.
        size: u64,
        /// Where they are counted.
        path: String,
    },
    /// It could not be mounted.
    #[error("storage on {0}")]
    Mount(String, #[source] MountError),
    /// A file or directory could not be made or changed.
    #[error("{operation} {path}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no such storage to be changed.
    #[error("no ephemeral storage is mounted on {0}")]
    NotMounted(String),
    /// Nobody wants it any more.
    #[error("storage on {0}: given up while it was mounted or released for somebody else")]
    Cancelled(String),
    /// It is mounted already, from something else.
    #[error("{0} is in use by another storage ({1})")]
    Conflict(String, String),
}

impl Kind for StorageError {
    fn kind(&self) -> ErrorKind {
        match self {
            StorageError::UnknownDriver(..) => ErrorKind::Unsupported,
            StorageError::Invalid { .. } => ErrorKind::Invalid,
            StorageError::Cancelled(_) => ErrorKind::Cancelled,
            StorageError::Options(_, PlanError::Unsupported(_)) => ErrorKind::Unsupported,
            StorageError::Options(_, PlanError::Invalid(_)) => ErrorKind::Invalid,
            StorageError::Device(_, error) => error.kind(),
            StorageError::Verity(_, error) => error.kind(),
            StorageError::HugePages { .. } => ErrorKind::Exhausted,
            StorageError::Mount(_, error) => match mount::errno(error) {
                Some(nix::libc::ENOENT | nix::libc::EINVAL | nix::libc::ENODEV | nix::libc::ENOTDIR) => {
                    ErrorKind::Invalid
                }
                // Writable, of what is read-only.
                Some(nix::libc::EROFS | nix::libc::EACCES) => ErrorKind::Invalid,
                // The device is mounted already, as something else.
                Some(nix::libc::EBUSY) => ErrorKind::State,
                errno => kind_of_errno(errno),
            },
            StorageError::Io { source, .. } => kind_of_errno(source.raw_os_error()),
            StorageError::NotMounted(_) => ErrorKind::NotFound,
            StorageError::Conflict(..) => ErrorKind::State,
        }
    }
}

/// Why a disk cannot be checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerityError {
    /// The description cannot be right.
    #[error("dm-verity: {0}")]
    Invalid(String),
    /// The device could not be read.
    #[error("dm-verity: {operation} {}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The device mapper refused.
    #[error("dm-verity: {operation} device {name}")]
    Mapper {
        /// What was being done.
        operation: &'static str,
        /// Name of the mapped device.
        name: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Kind for VerityError {
    fn kind(&self) -> ErrorKind {
        match self {
            VerityError::Invalid(_) => ErrorKind::Invalid,
            VerityError::Io { source, .. } => kind_of_errno(source.raw_os_error()),
            VerityError::Mapper { source, .. } => match source.raw_os_error() {
                // No control node: a kernel without the device mapper.
                Some(nix::libc::ENOENT | nix::libc::ENXIO | nix::libc::ENODEV) => ErrorKind::Unsupported,
                Some(nix::libc::EINVAL) => ErrorKind::Invalid,
                errno => kind_of_errno(errno),
            },
        }
    }
}
