//! What the wire of envd lacks, below `/pith/`.

mod tree;

use std::sync::Arc;

use futures_util::future::FutureExt as _;
use sandbox_api::http::{Request, Response};

use super::answer::not_found;
use super::sandbox::Sandbox;
use super::volume::Work;
use super::{relay, volume};

/// Answers a request for `/pith/NAME`.
pub(super) async fn call(sandbox: &Arc<Sandbox>, name: &str, request: Request) -> Response {
    let method = request.head.method.clone();
    match (name, method.as_str()) {
        ("tree", _) => tree::call(sandbox, request).boxed().await,
        ("socket", "GET") => relay::socket(sandbox, request).boxed().await,
        ("fsfreeze" | "fsthaw" | "fstrim", "POST") => {
            let work = match name {
                "fsfreeze" => Work::Freeze,
                "fsthaw" => Work::Thaw,
                _ => Work::Trim,
            };
            volume::work(sandbox, &request.head, work).boxed().await
        }
        ("socket" | "fsfreeze" | "fsthaw" | "fstrim", _) => {
            Response::failure(405, &format!("/pith/{name} has no {method}"))
        }
        _ => not_found(),
    }
}
