//! `/init` and `/envs`.

use std::sync::Arc;

use sandbox_api::http::{Request, Response};
use serde_json::Value;

use super::sandbox::Sandbox;

/// The variables of every command.
pub(super) fn envs(sandbox: &Arc<Sandbox>) -> Response {
    let envs = sandbox.settings().envs.clone();
    let object = envs.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    Response::json(200, &Value::Object(object))
}

/// Sets what a restored machine needs.
pub(super) async fn init(_sandbox: &Arc<Sandbox>, _request: Request, _is_host: bool) -> Response {
    Response::empty(204)
}
