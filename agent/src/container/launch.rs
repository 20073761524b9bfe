//! What creating a container and executing in it have in common: a cgroup to be born in, the process itself, its
//! streams, its user by name.
//!
//! [`Jailer`] is the seam to the kernel: [`Jails`] makes real cgroups and processes, the tests of the actor have another.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use oci_spec::runtime::{self, LinuxResources, Spec};
use rustjail::cgroup::{self, Cgroup, CgroupPath, Warning};
use rustjail::plan::JailPlan;
use rustjail::start::{StartError, Starting};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::error::ContainerError;
use super::id::ContainerId;
use super::shared::Shared;
use super::user::{Tables, UserError, UserNames};
use crate::error::chain;
use crate::process::Process;
use crate::process::launch::{self, Launch, LaunchError, Launched, Launcher, Listening};
use crate::process::passfd::Claimed;
use crate::process::reaper::Cause;
use crate::process::stdio::{self, ChildStreams, Ends, Pipes, Stdio};
use crate::reserve::{self, Reserve};

/// How long a cgroup may take to become empty.
pub(super) const REMOVE_DEADLINE: Duration = Duration::from_secs(15);

/// Makes the cgroups and the processes of containers.
pub(crate) trait Jailer: Send + Sync {
    /// Makes a cgroup with its limits and its filter of devices, and gives it with warnings about limits that were changed.
    /// Blocks. A failure leaves no cgroup behind.
    ///
    /// # Errors
    /// What the kernel said, with the file and the value.
    fn cgroup(
        &self,
        path: &CgroupPath,
        resources: Option<&LinuxResources>,
    ) -> Result<(Cgroup, Vec<Warning>), cgroup::Error>;

    /// Makes a process, and waits until its jail stands, or its root where its plan stops for hooks.
    ///
    /// # Errors
    /// [`LaunchError`], and then there is no process.
    fn launch(&self, launch: Launch) -> BoxFuture<'static, Result<Newborn, LaunchError>>;
}

/// The handshake with a process that does not execute yet. Dropped, it ends the process.
pub(crate) trait Handshake: Send + Sync {
    /// Goes on with a process whose plan stops for hooks, until its jail stands; gives its terminal. Blocks.
    ///
    /// # Errors
    /// [`StartError`] with the step that failed.
    fn enter(&self) -> Result<Option<OwnedFd>, StartError>;

    /// Tells a first process to execute its program.
    ///
    /// # Errors
    /// [`StartError::Killed`] when it has ended in the meantime.
    fn release(&self) -> Result<(), StartError>;

    /// Watches a released process until it executes, and logs the reason if it cannot.
    fn watch(
        self: Box<Self>,
        container: String,
        listening: Option<Listening>,
    ) -> JoinHandle<Result<(), StartError>>;
}

/// A process that does not execute yet.
pub(crate) struct Newborn {
    /// Process id in the guest.
    pub(crate) pid: i32,
    /// A descriptor of the process.
    pub(crate) pidfd: OwnedFd,
    /// Its process id in its own namespace, if that was wanted and can be read.
    pub(crate) inner_pid: Option<i32>,
    /// Its end.
    pub(crate) exit: watch::Receiver<Option<i32>>,
    /// Why it ended.
    pub(crate) cause: Cause,
    /// The terminal's master end, where the plan has a terminal.
    pub(crate) terminal: Option<OwnedFd>,
    /// See [`Handshake`].
    pub(crate) handshake: Box<dyn Handshake>,
}

impl Newborn {
    /// Goes on with a process whose plan stops for hooks.
    pub(super) async fn enter(self) -> Result<Newborn, LaunchError> {
        let entered = tokio::task::spawn_blocking(move || {
            let terminal = self.handshake.enter()?;
            Ok(Newborn { terminal, ..self })
        });
        entered.await.map_err(|_| LaunchError::Panicked)?
    }
}

/// The real [`Jailer`]: control groups of the kernel, processes of the forker.
pub(crate) struct Jails {
    launcher: Arc<Launcher>,
    /// Mount point of cgroup2.
    cgroups: PathBuf,
    reserve: Arc<Reserve>,
}

impl Jails {
    /// Processes come from `launcher`, cgroups are made below the pod's in `cgroups`, the cgroup2 mount.
    pub(crate) fn new(launcher: Arc<Launcher>, cgroups: PathBuf, reserve: Arc<Reserve>) -> Jails {
        Jails { launcher, cgroups, reserve }
    }
}

