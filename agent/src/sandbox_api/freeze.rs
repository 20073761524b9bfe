//! `/freeze` and `/unfreeze`: commands stand still, as before a snapshot.

use std::sync::Arc;

use sandbox_api::http::Response;
use serde_json::json;

use super::sandbox::Sandbox;

/// Freezes all commands and all that they have started, or lets them go on. What is to start meanwhile waits.
pub(super) async fn freeze(sandbox: &Arc<Sandbox>, is_frozen: bool) -> Response {
    // In a task of its own: it is not to be given up half-way.
    let commands = Arc::clone(&sandbox.commands);
    let done = tokio::spawn(async move { commands.set_frozen(is_frozen).await });
    match done.await {
        Ok(Ok(count)) => Response::json(200, &json!({ "count": count })),
        Ok(Err(text)) => Response::failure(500, &text),
        Err(_) => Response::failure(500, "freezing panicked"),
    }
}

/// Lets all commands go on.
pub(super) async fn thaw(sandbox: &Sandbox) {
    if let Err(error) = sandbox.commands.set_frozen(false).await {
        tracing::warn!(%error, "a command stays frozen");
    }
}
