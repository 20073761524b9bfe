//! The owner of a container: works through its commands, one after the other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use rustjail::plan::Listener;
use rustjail::start::{StartError, Starting};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

use super::create::Created;
use super::hook::{self, Stage};
use super::{Command, ContainerError, Shared, State, create, exec, freeze, remove};
use crate::app::Agent;
use crate::heap;
use crate::process::launch::{self, Listening};

/// What only the actor has.
#[derive(Default)]
pub(super) struct Body {
    /// Present once created, until removed.
    pub(super) created: Option<Created>,
    /// The first process's handshake, until it is started.
    pub(super) starting: Option<Waiting>,
    /// The hooks that run after its start.
    pub(super) poststart: Option<AbortHandle>,
    /// The state to return to when a paused container is resumed.
    pub(super) before_pause: Option<State>,
}

/// A first process that waits for its start.
pub(super) struct Waiting {
    /// Its handshake.
    pub(super) starting: Starting,
    /// Who its filter asks.
    pub(super) listener: Option<Listener>,
    /// Whether its start can fail yet, and so is waited for: it runs hooks.
    pub(super) has_hooks: bool,
}

pub(super) async fn run(shared: Arc<Shared>, agent: Arc<Agent>, mut queue: mpsc::Receiver<Command>) {
    let mut body = Body::default();
    while let Some(command) = queue.recv().await {
        match command {
            Command::Create(request, reply) => {
                let work = create::create(&shared, &agent, &mut body, *request);
                let result = guarded(&shared, work).await;
                let has_failed = result.is_err();
                if has_failed {
                    // Before the answer: the id is free when the caller hears of it.
                    forget(&shared, &agent);
                }
                // The caller may be gone; the work is done all the same.
                drop(reply.send(result));
                if has_failed {
                    return;
                }
            }
            Command::Start(reply) => {
                let work = start(&shared, &agent, &mut body);
                match guarded(&shared, work).await {
                    // The caller hears when they have run; the next command need not wait for them.
                    Ok(Some(hooks)) => drop(tokio::spawn(async move {
                        drop(hooks.await);
                        drop(reply.send(Ok(())));
                    })),
                    Ok(None) => drop(reply.send(Ok(()))),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Command::Exec(request, reply) => {
                let work = exec::exec(&shared, &agent, &body, *request);
                drop(reply.send(guarded(&shared, work).await));
            }
            Command::Pause(reply) => {
                drop(reply.send(guarded(&shared, freeze::pause(&shared, &mut body)).await));
            }
            Command::Resume(reply) => {
                drop(reply.send(guarded(&shared, freeze::resume(&shared, &mut body)).await));
            }
            Command::Update(resources, reply) => {
                let work = freeze::update(&shared, *resources);
                drop(reply.send(guarded(&shared, work).await));
            }
            Command::Remove(reply) => {
                let result = guarded(&shared, remove::remove(&shared, &agent, &mut body)).await;
                let done = result.is_ok();
                if done {
                    forget(&shared, &agent);
                }
                drop(reply.send(result));
                if done {
                    return;
                }
            }
        }
    }
}

fn forget(shared: &Shared, agent: &Agent) {
    // What its processes wrote and nobody read goes with it.
    heap::trim_soon();
    shared.set_state(State::Removed);
    agent.registry.remove(&shared.id);
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
    shared: &Shared,
    agent: &Arc<Agent>,
    body: &mut Body,
) -> Result<Option<JoinHandle<()>>, ContainerError> {
    shared.expect(&[State::Created], "start it")?;
    let Waiting { starting, listener, has_hooks } = body.starting.take().ok_or_else(|| {
        ContainerError::State { id: shared.id.clone(), state: State::Running, operation: "start it" }
    })?;
    let failed = |error: StartError| ContainerError::Launch(shared.id.clone(), error.into());
    starting.release().map_err(failed)?;
    shared.set_state(State::Running);
    let pid = starting.pid();
    let hooks = body.created.as_ref().map(|created| &created.hooks);
    let state = hooks.map(|hooks| hooks.state("running", pid)).unwrap_or_default();
    let listening = listener.map(|listener| Listening { listener, state });
    let watch = launch::watch_execution(starting, shared.id.to_string(), listening);
    if has_hooks {
        watch.await.map_err(|_| ContainerError::Panicked(shared.id.clone()))?.map_err(failed)?;
    }
    let running = hooks.filter(|hooks| hooks.has(Stage::Poststart));
    let running = running.map(|hooks| hook::poststart(agent, hooks, pid));
    body.poststart = running.as_ref().map(JoinHandle::abort_handle);
    Ok(running)
}
