//! What the wire of envd lacks, below `/pith/`.

mod tree;

use std::sync::Arc;

use sandbox_api::http::{Request, Response};

use super::answer::not_found;
use super::sandbox::Sandbox;

/// Answers a request for `/pith/NAME`.
pub(super) async fn call(sandbox: &Arc<Sandbox>, name: &str, request: Request) -> Response {
    match name {
        "tree" => tree::call(sandbox, request).await,
        _ => not_found(),
    }
}
