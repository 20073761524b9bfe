//! `/metrics`.

use std::sync::Arc;

use sandbox_api::http::{Head, Response};

use super::sandbox::Sandbox;

/// What the machine has and uses.
pub(super) async fn metrics(_sandbox: &Arc<Sandbox>, _head: &Head) -> Response {
    Response::json(200, &serde_json::json!({}))
}
