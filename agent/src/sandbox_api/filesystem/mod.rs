//! The Filesystem service.

use std::sync::Arc;

use sandbox_api::http::{Request, Response};

use super::answer::not_found;
use super::sandbox::Sandbox;

/// Answers a call of `/filesystem.Filesystem/NAME`.
pub(super) async fn call(_sandbox: &Arc<Sandbox>, _name: &str, _request: Request) -> Response {
    not_found()
}
