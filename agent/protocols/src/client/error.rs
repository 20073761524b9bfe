//! Why the agent was not reached, or a call failed.

use std::fmt;
use std::io;

use ttrpc::Code;

/// How the library tells that a deadline has passed. A test of a call that nobody answers holds it.
const DEADLINE: &str = "Request deadline elapsed";

/// Why a port of a guest could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// An operation of the host failed.
    #[error("cannot {operation} {subject}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With what.
        subject: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nothing in the guest listens on the port.
    #[error("nothing in the guest listens on vsock port {port}")]
    Refused {
        /// The vsock port.
        port: u32,
    },
    /// The vsock device answered something other than `OK`.
    #[error("dialling vsock port {port}: the device answered {answer:?} instead of OK")]
    Handshake {
        /// The vsock port.
        port: u32,
        /// Its answer.
        answer: String,
    },
    /// The vsock device or the guest did not answer in time.
    #[error("dialling vsock port {port}: no answer for {seconds} s")]
    Timeout {
        /// The vsock port.
        port: u32,
        /// How long it was waited for.
        seconds: u64,
    },
}

impl DialError {
    pub(super) fn io(operation: &'static str, subject: impl fmt::Display, source: io::Error) -> Self {
        Self::Io { operation, subject: subject.to_string(), source }
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The agent refused it, or gave up.
    #[error("{code:?}: {message}")]
    Refused {
        /// The kind of the refusal, such as NOT_FOUND. With DEADLINE_EXCEEDED, something in the guest took too long.
        code: Code,
        /// The agent's words.
        message: String,
    },
    /// The deadline passed. The agent may still do what it was asked for.
    #[error("the agent did not answer within the deadline")]
    Deadline,
    /// The connection ended. It is not known whether the agent did what it was asked for.
    #[error("the connection to the agent is gone: {0}")]
    Lost(String),
    /// The request could not be sent, or its answer makes no sense.
    #[error("{0}")]
    Other(String),
}

impl From<ttrpc::Error> for CallError {
    fn from(error: ttrpc::Error) -> Self {
        match error {
            ttrpc::Error::RpcStatus(status) => {
                Self::Refused { code: status.code(), message: status.message().to_owned() }
            }
            ttrpc::Error::Socket(_)
            | ttrpc::Error::LocalClosed
            | ttrpc::Error::RemoteClosed
            | ttrpc::Error::Eof
            | ttrpc::Error::Nix(_) => Self::Lost(error.to_string()),
            ttrpc::Error::Others(text) if text == DEADLINE => Self::Deadline,
            other => Self::Other(other.to_string()),
        }
    }
}
