//! What a container's actor and its handles share: identity, state, processes, cgroup.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use oci_spec::runtime::Spec;
use rustjail::cgroup::{self, Cgroup};

use super::error::ContainerError;
use super::id::ContainerId;
use super::state::State;
use crate::cancel::Cancel;
use crate::process::ProcessTable;
use crate::process::unread::Unread;

/// What actor and handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: ContainerId,
    pub(super) state: Mutex<State>,
    pub(super) processes: Mutex<ProcessTable>,
    /// Ends what waits, once the container is being removed.
    pub(super) cancel: Cancel,
    /// Set once the cgroup exists.
    pub(super) cgroup: OnceLock<Arc<Cgroup>>,
    /// Set once the container is created.
    pub(super) spec: OnceLock<Arc<Spec>>,
    /// What its processes write and nobody reads.
    pub(super) unread: Arc<Unread>,
    /// When its creation began.
    #[cfg(feature = "sandbox-api")]
    pub(super) began: std::time::Instant,
}

impl Shared {
    pub(super) fn new(id: ContainerId, cancel: Cancel, unread: Arc<Unread>) -> Shared {
        Shared {
            id,
            cancel,
            state: Mutex::new(State::Creating),
            processes: Mutex::default(),
            cgroup: OnceLock::new(),
            spec: OnceLock::new(),
            unread,
            #[cfg(feature = "sandbox-api")]
            began: std::time::Instant::now(),
        }
    }

    pub(super) fn processes(&self) -> std::sync::MutexGuard<'_, ProcessTable> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> State {
        let state = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The exit of the first process is published before anybody could note it here.
        if matches!(state, State::Running | State::Paused)
            && self.processes().get("").is_ok_and(|init| init.exited().is_some())
        {
            return State::Stopped;
        }
        state
    }

    pub(super) fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(super) fn expect(&self, allowed: &[State], operation: &'static str) -> Result<(), ContainerError> {
        let state = self.state();
        if allowed.contains(&state) {
            Ok(())
        } else {
            Err(ContainerError::State { id: self.id.clone(), state, operation })
        }
    }

    /// The cgroup, once it exists.
    pub(super) fn cgroup(&self, operation: &'static str) -> Result<Arc<Cgroup>, ContainerError> {
        self.cgroup.get().map(Arc::clone).ok_or_else(|| ContainerError::State {
            id: self.id.clone(),
            state: self.state(),
            operation,
        })
    }

    /// Works on the cgroup on a thread, since its files can block.
    pub(super) async fn on_cgroup<T: Send + 'static>(
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
    pub(super) fn key<'a>(&self, exec_id: &'a str) -> &'a str {
        if exec_id == self.id.as_str() { "" } else { exec_id }
    }
}
