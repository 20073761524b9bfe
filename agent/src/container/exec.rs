//! Starts a further process in a container.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime;
use rustjail::cgroup::{Cgroup, Nested};
use rustjail::plan::{self, ExecOptions};
use rustjail::start::StartError;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::body::{Body, Created};
use super::error::ContainerError;
use super::hook::Hooks;
use super::label;
use super::launch::{directory_of, name_user, process, streams};
use super::shared::Shared;
use super::state::State;
use super::tools::Tools;
use super::user::UserNames;
use crate::device::container::rewrite_environment;
use crate::process::launch::{Launch, Listening};
use crate::process::passfd::{Claimed, Ports};
use crate::process::reaper::Cause;
use crate::process::stdio;
use crate::process::{Process, ProcessError};

/// What ExecProcess asks for.
#[derive(Debug)]
pub(crate) struct ExecRequest {
    /// Unique in the container.
    pub(crate) exec_id: String,
    /// The process.
    pub(crate) process: runtime::Process,
    /// Its user by name; overrides the numbers of `process`.
    pub(crate) user: UserNames,
    /// Connections that the host made for its streams.
    pub(crate) ports: Ports,
    /// How it differs from one of a shim.
    pub(crate) apart: Option<Apart>,
}

/// A process in a cgroup of its own, whose caller wants to know more of it.
#[derive(Debug)]
#[cfg_attr(not(feature = "sandbox-api"), allow(dead_code, reason = "only the sandbox API makes such"))]
pub(crate) struct Apart {
    /// Whether it has no input.
    pub(crate) no_input: bool,
    /// What its streams are given up after, in place of its own end.
    pub(crate) streams_end: watch::Receiver<Option<i32>>,
    /// Told when it is there.
    pub(crate) born: oneshot::Sender<Born>,
}

/// A process that was asked for with [`Apart`].
#[cfg_attr(not(feature = "sandbox-api"), allow(dead_code, reason = "only the sandbox API reads them"))]
pub(crate) struct Born {
    /// The process.
    pub(crate) process: Arc<Process>,
    /// Its process id in its own namespace.
    pub(crate) pid: i32,
    /// Why it ended, once it has.
    pub(crate) cause: Cause,
    /// It, and all that it starts.
    pub(crate) cgroup: Arc<Nested>,
    /// The container's cgroup.
    pub(crate) container: Arc<Cgroup>,
    /// Ends when the program executes, or cannot.
    pub(crate) executed: JoinHandle<Result<(), StartError>>,
}

/// Starts the process; it runs when this returns. A failure leaves its id free.
pub(super) async fn exec(
    shared: &Arc<Shared>,
    tools: &Arc<Tools>,
    body: &Body,
    mut request: ExecRequest,
) -> Result<(), ContainerError> {
    let apart = request.apart.take();
    // First, so that any failure closes them and the host knows.
    let claimed = tools.streams.claim(request.ports).await?;
    shared.expect(&[State::Created, State::Running], "execute in it")?;
    let created = body.created.as_ref().ok_or_else(|| ContainerError::State {
        id: shared.id.clone(),
        state: shared.state(),
        operation: "execute in it",
    })?;
    let key = shared.key(&request.exec_id);
    if key.is_empty() {
        return Err(ProcessError::Exists(request.exec_id).into());
    }
    shared.processes().reserve(key)?;
    // A failure, a panic and a removal free the id.
    let reserved = Reserved { shared, key };
    start(shared, tools, created, &body.hooks, &request, claimed, apart).await?;
    std::mem::forget(reserved);
    Ok(())
}

/// An id that is free again when this is dropped.
struct Reserved<'a> {
    shared: &'a Shared,
    key: &'a str,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.shared.processes().release(self.key);
    }
}

