//! From error kinds to ttrpc codes: the only place that makes a [`ttrpc::Error`].

use ttrpc::Code;

use crate::error::{ErrorKind, Kind, chain, visible};

/// Bytes of an error's text at most, about: a request can name things of megabytes.
const LONGEST: usize = 8 * 1024;

/// An error on its way to the caller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: ErrorKind,
    text: String,
}

impl Failure {
    /// The request is at fault.
    pub(crate) fn invalid(text: impl Into<String>) -> Failure {
        Failure { kind: ErrorKind::Invalid, text: text.into() }
    }

    /// A policy says no.
    #[cfg(feature = "policy")]
    pub(crate) fn denied(text: impl Into<String>) -> Failure {
        Failure { kind: ErrorKind::Denied, text: text.into() }
    }

    /// This build does not have it.
    #[cfg(not(feature = "policy"))]
    pub(crate) fn unsupported(text: impl Into<String>) -> Failure {
        Failure { kind: ErrorKind::Unsupported, text: text.into() }
    }

    /// The pod is going, and nothing waits any more.
    pub(crate) fn cancelled() -> Failure {
        Failure { kind: ErrorKind::Cancelled, text: "given up: the sandbox is being destroyed".into() }
    }

    /// The agent is at fault.
    pub(crate) fn internal(text: impl Into<String>) -> Failure {
        Failure { kind: ErrorKind::Internal, text: text.into() }
    }
}

impl<E: Kind + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure { kind: error.kind(), text: chain(&error) }
    }
}

impl From<Failure> for ttrpc::Error {
    fn from(failure: Failure) -> ttrpc::Error {
        // A request, an image and a container can name things that a terminal would obey. Lines are the agent's own.
        let lines: Vec<String> = failure.text.split('\n').map(visible).collect();
        let text = rustjail::shorten(&lines.join("\n"), LONGEST);
        ttrpc::Error::RpcStatus(ttrpc::get_status(code(failure.kind), text))
    }
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NOT_FOUND,
        ErrorKind::Exists => Code::ALREADY_EXISTS,
        ErrorKind::Invalid => Code::INVALID_ARGUMENT,
        ErrorKind::State => Code::FAILED_PRECONDITION,
        ErrorKind::Busy => Code::UNAVAILABLE,
        ErrorKind::Exhausted => Code::RESOURCE_EXHAUSTED,
        ErrorKind::Denied => Code::PERMISSION_DENIED,
        ErrorKind::Timeout => Code::DEADLINE_EXCEEDED,
        ErrorKind::Cancelled => Code::CANCELLED,
        ErrorKind::Unsupported => Code::UNIMPLEMENTED,
        ErrorKind::Internal => Code::INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::RegistryError;

    #[test]
    fn a_text_drives_no_terminal() {
        let error: ttrpc::Error = Failure::invalid("no \u{1b}[2J\r\nbut \u{9b}K").into();
        let ttrpc::Error::RpcStatus(status) = error else { panic!("{error:?}") };
        assert_eq!(status.message(), "no \\u{1b}[2J\\r\nbut \\u{9b}K");
    }

    #[test]
    fn a_text_has_a_bound() {
        let error: ttrpc::Error = Failure::invalid("x".repeat(3 << 20)).into();
        let ttrpc::Error::RpcStatus(status) = error else { panic!("{error:?}") };
        assert!(status.message().len() < LONGEST + 100);
    }

    #[test]
    fn a_kind_becomes_its_code_and_the_text_the_whole_chain() {
        let error: ttrpc::Error = Failure::from(RegistryError::NotFound("xx".into())).into();
        let ttrpc::Error::RpcStatus(status) = error else { panic!("{error:?}") };
        assert_eq!(status.code(), Code::NOT_FOUND);
        assert_eq!(status.message(), "container xx not found");
    }
}
