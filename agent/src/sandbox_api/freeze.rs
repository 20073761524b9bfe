//! `/freeze` and `/unfreeze`: commands stand still, as before a snapshot.

use std::sync::Arc;

use sandbox_api::http::Response;
use serde_json::json;

use super::sandbox::Sandbox;
use super::task;

/// Freezes all commands, and all that they have started.
pub(super) async fn freeze(sandbox: &Arc<Sandbox>) -> Response {
    answer(sandbox, true).await
}

/// Lets them go on.
pub(super) async fn unfreeze(sandbox: &Arc<Sandbox>) -> Response {
    answer(sandbox, false).await
}

async fn answer(sandbox: &Arc<Sandbox>, is_frozen: bool) -> Response {
    let sandbox = Arc::clone(sandbox);
    let done = task::blocking(move || sandbox.commands.set_frozen(is_frozen)).await;
    match done {
        Ok(Ok(count)) => Response::json(200, &json!({ "count": count })),
        Ok(Err(text)) => Response::failure(500, &text),
        Err(_) => Response::failure(500, "freezing panicked"),
    }
}

/// Lets all commands go on. Blocks.
pub(super) fn thaw(sandbox: &Sandbox) {
    if let Err(error) = sandbox.commands.set_frozen(false) {
        tracing::warn!(%error, "a command stays frozen");
    }
}
