//! `/freeze` and `/unfreeze`.

use std::sync::Arc;

use sandbox_api::http::Response;

use super::sandbox::Sandbox;

/// Freezes all commands.
pub(super) async fn freeze(_sandbox: &Arc<Sandbox>) -> Response {
    Response::empty(204)
}

/// Lets them go on.
pub(super) async fn unfreeze(_sandbox: &Arc<Sandbox>) -> Response {
    Response::empty(204)
}
