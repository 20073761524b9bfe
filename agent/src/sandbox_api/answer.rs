//! Answers that several parts give.

use sandbox_api::connect::Code;
use sandbox_api::http::Response;

use crate::error::ErrorKind;

/// What envd says to a path, or a method of a service, that it does not have.
pub(super) fn not_found() -> Response {
    Response::text(404, "404 page not found\n")
}

/// The code of the Connect protocol for a kind of error.
pub(super) fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Exists => Code::AlreadyExists,
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::State => Code::FailedPrecondition,
        ErrorKind::Busy => Code::Unavailable,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Timeout => Code::DeadlineExceeded,
        ErrorKind::Cancelled => Code::Aborted,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Internal => Code::Internal,
    }
}
