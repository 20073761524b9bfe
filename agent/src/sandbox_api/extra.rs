//! What the wire of envd lacks, below `/pith/`.

mod tree;

use std::sync::Arc;

use sandbox_api::http::{Request, Response};

use super::answer::not_found;
use super::sandbox::Sandbox;
use super::volume::Work;
use super::{relay, volume};

/// Answers a request for `/pith/NAME`.
pub(super) async fn call(sandbox: &Arc<Sandbox>, name: &str, request: Request) -> Response {
    let method = request.head.method.clone();
    match (name, method.as_str()) {
        ("tree", _) => tree::call(sandbox, request).await,
        ("socket", "GET") => relay::socket(sandbox, request).await,
        ("fsfreeze", "POST") => volume::work(sandbox, &request.head, Work::Freeze).await,
        ("fsthaw", "POST") => volume::work(sandbox, &request.head, Work::Thaw).await,
        ("fstrim", "POST") => volume::work(sandbox, &request.head, Work::Trim).await,
        ("socket" | "fsfreeze" | "fsthaw" | "fstrim", _) => {
            Response::failure(405, &format!("/pith/{name} has no {method}"))
        }
        _ => not_found(),
    }
}
