//! Why a plain request for files is not answered as it wants.

use std::time::Duration;

use sandbox_api::http::{Body, BodyError, Response};

use super::rooted::FileError;
use super::sandbox::CallerError;

/// How long the rest of a body is read that nobody wants any more.
const REST: Duration = Duration::from_secs(60);

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

/// Reads what is left of a body, before the answer says why it is not wanted: a client that still sends when the connection
/// closes never sees the answer.
pub(super) async fn pass_over(body: &mut Body) {
    let rest = async { while let Ok(Some(_)) = body.chunk().await {} };
    // What takes longer is cut off.
    drop(tokio::time::timeout(REST, rest).await);
}
