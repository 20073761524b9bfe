//! What can go wrong with the guest's network.

use std::io;
use std::time::Duration;

use crate::device::pci::NoPciPath;
use crate::error::{ErrorKind, Kind, kind_of_errno};

/// A network operation failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Text that is not what it should be.
    #[error("{text:?} is not {expected}")]
    Malformed {
        /// The text as given.
        text: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A request that says neither hardware address, name nor device path.
    #[error("the interface has no hardware address, name or device path to be found by")]
    Nameless,
    /// No link is what the request describes.
    #[error("no network link with {wanted}")]
    NoLink {
        /// How it was looked for.
        wanted: String,
    },
    /// A device that is not plugged in, and did not come in time.
    #[error("no network device at PCI path {path} after {} ms", waited.as_millis())]
    NotPlugged {
        /// The path as given.
        path: String,
        /// How long it was awaited.
        waited: Duration,
    },
    /// Text that is no PCI path.
    #[error(transparent)]
    Path(#[from] NoPciPath),
    /// The kernel refused.
    #[error("{operation}")]
    Kernel {
        /// What was tried, with its subject.
        operation: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The work ended without a result.
    #[error("network update ended early")]
    Aborted(#[source] tokio::task::JoinError),
}

impl Kind for NetworkError {
    fn kind(&self) -> ErrorKind {
        match self {
            NetworkError::Malformed { .. } | NetworkError::Nameless | NetworkError::Path(_) => {
                ErrorKind::Invalid
            }
            NetworkError::NoLink { .. } => ErrorKind::NotFound,
            NetworkError::NotPlugged { .. } => ErrorKind::Timeout,
            NetworkError::Kernel { source, .. } => kind_of_errno(source.raw_os_error()),
            NetworkError::Aborted(_) => ErrorKind::Internal,
        }
    }
}

/// Adds to a netlink failure what was being done.
pub(super) trait During<T> {
    /// The result, with `operation` said of its failure.
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, NetworkError>;
}

impl<T> During<T> for Result<T, rtnetlink::Error> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, NetworkError> {
        self.map_err(|error| NetworkError::Kernel { operation: operation(), source: to_io(error) })
    }
}

fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

/// Whether the kernel said that the thing is there already.
pub(super) fn exists(error: &NetworkError) -> bool {
    matches!(error, NetworkError::Kernel { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
}
