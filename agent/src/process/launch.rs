//! Makes processes through the forker, and replaces a forker that died.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustjail::plan::{JailPlan, Listener, NamespaceKind};
use rustjail::start::{self, Descriptors, Executed, Forker, StartError, Starting};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::reaper::{Cause, Reaper};
use super::stdio::ChildStreams;
use crate::error::{ErrorKind, Kind, chain, kind_of_errno};
use crate::patience::Place;

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// See [`StartError`].
    #[error(transparent)]
    Start(#[from] StartError),
    /// The work panicked.
    #[error("starting a process panicked")]
    Panicked,
}

impl Kind for LaunchError {
    fn kind(&self) -> ErrorKind {
        match self {
            LaunchError::Start(StartError::Failed(failure)) if failure.invalid => ErrorKind::Invalid,
            LaunchError::Start(StartError::Failed(failure)) => kind_of_errno(failure.errno),
            LaunchError::Start(StartError::Killed | StartError::OutOfMemory(_)) => ErrorKind::Exhausted,
            LaunchError::Start(StartError::Held(_) | StartError::Slow(_)) => ErrorKind::Timeout,
            LaunchError::Start(StartError::Io { source, .. }) => kind_of_errno(source.raw_os_error()),
            LaunchError::Start(StartError::ForkerGone(_)) | LaunchError::Panicked => ErrorKind::Internal,
        }
    }
}

/// What a process is started with.
pub(crate) struct Launch {
    /// Its plan.
    pub(crate) plan: JailPlan,
    /// Directory of its cgroup.
    pub(crate) cgroup: OwnedFd,
    /// Namespaces it joins besides those that the plan names by path.
    pub(crate) namespaces: Vec<(NamespaceKind, Arc<OwnedFd>)>,
    /// The child's ends of its streams.
    pub(crate) streams: ChildStreams,
    /// Whether its process id in its own namespace is wanted. That is a file to read, and few want it.
    pub(crate) wants_inner_pid: bool,
    /// A place for the thread, where its jail may keep it waiting and others must not.
    #[expect(dead_code, reason = "it is there to be dropped")]
    pub(crate) place: Option<Place>,
}

/// A process whose jail stands, or whose root is built where its plan stops for hooks.
pub(crate) struct Launched {
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
    /// The handshake: release it to let a first process execute.
    pub(crate) starting: Starting,
}

/// Who answers for the system calls that a process's filter asks about, and what it is told of the container.
#[derive(Debug)]
pub(crate) struct Listening {
    /// Where it listens.
    pub(crate) listener: Listener,
    /// The container's state (runtime-spec, "State").
    pub(crate) state: serde_json::Value,
}

/// Owns the forker.
#[derive(Debug)]
pub(crate) struct Launcher {
    program: PathBuf,
    forker: Mutex<Option<Forker>>,
    reaper: Arc<Reaper>,
}

impl Launcher {
    /// Starts the forker. `program` is the executable that becomes one, usually `/proc/self/exe`.
    pub(crate) fn new(program: &Path, reaper: Arc<Reaper>) -> Result<Launcher, StartError> {
        let forker = Forker::spawn(program)?;
        Ok(Launcher { program: program.to_owned(), forker: Mutex::new(Some(forker)), reaper })
    }

    /// Starts a process and waits until its jail stands. Runs on a thread of its own, to the end even if the caller
    /// goes away.
    pub(crate) async fn launch(self: &Arc<Self>, launch: Launch) -> Result<Launched, LaunchError> {
        let launcher = Arc::clone(self);
        tokio::task::spawn_blocking(move || launcher.launch_blocking(&launch))
            .await
            .map_err(|_| LaunchError::Panicked)?
    }

