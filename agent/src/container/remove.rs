//! Removes a container with all that it has.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::body::Body;
use super::error::ContainerError;
use super::hook;
use super::launch::REMOVE_DEADLINE;
use super::shared::Shared;
use super::state::State;
use super::tools::Tools;
use crate::undo::Undo;

/// How long the ends of dead processes may take to be told.
const END_DEADLINE: Duration = Duration::from_secs(2);
/// How long the mounts that only the container saw may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// How long umounts and the like may take. What hangs in the kernel is left to its thread.
pub(super) const UNDO_DEADLINE: Duration = Duration::from_secs(20);

/// Kills what still runs, waits for it, and takes back every step of the create. It may be called again after a
/// failure. Waiters learn the exit status, since the processes end before they are forgotten.
///
/// Ends within the deadlines above, that of the cgroup, and those of the container's poststop hooks.
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
    // All are dead; this only waits for the reaper to say so. A status that never came changes nothing here.
    let ends = join_all(processes.iter().map(|process| process.end()));
    if tokio::time::timeout(END_DEADLINE, ends).await.is_err() {
        tracing::error!(container_id = %shared.id, "nobody heard of the end of a process that is gone");
    }
    if let Some(created) = body.created.take() {
        // The mount namespace goes first: it holds the container's mounts, and who closes it waits until all of them are gone.
        let namespaces = created.namespaces;
        let closing = tokio::task::spawn_blocking(move || drop(namespaces));
        if tokio::time::timeout(CLOSE_DEADLINE, closing).await.is_err() {
            tracing::error!(container_id = %shared.id, "the mounts of a removed container are still there");
        }
        hook::poststop(&tools.commands, &body.hooks).await;
        let left = undone(&body.undo).await;
        if !left.is_empty() {
            tracing::error!(container_id = %shared.id, left = ?left, "a removed container left something behind");
        }
    }
    Ok(())
}

/// Takes all steps back; gives what failed. Ends at [`UNDO_DEADLINE`].
pub(super) async fn undone(undo: &Undo) -> Vec<String> {
    let undo = undo.clone();
    let work = tokio::task::spawn_blocking(move || undo.run());
    match tokio::time::timeout(UNDO_DEADLINE, work).await {
        Ok(Ok(left)) => left,
        Ok(Err(_)) => vec!["taking back panicked".to_owned()],
        Err(_) => vec![format!("taking back takes longer than {} s", UNDO_DEADLINE.as_secs())],
    }
}
