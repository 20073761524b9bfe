//! Starts a further process in a container.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use oci_spec::runtime;
use rustjail::plan::{self, ExecOptions};

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
use crate::process::ProcessError;
use crate::process::launch::{Launch, Listening};
use crate::process::passfd::{Claimed, Ports};

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
}

/// Starts the process; it runs when this returns. A failure leaves its id free.
pub(super) async fn exec(
    shared: &Arc<Shared>,
    tools: &Arc<Tools>,
    body: &Body,
    request: ExecRequest,
) -> Result<(), ContainerError> {
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
    start(shared, tools, created, &body.hooks, &request, claimed).await?;
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
) -> Result<(), ContainerError> {
    let mut described = request.process.clone();
    label::drop_unknown(&shared.id, &mut described, tools.facts.modules);
    rewrite_environment(&mut described, &created.addresses);
    if !request.user.is_empty() {
        name_user(shared, &created.spec, &mut described, request.user.clone()).await?;
    }
    let plan = plan::exec_with(&described, &ExecOptions { spec: &created.spec }, created.seccomp.as_ref())
        .map_err(|error| ContainerError::Plan(shared.id.clone(), error))?;
    let (pipes, streams) = streams(&plan, tools.settings.pipe_size)?;
    let listener = plan.seccomp.as_ref().and_then(|seccomp| seccomp.listener.clone());
    let launch =
        Launch { plan, cgroup: birthplace(shared)?, namespaces: created.namespaces.clone(), streams };
    let newborn = tools
        .jailer
        .launch(launch)
        .await
        .map_err(|error| ContainerError::Launch(shared.id.clone(), error))?;
    let exec_id = &request.exec_id;
    let (process, handshake) = process(exec_id, shared, newborn, pipes, claimed)?;
    shared.processes().insert(exec_id, Arc::new(process));
    let init = shared.processes().get("").map(|init| init.pid()).unwrap_or_default();
    let state = hooks.state(&shared.state().to_string(), init);
    let listening = listener.map(|listener| Listening { listener, state });
    drop(handshake.watch(shared.id.to_string(), listening));
    Ok(())
}

/// The cgroup of the first process, which may sit in one that the container made itself (as systemd does); the
/// container's own where the first process is gone.
fn birthplace(shared: &Shared) -> Result<OwnedFd, ContainerError> {
    let cgroup = shared.cgroup("execute in it")?;
    let init = shared.processes().get("")?;
    let beside = std::fs::read_to_string(format!("/proc/{}/cgroup", init.pid()))
        .ok()
        .and_then(|table| cgroup.dir_beside(&table).ok());
    match beside {
        Some(directory) => Ok(directory),
        None => directory_of(&cgroup, &shared.id),
    }
}
