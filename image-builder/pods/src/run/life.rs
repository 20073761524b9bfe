//! The life of a pod in a booted guest: starts the containers in order, and ends them.
//!
//! Each container has its own supervisor ([`supervise`]). This module decides when a supervisor begins, and when it is told to
//! stop.

use std::sync::Arc;
use std::time::Duration;

use protobuf::MessageField;
use protocols::agent::{
    CreateContainerRequest, CreateSandboxRequest, DestroySandboxRequest, RemoveContainerRequest,
    StartContainerRequest,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::RunError;
use super::board::Board;
use super::container::{ANSWER, Blueprint, InGuest, SharedInput, open_log};
use super::files;
use super::network::Held;
use super::pod::{Pod, Role};
use super::ports::Ports;
use super::prepare::{Prepared, needs_companion};
use super::spec;
use super::state::{ContainerRecord, ProcessRecord};
use super::supervise::{Actions as _, Course, KILL_GRACE, LEAST_GRACE, State, keep};
use machine::vm::{AgentClient, Orders};

/// How long the guest may take to remove the containers and the sandbox.
pub(super) const REMOVE_GRACE: Duration = Duration::from_secs(10);

/// How long the end of a pod's containers takes at the most, without their grace period.
pub(super) fn end_within(pod: &Pod) -> Duration {
    let stages = if pod.init.iter().any(|container| container.role == Role::Sidecar) { 2 } else { 1 };
    stages * (2 * ANSWER + KILL_GRACE + LEAST_GRACE) + REMOVE_GRACE
}

/// A container with its supervisor. The supervisor ends with this.
struct Kept {
    name: String,
    role: Role,
    guest: Arc<InGuest>,
    state: watch::Receiver<State>,
    stop: watch::Sender<Option<Duration>>,
    task: Option<JoinHandle<Result<(), RunError>>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Kept {
    /// Waits for a state. Where the supervisor has failed, its error is the answer.
    async fn until(&mut self, is_so: impl FnMut(&State) -> bool) -> Result<State, RunError> {
        if let Ok(state) = self.state.wait_for(is_so).await {
            return Ok(state.clone());
        }
        match self.task.take() {
            Some(task) => match task.await {
                Ok(Err(error)) => Err(error),
                // The guest is gone, which the run notices by itself.
                _ => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    fn is_over(&self) -> bool {
        self.state.borrow().over
    }
}

/// The containers of a pod in a guest.
pub(super) struct Containers<'a> {
    pod: &'a Pod,
    prepared: &'a Prepared,
    board: &'a Board,
    client: &'a AgentClient,
    input: Option<SharedInput>,
    verbatim: bool,
    companion: Option<ContainerRecord>,
    /// Ports that are published once somebody answers there.
    held: Vec<Held>,
    kept: Vec<Kept>,
}

/// What came of the beginning of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// All containers have begun.
    Complete,
    /// An init container has failed, and the others do not start.
    Failed,
}

impl<'a> Containers<'a> {
    pub(super) fn new(
        pod: &'a Pod,
        prepared: &'a Prepared,
        board: &'a Board,
        client: &'a AgentClient,
        input: Option<SharedInput>,
        verbatim: bool,
    ) -> Self {
        Self {
            pod,
            prepared,
            board,
            client,
            input,
            verbatim,
            companion: None,
            held: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Makes the sandbox and starts everything, in the pod's order.
    pub(super) async fn begin(&mut self) -> Result<Beginning, RunError> {
        self.prepared.connection.configure(self.client).await?;
        self.create_sandbox().await?;
        files::copy(self.client, &self.prepared.files).await?;
        self.held = self.prepared.connection.take_held();
        if needs_companion(self.pod, !self.held.is_empty()) {
            self.companion = Some(self.start_companion().await?);
        }
        for blueprint in &self.prepared.blueprints {
            let role = blueprint.container.role;
            let kept = self.start(blueprint).await;
            // Known before it is waited for: whoever gives up then tells it to stop.
            let at = self.kept.len();
            self.kept.push(kept);
            let kept = &mut self.kept[at];
            let state = match role {
                Role::Init => kept.until(|state| state.over).await,
                Role::Sidecar => kept.until(|state| state.started || state.over).await,
                Role::Main => kept.until(|state| state.begun || state.over).await,
            }?;
            if role == Role::Init && state.code != Some(0) {
                self.board.note(format!(
                    "init container {} failed; the containers behind it do not start",
                    blueprint.container.name
                ));
                return Ok(Beginning::Failed);
            }
        }
        Ok(Beginning::Complete)
    }

    /// Has the published ports open, each when somebody answers there.
    pub(super) fn publish(&mut self, orders: &Orders) -> Option<Ports> {
        let held = std::mem::take(&mut self.held);
        let companion = self.companion.as_ref()?;
        Some(Ports::open(held, self.board, self.client, companion, &self.prepared.address, orders))
    }

    async fn create_sandbox(&self) -> Result<(), RunError> {
        let mut request = CreateSandboxRequest::new();
        request.sandbox_id = format!("sandbox-{}", self.pod.name());
        request.hostname = self.pod.hostname.clone();
        request.dns = self.prepared.dns.clone();
        request.storages = self.prepared.storages.clone();
        let created = self.client.agent.create_sandbox(AgentClient::call(), &request).await;
        created.map(drop).map_err(RunError::call("CreateSandbox", self.pod.name()))
    }

    async fn start_companion(&self) -> Result<ContainerRecord, RunError> {
        const WHAT: &str = "the pod's own container";
        let (id, spec, storages) = spec::companion(self.pod);
        let mut create = CreateContainerRequest::new();
        create.container_id.clone_from(&id);
        create.exec_id.clone_from(&id);
        create.storages = storages;
        create.OCI = MessageField::some(spec);
        let created = self.client.agent.create_container(AgentClient::call(), &create).await;
        created.map_err(RunError::call("CreateContainer", WHAT))?;
        let mut start = StartContainerRequest::new();
        start.container_id.clone_from(&id);
        let started = self.client.agent.start_container(AgentClient::call(), &start).await;
        started.map_err(RunError::call("StartContainer", WHAT))?;
        let process =
            ProcessRecord { cwd: "/".to_owned(), no_new_privileges: true, ..ProcessRecord::default() };
        Ok(ContainerRecord { name: WHAT.to_owned(), id, process, ..ContainerRecord::default() })
    }

    async fn start(&mut self, blueprint: &Blueprint) -> Kept {
        let container = &blueprint.container;
        // The first that wants it has the user's input.
        let input = if container.stdin { self.input.take() } else { None };
        let shows_raw = match &input {
            Some(input) => input.lock().await.raw,
            None => false,
        };
        let guest = Arc::new(InGuest {
            blueprint: blueprint.clone(),
            board: self.board.clone(),
            client: self.client.clone(),
            companion: self.companion.clone().map(|record| (record, self.prepared.address.clone())),
            input,
            shows_raw: shows_raw || self.verbatim,
            log: open_log(&container.name, self.board),
            life: std::sync::Mutex::default(),
        });
        let course = Course {
            restart: container.restart,
            probes: container.probes.clone(),
            lifecycle: container.lifecycle.clone(),
            grace: self.pod.grace,
            stop_signal: blueprint.stop_signal,
        };
        let (publish, state) = watch::channel(State::default());
        let (stop, ordered) = watch::channel(None);
        let kept = Arc::clone(&guest);
        let task = tokio::spawn(async move { keep(&*kept, &course, &publish, ordered).await });
        Kept { name: container.name.clone(), role: container.role, guest, state, stop, task: Some(task) }
    }

    /// Waits until the containers whose end is the pod's have ended for good.
    pub(super) async fn all_ended(&self) {
        for kept in self.kept.iter().filter(|kept| self.pod.main.contains(&kept.name)) {
            if kept.state.clone().wait_for(|state| state.over).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The name of a container that runs.
    pub(super) fn running(&self) -> Option<&str> {
        let mut running = self.kept.iter().filter(|kept| kept.state.borrow().running);
        running.next().map(|kept| kept.name.as_str())
    }

    /// Ends what still runs, and the sandbox. Each step has a bound of its own, so that a guest that has stopped answering
    /// holds up nothing: it is switched off by the caller.
    pub(super) async fn end(&self) {
        let deadline = Instant::now() + self.pod.grace;
        let main: Vec<&Kept> = self.kept.iter().filter(|kept| kept.role != Role::Sidecar).collect();
        let mut answers = stop_all(&main, self.pod.grace).await;
        // Sidecars serve the others to their end; those that came later may need those before.
        let mut sidecars: Vec<&Kept> = self.kept.iter().filter(|kept| kept.role == Role::Sidecar).collect();
        sidecars.reverse();
        let rest = deadline.saturating_duration_since(Instant::now()).max(LEAST_GRACE);
        if answers {
            answers = stop_all(&sidecars, rest).await;
        }
        if !answers || tokio::time::timeout(REMOVE_GRACE, self.remove()).await.is_err() {
            self.board.note("the guest does not answer; it is switched off");
        }
    }

    async fn remove(&self) {
        for kept in &self.kept {
            let has_begun = *kept.state.borrow() != State::default();
            if has_begun {
                kept.guest.remove().await;
            }
        }
        if let Some(companion) = &self.companion {
            let mut request = RemoveContainerRequest::new();
            request.container_id.clone_from(&companion.id);
            drop(self.client.agent.remove_container(AgentClient::call(), &request).await);
        }
        // The agent powers the guest off; its answer may get lost in that.
        drop(self.client.agent.destroy_sandbox(AgentClient::call(), &DestroySandboxRequest::new()).await);
    }
}

/// Tells containers to stop, and waits until they have. Says whether the guest answers.
async fn stop_all(containers: &[&Kept], grace: Duration) -> bool {
    for kept in containers {
        kept.stop.send_replace(Some(grace));
    }
    let bound = Instant::now() + grace + 2 * ANSWER + KILL_GRACE + LEAST_GRACE;
    for kept in containers {
        let mut state = kept.state.clone();
        if kept.is_over() {
            continue;
        }
        // A supervisor whose container never began, or that lost the guest, is done, too.
        let done = state.wait_for(|state| state.over || state.silent);
        match tokio::time::timeout_at(bound, done).await {
            Ok(Ok(state)) if state.silent => return false,
            Ok(_) => {}
            // It survived SIGKILL: the guest answers, and is switched off under it.
            Err(_) => return true,
        }
    }
    true
}
