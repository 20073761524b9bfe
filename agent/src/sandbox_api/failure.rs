//! Why a plain request for files is not answered as it wants.

use sandbox_api::http::{BodyError, Response};

use super::rooted::FileError;
use super::sandbox::CallerError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The files.
    #[error(transparent)]
    File(#[from] FileError),
    /// The request's body.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// Who asks.
    #[error(transparent)]
    Caller(#[from] CallerError),
    /// Neither the token nor the signature is right.
    #[error("{0}")]
    Unauthorized(String),
    /// The client wants a file in an encoding only.
    #[error("no acceptable encoding: the file is sent as it is, with the encoding identity")]
    NotAcceptable,
}

impl Failure {
    /// The answer that says so.
    pub(super) fn answer(&self) -> Response {
        let status = match self {
            Failure::File(error) => error.status(),
            Failure::Body(error) => error.status(),
            Failure::Caller(error) => return error.to_response(),
            Failure::Unauthorized(_) => 401,
            Failure::NotAcceptable => 406,
        };
        Response::failure(status, &self.to_string())
    }
}
