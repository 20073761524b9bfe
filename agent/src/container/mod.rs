//! Containers.
//!
//! A container has one actor, a task that owns it and works through a bounded queue of commands (create, start, exec,
//! remove). Others hold a [`ContainerHandle`]. What must never queue goes by side doors of the handle: signals (by
//! pidfd or `cgroup.kill`), exits, streams, statistics. A handler that is dropped half-way leaves the command to the
//! actor, which finishes it.

mod actor;
mod create;
mod diagnostic;
mod exec;
mod file;
mod freeze;
mod hook;
mod label;
mod oom;
mod remove;
mod shared_mount;
mod state;
mod undo;
mod user;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use oci_spec::runtime::{LinuxResources, Spec};
use rustjail::cgroup::{self, Cgroup, ErrorClass};
use rustjail::plan::PlanError;
use tokio::sync::{mpsc, oneshot};

pub(crate) use create::CreateRequest;
pub(crate) use exec::ExecRequest;
pub(crate) use label::SecurityModules;
pub(crate) use oom::OomWatch;
pub(crate) use shared_mount::SharedMount;
pub(crate) use state::State;
pub(crate) use user::UserNames;

use crate::app::Agent;
use crate::device::DeviceError;
use crate::device::cdi::CdiError;
use crate::error::{ErrorKind, Kind};
use crate::guest::memory::Target;
use crate::process::launch::LaunchError;
use crate::process::passfd::PassfdError;
use crate::process::stdio::StreamError;
use crate::process::unread::Unread;
use crate::process::{Process, ProcessError, ProcessTable};
use crate::sandbox::SandboxError;
use crate::sandbox::registry::ContainerId;
use crate::storage::StorageError;