async fn start(
    shared: &Arc<Shared>,
    tools: &Arc<Tools>,
    created: &Created,
    hooks: &Hooks,
    request: &ExecRequest,
    claimed: Claimed,
    apart: Option<Apart>,
) -> Result<(), ContainerError> {
    let mut described = request.process.clone();
    label::drop_unknown(&shared.id, &mut described, tools.facts.modules);
    rewrite_environment(&mut described, &created.addresses);
    if !request.user.is_empty() {
        name_user(shared, &created.spec, &mut described, request.user.clone()).await?;
    }
    let plan = plan::exec_with(&described, &ExecOptions { spec: &created.spec }, created.seccomp.as_ref())
        .map_err(|error| ContainerError::Plan(shared.id.clone(), error))?;
    let no_input = plan.terminal.is_none() && apart.as_ref().is_some_and(|apart| apart.no_input);
    let (pipes, streams) = match no_input {
        true => stdio::pipes_without_input(tools.settings.pipe_size)?,
        false => streams(&plan, tools.settings.pipe_size)?,
    };
    let listener = plan.seccomp.as_ref().and_then(|seccomp| seccomp.listener.clone());
    let exec_id = &request.exec_id;
    let (own, cgroup) = born_in(shared, exec_id, apart.is_some()).await?;
    let launch = Launch {
        plan,
        cgroup,
        namespaces: created.namespaces.clone(),
        streams,
        wants_inner_pid: apart.is_some(),
        place: None,
    };
    let newborn = tools
        .jailer
        .launch(launch)
        .await
        .map_err(|error| ContainerError::Launch(shared.id.clone(), error))?;
    let (inner, cause) = (newborn.inner_pid.unwrap_or(newborn.pid), newborn.cause.clone());
    let streams_end = apart.as_ref().map(|apart| &apart.streams_end);
    let (process, handshake) = process(exec_id, shared, newborn, pipes, claimed, streams_end)?;
    let process = Arc::new(process);
    shared.processes().insert(exec_id, Arc::clone(&process));
    let init = shared.processes().get("").map(|init| init.pid()).unwrap_or_default();
    let state = hooks.state(&shared.state().to_string(), init);
    let listening = listener.map(|listener| Listening { listener, state });
    let executed = handshake.watch(shared.id.to_string(), listening);
    if let (Some(apart), Some(own)) = (apart, own) {
        let container = shared.cgroup("execute in it")?;
        let born = Born { process, pid: inner, cause, cgroup: own.keep(), container, executed };
        // Who asked may be gone; nobody is left then who would remove the cgroup, which goes with the container.
        drop(apart.born.send(born));
    }
    Ok(())
}

/// Where a process is born: in a cgroup of its own, or in that of the first process. Looked at on a thread: the kernel has one
/// lock for all cgroups, which a container that makes or removes thousands of them keeps busy.
async fn born_in(
    shared: &Arc<Shared>,
    exec_id: &str,
    is_apart: bool,
) -> Result<(Option<OwnCgroup>, OwnedFd), ContainerError> {
    let (own, exec_id) = (Arc::clone(shared), exec_id.to_owned());
    let work = move || {
        if !is_apart {
            return Ok((None, birthplace(&own)?));
        }
        let made = OwnCgroup::make(&own, &exec_id)?;
        let directory = made.directory(&own)?;
        Ok((Some(made), directory))
    };
    let made = tokio::task::spawn_blocking(work).await;
    made.unwrap_or_else(|_| Err(ContainerError::Panicked(shared.id.clone())))
}

/// A cgroup for one process, taken away again unless it is kept.
struct OwnCgroup(Option<Arc<Nested>>);

impl OwnCgroup {
    fn make(shared: &Shared, exec_id: &str) -> Result<OwnCgroup, ContainerError> {
        let container = shared.cgroup("execute in it")?;
        let nested = container.nest(&format!("pith-{exec_id}"));
        nested
            .map(|nested| OwnCgroup(Some(Arc::new(nested))))
            .map_err(|error| ContainerError::Cgroup(shared.id.clone(), error))
    }

    fn directory(&self, shared: &Shared) -> Result<OwnedFd, ContainerError> {
        let failed = |source| ContainerError::Io {
            operation: "open a cgroup in that of",
            path: shared.id.to_string(),
            source,
        };
        let nested = self.0.as_ref().ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        nested.dir().try_clone_to_owned().map_err(failed)
    }

    fn keep(mut self) -> Arc<Nested> {
        // Taken once only: it is consumed.
        self.0.take().expect("is there until it is kept")
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let Some(nested) = self.0.take() else { return };
        // On a thread: who has just been killed takes a moment to be gone. What is left then goes with the container's own.
        let remove = move || {
            let killed = nested.kill();
            let is_removed = |pause: &u64| {
                std::thread::sleep(Duration::from_millis(*pause));
                matches!(nested.remove_if_empty(), Ok(true))
            };
            if killed.is_err() || !LOOKS.iter().any(is_removed) {
                tracing::warn!(?killed, "the cgroup of a command that did not start is not removed");
            }
        };
        drop(tokio::task::spawn_blocking(remove));
    }
}

/// Milliseconds between looks at a cgroup that is to become empty.
const LOOKS: [u64; 6] = [0, 2, 10, 50, 250, 1000];

impl std::fmt::Debug for Born {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Born").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// The cgroup of the first process, which may sit in one that the container made itself (as systemd does); the
/// container's own where the first process is gone.
fn birthplace(shared: &Shared) -> Result<OwnedFd, ContainerError> {
    let cgroup = shared.cgroup("execute in it")?;
    let init = shared.processes().get("")?;
    let table = || std::fs::read_to_string(format!("/proc/{}/cgroup", init.pid())).ok();
    match cgroup.dir_beside(table) {
        Ok(directory) => Ok(directory),
        Err(_) => directory_of(&cgroup, &shared.id),
    }
}
