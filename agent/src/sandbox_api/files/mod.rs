//! Files as a whole: `/files` and `/files/compose`.

use std::sync::Arc;

use sandbox_api::http::{Request, Response};

use super::answer::not_found;
use super::sandbox::Sandbox;

/// Answers a request for `/files` or below it. The token is not checked yet for `/files` itself: that is by signature.
pub(super) async fn call(_sandbox: &Arc<Sandbox>, _request: Request) -> Response {
    not_found()
}
