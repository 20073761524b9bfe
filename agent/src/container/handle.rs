//! What everybody but its actor has of a container.

use std::sync::Arc;

use oci_spec::runtime::LinuxResources;
#[cfg(feature = "sandbox-api")]
use oci_spec::runtime::Spec;
use rustjail::cgroup::{self, Cgroup};
use tokio::sync::{mpsc, oneshot};

use super::create::CreateRequest;
use super::error::ContainerError;
use super::exec::ExecRequest;
use super::id::ContainerId;
use super::job::{Job, Reply};
use super::shared::Shared;
use super::state::State;
use super::tools::Tools;
use super::view::PodView;
use super::{actor, diagnostic, shared_mount};
use crate::cancel::Cancel;
use crate::guest::memory::Target;
use crate::process::{Process, ProcessError};

/// Jobs that may wait in a container's queue.
const QUEUE: usize = 64;

/// A container, for everybody but its actor. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ContainerHandle {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

impl ContainerHandle {
    /// Makes a handle and starts its actor. `cancel` ends what the actor waits for; it is the container's own, and a
    /// removal cancels it. The actor calls `forget` when the container is no more, before whoever waits
    /// for that hears of it.
    pub(crate) fn spawn(
        id: ContainerId,
        tools: &Arc<Tools>,
        cancel: Cancel,
        forget: impl FnOnce() + Send + 'static,
    ) -> ContainerHandle {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared::new(id, cancel, Arc::clone(&tools.unread)));
        tokio::spawn(actor::run(Arc::clone(&shared), Arc::clone(tools), queue, Box::new(forget)));
        ContainerHandle { shared, jobs }
    }

    async fn ask(&self, make: impl FnOnce(Reply) -> Job) -> Result<(), ContainerError> {
        let (reply, answer) = oneshot::channel();
        let id = || self.shared.id.clone();
        self.jobs.try_send(make(reply)).map_err(|error| match error {
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
    pub(crate) async fn create(
        &self,
        request: Box<CreateRequest>,
        pod: PodView,
    ) -> Result<(), ContainerError> {
        self.ask(|reply| Job::Create(request, pod, reply)).await
    }

    /// Lets the first process execute.
    pub(crate) async fn start(&self) -> Result<(), ContainerError> {
        self.ask(Job::Start).await
    }

    /// Starts a further process.
    pub(crate) async fn exec(&self, request: Box<ExecRequest>) -> Result<(), ContainerError> {
        self.ask(|reply| Job::Exec(request, reply)).await
    }

    /// Freezes all processes.
    pub(crate) async fn pause(&self) -> Result<(), ContainerError> {
        self.ask(Job::Pause).await
    }

    /// Lets frozen processes go on.
    pub(crate) async fn resume(&self) -> Result<(), ContainerError> {
        self.ask(Job::Resume).await
    }

    /// Changes limits while the container lives.
    pub(crate) async fn update(&self, resources: LinuxResources) -> Result<(), ContainerError> {
        self.ask(|reply| Job::Update(Box::new(resources), reply)).await
    }

    /// Kills and removes the container. What waits for it is given up first: a create for a device, a CDI spec, a storage or
    /// a hook, and all jobs in its queue. `seconds` bounds the waiting further; 0 does not. The work goes on in any case.
    ///
    /// Ends within 45 s, and what the deadlines of the container's own poststop hooks add.
    pub(crate) async fn remove(&self, seconds: u32) -> Result<(), ContainerError> {
        let is_creating = self.shared.state() == State::Creating;
        self.shared.cancel.cancel();
        // Before the queue, so that a job that waits for a process ends.
        if !is_creating {
            self.kill_all().await?;
        }
        let removal = async {
            match self.ask(Job::Remove).await {
                // The create that was given up has taken all of it back.
                Err(ContainerError::Removed(_)) if is_creating => Ok(()),
                removed => removed,
            }
        };
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

    /// The spec it was created by, once it is.
    #[cfg(feature = "sandbox-api")]
    pub(crate) fn spec(&self) -> Option<Arc<Spec>> {
        self.shared.spec.get().map(Arc::clone)
    }

    /// Frees the id of a process that was asked for with [`super::Apart`]. Nobody asks for its end by that id.
    #[cfg(feature = "sandbox-api")]
    pub(crate) fn forget(&self, exec_id: &str) {
        self.shared.processes().release(exec_id);
    }

    /// When its creation began: tells the older of two.
    #[cfg(feature = "sandbox-api")]
    pub(crate) fn began(&self) -> std::time::Instant {
        self.shared.began
    }

    /// Its root as its first process sees it, with all that is mounted there. Blocks.
    ///
    /// # Errors
    /// Where its first process has ended.
    #[cfg(feature = "sandbox-api")]
    pub(crate) fn root(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        use rustix::fs::{CWD, Mode, OFlags};
        let gone = || std::io::Error::new(std::io::ErrorKind::NotFound, "its first process has ended");
        let init = self.process("").map_err(|_| gone())?;
        let path = format!("/proc/{}/root", init.pid());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|_| gone())?;
        // Alive now, so the number was its own when the root was opened.
        init.signal(0).map_err(|_| gone())?;
        Ok(root)
    }

    /// Its name within the pod, where Kubernetes gave it one.
    pub(crate) fn name(&self) -> Option<String> {
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
