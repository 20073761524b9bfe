//! The owner of a container: works through its commands, one after the other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustjail::start::StartError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::body::{Body, Waiting};
use super::error::ContainerError;
use super::hook::{self, Stage};
use super::job::Job;
use super::remove::undone;
use super::shared::Shared;
use super::state::State;
use super::tools::Tools;
use super::{create, exec, freeze, remove};
use crate::process::launch::Listening;

/// What is done when the container is no more.
pub(super) type Forget = Box<dyn FnOnce() + Send>;

/// Works until the container is removed, or could not be created.
pub(super) async fn run(
    shared: Arc<Shared>,
    tools: Arc<Tools>,
    mut queue: mpsc::Receiver<Job>,
    forget: Forget,
) {
    let mut body = Body::default();
    // Before the answer: the id is free when the caller hears of it.
    let end = || {
        shared.set_state(State::Removed);
        // What its processes wrote and nobody read goes with it.
        tools.trimmer.trim_soon();
        forget();
    };
    while let Some(job) = queue.recv().await {
        match job {
            Job::Create(.., reply) if body.created.is_some() => {
                let (id, state) = (shared.id.clone(), shared.state());
                drop(reply.send(Err(ContainerError::State { id, state, operation: "create it" })));
            }
            Job::Create(request, pod, reply) => {
                let work = create::create(&shared, &tools, &mut body, *request, pod);
                let result = unless_cancelled(&shared, work.boxed()).await;
                if result.is_err() {
                    take_back(&tools, &mut body).boxed().await;
                    end();
                    drop(reply.send(result));
                    return;
                }
                // The caller may be gone; the work is done all the same.
                drop(reply.send(result));
            }
            Job::Start(reply) => {
                let work = start(&shared, &tools, &mut body);
                match unless_cancelled(&shared, work.boxed()).await {
                    // The caller hears when they have run; the next job need not wait for them.
                    Ok(Some(hooks)) => drop(tokio::spawn(async move {
                        drop(hooks.await);
                        drop(reply.send(Ok(())));
                    })),
                    Ok(None) => drop(reply.send(Ok(()))),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Job::Exec(request, reply) => {
                let work = exec::exec(&shared, &tools, &body, *request);
                drop(reply.send(unless_cancelled(&shared, work.boxed()).await));
            }
            Job::Pause(reply) => {
                drop(reply.send(unless_cancelled(&shared, freeze::pause(&shared, &mut body).boxed()).await));
            }
            Job::Resume(reply) => {
                drop(reply.send(unless_cancelled(&shared, freeze::resume(&shared, &mut body).boxed()).await));
            }
            Job::Update(resources, reply) => {
                let work = freeze::update(&shared, *resources);
                drop(reply.send(unless_cancelled(&shared, work.boxed()).await));
            }
            Job::Remove(reply) => {
                let result = guarded(&shared, remove::remove(&shared, &tools, &mut body).boxed()).await;
                if result.is_ok() {
                    end();
                    drop(reply.send(result));
                    return;
                }
                drop(reply.send(result));
            }
        }
    }
}

/// How long the thread of a create that was given up may take to notice. One that hangs in the kernel is left alone: what it
/// still does, it takes back itself.
const NOTICE: Duration = Duration::from_secs(3);

/// Takes a create back that failed, was given up or panicked. Ends within [`NOTICE`] and [`remove::UNDO_DEADLINE`].
async fn take_back(tools: &Tools, body: &mut Body) {
    tools.devices.look_again();
    if let Some(preparing) = body.preparing.take()
        // Ends by an error, when the thread drops its side.
        && tokio::time::timeout(NOTICE, preparing).await.is_err()
    {
        tracing::error!("the thread of a create that was given up hangs");
    }
    let left = undone(&body.undo).await;
    if !left.is_empty() {
        tracing::error!(left = ?left, "a failed create left something behind");
    }
    hook::poststop(&tools.commands, &body.hooks).await;
}

/// Does the work, or gives it up when the container is being removed. What is done counts, also if both are so.
///
/// The work is boxed: what an actor holds while it waits for jobs has room for all of them otherwise, and a container then costs
/// 100 KiB as long as it lives.
async fn unless_cancelled<T>(
    shared: &Shared,
    work: BoxFuture<'_, Result<T, ContainerError>>,
) -> Result<T, ContainerError> {
    let cancelled = || Err(ContainerError::Cancelled(shared.id.clone()));
    if shared.cancel.is_cancelled() {
        // Not begun any more.
        return cancelled();
    }
    let work = async {
        tokio::select! {
            biased;
            result = work => result,
            () = shared.cancel.cancelled() => cancelled(),
        }
    };
    match guarded(shared, work).await {
        // Its device was not late: nobody waited any more.
        Err(_) if shared.cancel.is_cancelled() => cancelled(),
        result => result,
    }
}

/// Does the work. A panic is an answer too, and the container lives on.
async fn guarded<T>(
    shared: &Shared,
    work: impl Future<Output = Result<T, ContainerError>>,
) -> Result<T, ContainerError> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(ContainerError::Panicked(shared.id.clone())))
}

/// Lets the first process execute. Gives the hooks that run then, if there are any.
async fn start(
    shared: &Arc<Shared>,
    tools: &Tools,
    body: &mut Body,
) -> Result<Option<JoinHandle<()>>, ContainerError> {
    shared.expect(&[State::Created], "start it")?;
    let Waiting { pid, handshake, listener, has_hooks } = body.starting.take().ok_or_else(|| {
        ContainerError::State { id: shared.id.clone(), state: State::Running, operation: "start it" }
    })?;
    let failed = |error: StartError| ContainerError::Launch(shared.id.clone(), error.into());
    handshake.release().map_err(failed)?;
    shared.set_state(State::Running);
    let state = body.hooks.state("running", pid);
    let listening = listener.map(|listener| Listening { listener, state });
    let watch = handshake.watch(shared.id.to_string(), listening);
    if has_hooks {
        watch.await.map_err(|_| ContainerError::Panicked(shared.id.clone()))?.map_err(failed)?;
    }
    let hooks = body.hooks.has(Stage::Poststart).then(|| hook::poststart(&tools.commands, &body.hooks, pid));
    body.poststart = hooks.as_ref().map(JoinHandle::abort_handle);
    Ok(hooks)
}

#[cfg(test)]
#[path = "actor_test.rs"]
mod tests;