/// Why something could not be done with a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    /// It is not in the right state.
    #[error("container {id} is {state}: cannot {operation}")]
    State {
        /// Container.
        id: ContainerId,
        /// Where it is.
        state: State,
        /// What was asked.
        operation: &'static str,
    },
    /// It was removed while the command waited.
    #[error("container {0} not found: it was removed")]
    Removed(ContainerId),
    /// Its queue is full.
    #[error("container {0} has too much to do, try again")]
    Busy(ContainerId),
    /// Its actor panicked.
    #[error("work on container {0} panicked")]
    Panicked(ContainerId),
    /// It took longer than the caller allowed; the work goes on.
    #[error("ETIME: {operation} container {id} took longer than {seconds} s")]
    Timeout {
        /// What was asked.
        operation: &'static str,
        /// Container.
        id: ContainerId,
        /// The caller's limit.
        seconds: u32,
    },
    /// See [`SandboxError`].
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// See [`StorageError`].
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// See [`PlanError`].
    #[error("spec of {0}")]
    Plan(ContainerId, #[source] PlanError),
    /// See [`cgroup::Error`].
    #[error("cgroup of {0}")]
    Cgroup(ContainerId, #[source] cgroup::Error),
    /// See [`StreamError`].
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// See [`PassfdError`].
    #[error(transparent)]
    Passfd(#[from] PassfdError),
    /// See [`LaunchError`].
    #[error("start a process in {0}")]
    Launch(ContainerId, #[source] LaunchError),
    /// See [`ProcessError`].
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// See [`DeviceError`].
    #[error("devices of {0}")]
    Device(ContainerId, #[source] DeviceError),
    /// See [`CdiError`].
    #[error("devices of {0}")]
    Cdi(ContainerId, #[source] CdiError),
    /// See [`shared_mount::SharedMountError`].
    #[error("create {0}")]
    SharedMount(ContainerId, #[source] shared_mount::SharedMountError),
    /// See [`user::UserError`].
    #[error("user of a process in {0}")]
    User(ContainerId, #[source] user::UserError),
    /// See [`hook::HookError`].
    #[error("create {0}")]
    Hook(ContainerId, #[source] Box<hook::HookError>),
    /// A file or directory of the agent's own.
    #[error("{operation} {path}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Kind for ContainerError {
    fn kind(&self) -> ErrorKind {
        match self {
            ContainerError::State { .. } => ErrorKind::State,
            ContainerError::Removed(_) => ErrorKind::NotFound,
            ContainerError::Busy(_) => ErrorKind::Busy,
            ContainerError::Panicked(_) => ErrorKind::Internal,
            ContainerError::Timeout { .. } => ErrorKind::Timeout,
            ContainerError::Sandbox(error) => error.kind(),
            ContainerError::Storage(error) => error.kind(),
            ContainerError::Plan(_, PlanError::Invalid(_)) => ErrorKind::Invalid,
            ContainerError::Plan(_, PlanError::Unsupported(_)) => ErrorKind::Unsupported,
            ContainerError::Cgroup(_, error) => match error.class() {
                ErrorClass::NotFound => ErrorKind::NotFound,
                ErrorClass::Exists => ErrorKind::Exists,
                ErrorClass::Invalid => ErrorKind::Invalid,
                ErrorClass::Exhausted => ErrorKind::Exhausted,
                ErrorClass::Timeout => ErrorKind::Timeout,
                ErrorClass::Unsupported => ErrorKind::Unsupported,
                ErrorClass::Internal => ErrorKind::Internal,
            },
            ContainerError::Stream(error) => error.kind(),
            ContainerError::Passfd(error) => error.kind(),
            ContainerError::Launch(_, error) => error.kind(),
            ContainerError::Process(error) => error.kind(),
            ContainerError::Device(_, error) => error.kind(),
            ContainerError::Cdi(_, error) => error.kind(),
            ContainerError::SharedMount(_, error) => error.kind(),
            ContainerError::User(_, error) => error.kind(),
            ContainerError::Hook(_, error) => error.kind(),
            ContainerError::Io { source, .. } => crate::error::kind_of_errno(source.raw_os_error()),
        }
    }
}

/// Commands that may wait in a container's queue.
const QUEUE: usize = 64;

type Reply<T> = oneshot::Sender<Result<T, ContainerError>>;

enum Command {
    Create(Box<CreateRequest>, Reply<()>),
    Start(Reply<()>),
    Exec(Box<ExecRequest>, Reply<()>),
    Pause(Reply<()>),
    Resume(Reply<()>),
    Update(Box<LinuxResources>, Reply<()>),
    Remove(Reply<()>),
}

/// A container, for everybody but its actor. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ContainerHandle {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// What actor and handles share.
#[derive(Debug)]
struct Shared {
    id: ContainerId,
    state: Mutex<State>,
    processes: Mutex<ProcessTable>,
    /// Set once the cgroup exists.
    cgroup: OnceLock<Arc<Cgroup>>,
    /// Set once the container is created.
    spec: OnceLock<Arc<Spec>>,
    /// What its processes write and nobody reads.
    unread: Arc<Unread>,
}

impl Shared {
    fn processes(&self) -> std::sync::MutexGuard<'_, ProcessTable> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> State {
        let state = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The exit of the first process is published before anybody could note it here.
        if matches!(state, State::Running | State::Paused)
            && self.processes().get("").is_ok_and(|init| init.exited().is_some())
        {
            return State::Stopped;
        }
        state
    }

    fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn expect(&self, allowed: &[State], operation: &'static str) -> Result<(), ContainerError> {
        let state = self.state();
        if allowed.contains(&state) {
            Ok(())
        } else {
            Err(ContainerError::State { id: self.id.clone(), state, operation })
        }
    }

    /// The cgroup, once it exists.
    fn cgroup(&self, operation: &'static str) -> Result<Arc<Cgroup>, ContainerError> {
        self.cgroup.get().map(Arc::clone).ok_or_else(|| ContainerError::State {
            id: self.id.clone(),
            state: self.state(),
            operation,
        })
    }

    /// Works on the cgroup on a thread, since its files can block.
    async fn on_cgroup<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Cgroup) -> Result<T, cgroup::Error> + Send + 'static,
    ) -> Result<T, ContainerError> {
        let cgroup = self.cgroup(operation)?;
        match tokio::task::spawn_blocking(move || work(&cgroup)).await {
            Ok(result) => result.map_err(|error| ContainerError::Cgroup(self.id.clone(), error)),
            Err(_) => Err(ContainerError::Panicked(self.id.clone())),
        }
    }

    /// Key of a process in the table: the first one answers to the empty id and to the container's.
    // COMPAT(kata): `every_waiter_gets_the_status_before_and_after_the_end`. The Go shim says the container's id,
    // runtime-rs says nothing.
    fn key<'a>(&self, exec_id: &'a str) -> &'a str {
        if exec_id == self.id.as_str() { "" } else { exec_id }
    }
}

impl ContainerHandle {
    /// Makes a handle and starts its actor.
    pub(crate) fn spawn(id: ContainerId, agent: &Arc<Agent>) -> ContainerHandle {
        let (commands, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            id,
            state: Mutex::new(State::Creating),
            processes: Mutex::default(),
            cgroup: OnceLock::new(),
            spec: OnceLock::new(),
            unread: Arc::clone(&agent.unread),
        });
        tokio::spawn(actor::run(Arc::clone(&shared), Arc::clone(agent), queue));
        ContainerHandle { shared, commands }
    }

    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, ContainerError> {
        let (reply, answer) = oneshot::channel();
        let id = || self.shared.id.clone();
        self.commands.try_send(make(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ContainerError::Busy(id()),
            mpsc::error::TrySendError::Closed(_) => ContainerError::Removed(id()),
        })?;
        // The actor ends with a removal, and what waits behind it in the queue is dropped.
        answer.await.map_err(|_| match self.shared.state() {
            State::Removed => ContainerError::Removed(id()),
            _ => ContainerError::Panicked(id()),
        })?
    }

    /// Id of the container.
    pub(crate) fn id(&self) -> &ContainerId {
        &self.shared.id
    }

    /// Where the container is in its life.
    pub(crate) fn state(&self) -> State {
        self.shared.state()
    }

    /// Creates the container: its first process waits to be started.
    pub(crate) async fn create(&self, request: CreateRequest) -> Result<(), ContainerError> {
        self.ask(|reply| Command::Create(Box::new(request), reply)).await
    }

    /// Lets the first process execute.
    pub(crate) async fn start(&self) -> Result<(), ContainerError> {
        self.ask(Command::Start).await
    }

    /// Starts a further process.
    pub(crate) async fn exec(&self, request: ExecRequest) -> Result<(), ContainerError> {
        self.ask(|reply| Command::Exec(Box::new(request), reply)).await
    }

    /// Freezes all processes.
    pub(crate) async fn pause(&self) -> Result<(), ContainerError> {
        self.ask(Command::Pause).await
    }

    /// Lets frozen processes go on.
    pub(crate) async fn resume(&self) -> Result<(), ContainerError> {
        self.ask(Command::Resume).await
    }

    /// Changes limits while the container lives.
    pub(crate) async fn update(&self, resources: LinuxResources) -> Result<(), ContainerError> {
        self.ask(|reply| Command::Update(Box::new(resources), reply)).await
    }

    /// Kills and removes the container. `seconds` bounds the waiting, 0 does not; the work goes on in any case.
    pub(crate) async fn remove(&self, seconds: u32) -> Result<(), ContainerError> {
        // Before the queue, so that a command that waits for a process ends.
        if self.shared.state() != State::Creating {
            self.kill_all().await?;
        }
        let removal = self.ask(Command::Remove);
        if seconds == 0 {
            return removal.await;
        }
        let limit = std::time::Duration::from_secs(seconds.into());
        tokio::time::timeout(limit, removal).await.unwrap_or_else(|_| {
            Err(ContainerError::Timeout { operation: "removing", id: self.shared.id.clone(), seconds })
        })
    }

    /// Where its memory is counted, once it is.
    pub(crate) fn memory(&self) -> Option<Target> {
        Some(Target::new(self.shared.id.to_string(), self.shared.cgroup.get()?))
    }

    /// Finds a process by exec id.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>, ContainerError> {
        Ok(self.shared.processes().get(self.shared.key(exec_id))?)
    }

    /// Sends a signal to one process, or to all with SIGKILL to the empty id.
    pub(crate) async fn signal(&self, exec_id: &str, signal: u32) -> Result<(), ContainerError> {
        const SIGKILL: u32 = nix::libc::SIGKILL as u32;
        const SIGTERM: u32 = nix::libc::SIGTERM as u32;
        // COMPAT(kata): `kill_to_the_empty_id_ends_every_process`. It is how shims stop a container.
        if exec_id.is_empty() && signal == SIGKILL {
            return self.kill_all().await;
        }
        let process = self.process(exec_id)?;
        let is_init = self.shared.key(exec_id).is_empty();
        // COMPAT(kata): `sigterm_kills_a_first_process_that_is_deaf_to_it`. Else every stop would take its grace period.
        let signal = if is_init && signal == SIGTERM && process.is_deaf_to_term() { SIGKILL } else { signal };
        match process.signal(signal) {
            // COMPAT(kata): `a_signal_to_what_has_ended_is_no_error`. It is gone, as the signal wanted it.
            Err(ProcessError::Gone(_)) => Ok(()),
            other => Ok(other?),
        }
    }

    async fn kill_all(&self) -> Result<(), ContainerError> {
        if self.shared.cgroup.get().is_none() {
            return Ok(());
        }
        self.shared.on_cgroup("kill it", Cgroup::kill).await
    }

    /// Its name within the pod, where Kubernetes gave it one.
    fn name(&self) -> Option<String> {
        let annotations = self.shared.spec.get()?.annotations().as_ref()?;
        annotations.get(shared_mount::NAME_ANNOTATION).cloned()
    }

    /// The end of the message that it left for those who ask why it ended; empty where there is none.
    pub(crate) async fn termination_message(&self) -> Result<String, ContainerError> {
        let spec = self.shared.spec.get().map(Arc::clone).ok_or_else(|| ContainerError::State {
            id: self.shared.id.clone(),
            state: self.shared.state(),
            operation: "read its termination message",
        })?;
        let read = tokio::task::spawn_blocking(move || diagnostic::termination_message(&spec)).await;
        let read = read.map_err(|_| ContainerError::Panicked(self.shared.id.clone()))?;
        read.map_err(|source| ContainerError::Io {
            operation: "read the termination message of",
            path: self.shared.id.to_string(),
            source,
        })
    }

    /// Statistics of the container's cgroup.
    pub(crate) async fn stats(&self) -> Result<cgroup::Stats, ContainerError> {
        self.shared.on_cgroup("read statistics", Cgroup::stats).await
    }
}
