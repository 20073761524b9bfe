//! Removes a container with all that it has.

use std::sync::Arc;

use super::body::Body;
use super::error::ContainerError;
use super::hook;
use super::launch::REMOVE_DEADLINE;
use super::shared::Shared;
use super::state::State;
use super::tools::Tools;

/// Kills what still runs, waits for it, and takes back every step of the create. It may be called again after a
/// failure. Waiters learn the exit status, since the processes end before they are forgotten.
pub(super) async fn remove(
    shared: &Arc<Shared>,
    tools: &Tools,
    body: &mut Body,
) -> Result<(), ContainerError> {
    shared.expect(&[State::Created, State::Running, State::Paused, State::Stopped], "remove it")?;
    // A first process that waits for its start ends by itself when its handshake closes.
    body.starting = None;
    // Nor does anything wait for hooks of its start.
    if let Some(hooks) = body.poststart.take() {
        hooks.abort();
    }
    tools.memory_events.remove(&shared.id);
    shared.on_cgroup("remove it", |cgroup| cgroup.remove(REMOVE_DEADLINE)).await?;
    let processes = shared.processes().all();
    for process in processes {
        // All are dead; this only waits for the reaper to say so. A status that never came changes nothing here.
        drop(process.end().await);
    }
    if let Some(created) = body.created.take() {
        // The mount namespace goes first: it holds the container's mounts.
        drop(created.namespaces);
        hook::poststop(&tools.commands, &body.hooks).await;
        let undo = body.undo.clone();
        let left = tokio::task::spawn_blocking(move || undo.run()).await;
        let left = left.map_err(|_| ContainerError::Panicked(shared.id.clone()))?;
        if !left.is_empty() {
            tracing::error!(container_id = %shared.id, left = ?left, "a removed container left something behind");
        }
    }
    Ok(())
}