impl Jailer for Jails {
    fn cgroup(
        &self,
        path: &CgroupPath,
        resources: Option<&LinuxResources>,
    ) -> Result<(Cgroup, Vec<Warning>), cgroup::Error> {
        let cgroup = Cgroup::create(&self.cgroups, &path.below(reserve::POD)?)?;
        let limit = || {
            // Where the pod has no limits, as on a kernel without them, a container has those that it asks for.
            let warnings = match (self.reserve.now(), resources) {
                (Some(allocatable), asked) => Some(cgroup.apply(&allocatable.for_container(asked))?),
                (None, asked) => asked.map(|resources| cgroup.apply(resources)).transpose()?,
            };
            let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
            cgroup.apply_devices(rules)?;
            Ok(warnings.unwrap_or_default())
        };
        match limit() {
            Ok(warnings) => Ok((cgroup, warnings)),
            Err(error) => {
                if let Err(error) = cgroup.remove(REMOVE_DEADLINE) {
                    tracing::error!(error = %chain(&error), "a cgroup without its limits is not removed");
                }
                Err(error)
            }
        }
    }

    fn launch(&self, launch: Launch) -> BoxFuture<'static, Result<Newborn, LaunchError>> {
        let launcher = Arc::clone(&self.launcher);
        let launched = async move {
            let Launched { pid, pidfd, inner_pid, exit, cause, terminal, starting } =
                launcher.launch(launch).await?;
            Ok(Newborn { pid, pidfd, inner_pid, exit, cause, terminal, handshake: Box::new(starting) })
        };
        launched.boxed()
    }
}

impl Handshake for Starting {
    fn enter(&self) -> Result<Option<OwnedFd>, StartError> {
        Starting::enter(self)
    }

    fn release(&self) -> Result<(), StartError> {
        Starting::release(self)
    }

    fn watch(
        self: Box<Self>,
        container: String,
        listening: Option<Listening>,
    ) -> JoinHandle<Result<(), StartError>> {
        launch::watch_execution(*self, container, listening)
    }
}

/// Gives a process the user that is asked for by name, looked up in the container's root.
pub(super) async fn name_user(
    shared: &Shared,
    spec: &Spec,
    process: &mut runtime::Process,
    names: UserNames,
) -> Result<(), ContainerError> {
    let root = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
    let mut user = process.user().clone();
    let looked_up = tokio::task::spawn_blocking(move || {
        Tables::read(&root)?.resolve(&names, &mut user)?;
        Ok::<_, UserError>(user)
    });
    let user = looked_up.await.map_err(|_| ContainerError::Panicked(shared.id.clone()))?;
    process.set_user(user.map_err(|error| ContainerError::User(shared.id.clone(), error))?);
    Ok(())
}

/// A descriptor of the cgroup's directory that the launch can own.
pub(super) fn directory_of(cgroup: &Cgroup, id: &ContainerId) -> Result<OwnedFd, ContainerError> {
    cgroup.dir().try_clone_to_owned().map_err(|source| ContainerError::Io {
        operation: "open cgroup of",
        path: id.to_string(),
        source,
    })
}

/// Pipes for a process without a terminal; nothing for one that has its own.
/// `size` is their capacity in bytes, 0 the kernel's default.
pub(super) fn streams(plan: &JailPlan, size: usize) -> Result<(Pipes, ChildStreams), ContainerError> {
    match plan.terminal {
        Some(_) => Ok(Default::default()),
        None => Ok(stdio::pipes(size)?),
    }
}

/// Starts to move the bytes of a process that was born; gives it, and its handshake. Its streams are given up after its own end,
/// or after another one.
pub(super) fn process(
    exec_id: &str,
    shared: &Shared,
    newborn: Newborn,
    pipes: Pipes,
    mut claimed: Claimed,
    streams_end: Option<&watch::Receiver<Option<i32>>>,
) -> Result<(Process, Box<dyn Handshake>), ContainerError> {
    let Newborn { pid, pidfd, exit, terminal, handshake, .. } = newborn;
    claimed.is_init = exec_id.is_empty();
    let ends = terminal.map_or(Ends::Pipes(pipes), Ends::Terminal);
    let stdio = Stdio::start(ends, claimed, streams_end.unwrap_or(&exit), &shared.unread).inspect_err(|_| {
        // Nobody could ever read it, or learn of its end: it must not run on.
        if let Err(error) = rustjail::pidfd_signal(pidfd.as_fd(), nix::libc::SIGKILL) {
            tracing::error!(container_id = %shared.id, pid, %error, "a process without streams is not killed");
        }
    })?;
    let name = if exec_id.is_empty() { shared.id.as_str() } else { exec_id };
    Ok((Process::new(name.to_owned(), pid, pidfd, exit, stdio), handshake))
}
