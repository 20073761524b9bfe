//! Why a stream could not be used.

use std::io;

use crate::error::{ErrorKind, Kind, kind_of_errno};

/// Why a stream could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// It was closed, by a caller or by the process.
    #[error("stdin is closed")]
    Closed,
    /// The host passed a connection for it, which nobody else may use.
    #[error("{0} is a connection of the host's own: calls can neither read nor write it")]
    Passed(&'static str),
    /// Resizing something that is no terminal.
    #[error("no tty")]
    NoTerminal,
    /// The kernel refused.
    #[error("{operation}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl StreamError {
    pub(super) fn io(operation: &'static str, source: impl Into<io::Error>) -> StreamError {
        StreamError::Io { operation, source: source.into() }
    }
}

impl Kind for StreamError {
    fn kind(&self) -> ErrorKind {
        match self {
            StreamError::Closed | StreamError::Passed(_) => ErrorKind::State,
            // COMPAT(kata): `resize_without_a_terminal_is_unavailable`. Shims know UNAVAILABLE with this text.
            StreamError::NoTerminal => ErrorKind::Busy,
            StreamError::Io { source, .. } => kind_of_errno(source.raw_os_error()),
        }
    }
}
