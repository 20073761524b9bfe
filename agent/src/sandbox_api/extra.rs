//! What the wire of envd lacks, below `/pith/`.

use std::sync::Arc;

use sandbox_api::http::{Request, Response};

use super::answer::not_found;
use super::sandbox::Sandbox;

/// Answers a request for `/pith/NAME`.
pub(super) async fn call(_sandbox: &Arc<Sandbox>, _name: &str, _request: Request) -> Response {
    not_found()
}