    fn launch_blocking(&self, launch: &Launch) -> Result<Launched, LaunchError> {
        let joined = start::open_namespaces(&launch.plan)?;
        let mut namespaces: Vec<_> = joined.iter().map(|(kind, fd)| (*kind, fd.as_fd())).collect();
        namespaces.extend(launch.namespaces.iter().map(|(kind, fd)| (*kind, fd.as_fd())));
        let descriptors =
            Descriptors { cgroup: Some(launch.cgroup.as_fd()), streams: launch.streams.borrow(), namespaces };
        let starting = self.clone_process(&launch.plan, &descriptors)?;
        let pidfd = starting
            .pidfd()
            .try_clone_to_owned()
            .map_err(|source| StartError::Io { operation: "keep a pidfd".into(), source })?;
        let cause = Cause::default();
        let exit = self.reaper.register_with(starting.pid(), pidfd.as_fd(), cause.clone());
        // While it waits for its jail it cannot end by itself.
        let inner_pid = launch.wants_inner_pid.then(|| inner_pid(starting.pid())).flatten();
        let terminal = if launch.plan.stop_for_hooks {
            starting.build()?;
            None
        } else {
            starting.prepare()?
        };
        Ok(Launched { pid: starting.pid(), pidfd, inner_pid, exit, cause, terminal, starting })
    }

    fn clone_process(&self, plan: &JailPlan, descriptors: &Descriptors<'_>) -> Result<Starting, StartError> {
        let mut slot = self.forker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(forker) = slot.as_ref() {
            match forker.start(plan, descriptors) {
                Err(StartError::ForkerGone(error)) => {
                    tracing::error!(%error, pid = forker.pid(), "the forker is gone, starting another");
                }
                other => return other,
            }
        }
        // Dropped first: a forker that hangs is told to end by the end of its socket.
        *slot = None;
        let forker = Forker::spawn(&self.program)?;
        slot.insert(forker).start(plan, descriptors)
    }
}

/// A process's id in the innermost namespace that it is in (proc_pid_status(5)).
fn inner_pid(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_whitespace().next_back()?.parse().ok()
}

/// Watches a released process until it executes, and logs the reason if it cannot. Its result is that reason. No thread
/// waits meanwhile: a container can stop its process here for as long as it likes, and as many as it likes.
pub(crate) fn watch_execution(
    starting: Starting,
    container: String,
    listening: Option<Listening>,
) -> JoinHandle<Result<(), StartError>> {
    tokio::spawn(async move {
        let pid = starting.pid();
        match follow(starting, listening).await {
            Ok(Executed::Running) => Ok(()),
            Ok(Executed::Failed(failure)) => {
                tracing::error!(container_id = %container, pid, error = %failure, "a program was not executed");
                Err(StartError::Failed(failure))
            }
            Err(error) => {
                tracing::warn!(container_id = %container, pid, error = %chain(&error), "nothing heard of a program");
                Err(error)
            }
        }
    })
}

async fn follow(starting: Starting, listening: Option<Listening>) -> Result<Executed, StartError> {
    let failed = |source| StartError::Io { operation: "wait for the program".into(), source };
    let handshake =
        std::os::unix::net::UnixDatagram::from(starting.as_fd().try_clone_to_owned().map_err(failed)?);
    handshake.set_nonblocking(true).map_err(failed)?;
    // It is only asked whether there is something to read.
    let handshake = UnixDatagram::from_std(handshake).map_err(failed)?;
    let (starting, listening) = (Arc::new(starting), Arc::new(listening));
    loop {
        handshake.readable().await.map_err(failed)?;
        let asked = handshake.try_io(Interest::READABLE, || can_be_read(&handshake));
        if asked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
            continue;
        }
        // Handing a listener over may wait for whoever is to have it.
        let (heard, told) = (Arc::clone(&starting), Arc::clone(&listening));
        let next = tokio::task::spawn_blocking(move || {
            heard.next(|fd| match told.as_ref() {
                Some(Listening { listener, state }) => start::hand_over(listener, state, heard.pid(), fd),
                None => Err(std::io::ErrorKind::NotConnected.into()),
            })
        });
        if let Some(executed) = next.await.map_err(|error| failed(error.into()))?? {
            return Ok(executed);
        }
    }
}

/// # Errors
/// `WouldBlock` when a reader would wait.
fn can_be_read(fd: impl AsFd) -> std::io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)) {
        Ok(0) => Err(std::io::ErrorKind::WouldBlock.into()),
        // One that cannot be asked is read, and tells what is wrong.
        _ => Ok(()),
    }
}
