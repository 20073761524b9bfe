//! The parent's side of starting a process.
//!
//! A [`Forker`] is a single-threaded process that clones the children, so that the threaded agent never forks. The
//! child is the agent's own all the same (`CLONE_PARENT`): the agent's reaper gets its status. [`Starting`] follows it
//! up to `execve`; `message` draws the exchange. All calls here block, for milliseconds; async callers use a thread.

mod listener;
pub(crate) mod message;
pub(crate) mod standstill;

use std::borrow::Cow;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::plan::{JailPlan, NamespaceKind};
pub use listener::hand_over;
pub use message::Failure;
use message::{Order, Reply, Report, Request, Role};
use standstill::{Awaited, Birthplace, Patience};
pub use standstill::{Hold, Shortage};

/// First argument of the agent's executable that makes it a forker ([`crate::child::forker`]).
pub const FORKER_ARGUMENT: &str = "forker";

/// How long a child may take to build its jail. Mounts on slow devices are made by the agent before, so the long time bounds
/// only a kernel that hangs; the short one is for a child that its container holds.
const PATIENCE: Patience = Patience { held: Duration::from_secs(3), all: Duration::from_secs(60) };
/// How long the forker may take for a clone.
const FORKER_DEADLINE: Duration = Duration::from_secs(20);

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The forker does not answer; a new one may.
    #[error("the forker is gone")]
    ForkerGone(#[source] io::Error),
    /// The child could not be made, or could not build its jail.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The child ended without a word: killed from outside.
    #[error("the process was killed before it could report")]
    Killed,
    /// The child ended for want of memory.
    #[error("{0}")]
    OutOfMemory(Shortage),
    /// The container keeps the child from going on.
    #[error("the process does not get ready: {0}")]
    Held(Hold),
    /// The child takes too long, and nobody holds it.
    #[error("the process is not ready after {} s", .0.as_secs())]
    Slow(Duration),
    /// Something on the parent's side.
    #[error("{operation}")]
    Io {
        /// What was being done.
        operation: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl StartError {
    fn io(operation: impl Into<String>, source: impl Into<io::Error>) -> StartError {
        StartError::Io { operation: operation.into(), source: source.into() }
    }
}

/// What a new process gets besides its plan.
#[derive(Debug, Default)]
pub struct Descriptors<'a> {
    /// Directory of the cgroup it is born in; none stays in the agent's.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Standard streams; one that is absent becomes `/dev/null`, unless the plan has a terminal.
    pub streams: [Option<BorrowedFd<'a>>; 3],
    /// Namespaces it joins.
    pub namespaces: Vec<(NamespaceKind, BorrowedFd<'a>)>,
}

/// Opens the namespaces that a plan joins by path.
///
/// # Errors
/// [`StartError::Failed`] with `invalid` set, naming the path, when one cannot be opened.
pub fn open_namespaces(plan: &JailPlan) -> Result<Vec<(NamespaceKind, OwnedFd)>, StartError> {
    plan.namespaces
        .join
        .iter()
        .map(|(kind, path)| {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map(|fd| (*kind, fd))
                .map_err(|errno| {
                    StartError::Failed(Failure {
                        step: format!("open {} namespace {}", kind.proc_name(), path.display()),
                        reason: io::Error::from(errno).to_string(),
                        errno: Some(errno.raw_os_error()),
                        invalid: true,
                    })
                })
        })
        .collect()
}

/// Both ends of a packet socket: ours, which gives up a wait at the deadline, and the other process's.
fn channel(purpose: &'static str, deadline: Duration) -> Result<(OwnedFd, OwnedFd), StartError> {
    let failed = |errno: rustix::io::Errno| StartError::io(purpose, errno);
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(failed)?;
    set_socket_timeout(&ours, Timeout::Recv, Some(deadline)).map_err(failed)?;
    Ok((ours, theirs))
}

/// A running forker.
#[derive(Debug)]
pub struct Forker {
    socket: OwnedFd,
    pid: u32,
}

impl Forker {
    /// Starts a forker from the executable at `program`, usually `/proc/self/exe`.
    ///
    /// The forker ends when this value is dropped. It is a child of the caller, whose reaper collects it.
    ///
    /// # Errors
    /// [`StartError::Io`] when the executable cannot be run.
    pub fn spawn(program: &Path) -> Result<Forker, StartError> {
        let (ours, theirs) = channel("make the forker's socket", FORKER_DEADLINE)?;
        // No pre_exec and no ids: std then uses posix_spawn, which is safe in a threaded process.
        let child = Command::new(program)
            .arg(FORKER_ARGUMENT)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(|error| StartError::io(format!("start the forker {}", program.display()), error))?;
        Ok(Forker { socket: ours, pid: child.id() })
    }

    /// Process id of the forker.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Makes a process that waits to be told to go on ([`Starting::prepare`]).
    ///
    /// # Errors
    /// [`StartError::ForkerGone`] when the forker died: start another and ask it. [`StartError::Failed`] when the
    /// kernel refused the process.
    pub fn start(&self, plan: &JailPlan, descriptors: &Descriptors<'_>) -> Result<Starting, StartError> {
        let (ours, theirs) = channel("make a handshake socket", PATIENCE.all)?;
        let birthplace = Birthplace::new(descriptors.cgroup);
        let mut passed = vec![(Role::Handshake, theirs.as_fd())];
        passed.extend(descriptors.cgroup.map(|fd| (Role::Cgroup, fd)));
        for (number, stream) in (0u8..).zip(&descriptors.streams) {
            passed.extend(stream.map(|fd| (Role::Stream(number), fd)));
        }
        passed.extend(descriptors.namespaces.iter().map(|(kind, fd)| (Role::Namespace(*kind), *fd)));
        let request = Request {
            plan: Cow::Borrowed(plan),
            descriptors: passed.iter().map(|(role, _)| *role).collect(),
        };
        let text = memfd(&request).map_err(|error| StartError::io("store a plan", error))?;
        let list: Vec<BorrowedFd<'_>> =
            std::iter::once(text.as_fd()).chain(passed.iter().map(|(_, fd)| *fd)).collect();
        message::send(&self.socket, &(), &list).map_err(StartError::ForkerGone)?;
        let (reply, mut carried) =
            message::receive::<Reply>(&self.socket)
                .map_err(StartError::ForkerGone)?
                .ok_or_else(|| StartError::ForkerGone(io::ErrorKind::UnexpectedEof.into()))?;
        match (reply, carried.pop()) {
            (Reply::Started { pid }, Some(pidfd)) => Ok(Starting { pid, pidfd, handshake: ours, birthplace }),
            (Reply::Started { .. }, None) => {
                Err(StartError::ForkerGone(io::Error::other("the forker sent no pidfd")))
            }
            (Reply::Failed(failure), _) => Err(StartError::Failed(failure)),
        }
    }
}

fn memfd(request: &Request<'_>) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(rustix::fs::memfd_create("plan", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(request)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// A process on its way from clone to `execve`. Dropping it makes the process exit, if it has not executed yet.
#[derive(Debug)]
pub struct Starting {
    pid: i32,
    pidfd: OwnedFd,
    handshake: OwnedFd,
    birthplace: Birthplace,
}

impl AsFd for Starting {
    /// The handshake: ready to be read when [`Starting::next`] does not wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handshake.as_fd()
    }
}

/// What happened to the program.
#[derive(Debug)]
pub enum Executed {
    /// The program runs.
    Running,
    /// `execve` failed; the process exits with 126 or 127.
    Failed(Failure),
}

impl Starting {
    /// Process id in the caller's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A descriptor of the process.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Lets the child build its jail, and waits until it stands. Register the pid with the reaper before: from here on
    /// the child can end. Returns the terminal's master end where the plan has a terminal.
    ///
    /// # Errors
    /// [`StartError::Failed`] with the step that failed, [`StartError::Killed`] when the child ended without a word.
    pub fn prepare(&self) -> Result<Option<OwnedFd>, StartError> {
        self.order(&Order::Continue)?;
        self.ready()
    }

    /// As [`Starting::prepare`] for a plan that stops for hooks: lets the child build its root, and waits until it could enter
    /// it.
    ///
    /// # Errors
    /// As for [`Starting::prepare`].
    pub fn build(&self) -> Result<(), StartError> {
        self.order(&Order::Continue)?;
        match self.hear()? {
            (Report::Built, _) => Ok(()),
            _ => Err(out_of_turn()),
        }
    }

    /// Goes on after [`Starting::build`], up to what [`Starting::prepare`] promises.
    ///
    /// # Errors
    /// As for [`Starting::prepare`].
    pub fn enter(&self) -> Result<Option<OwnedFd>, StartError> {
        self.order(&Order::Enter)?;
        self.ready()
    }

    fn ready(&self) -> Result<Option<OwnedFd>, StartError> {
        match self.hear()? {
            (Report::Ready, mut carried) => Ok(carried.pop()),
            _ => Err(out_of_turn()),
        }
    }

    /// Waits for the next report of a child that has yet to be ready. One that does not come so far is killed: what holds it
    /// would keep it, and what it has, for ever.
    fn hear(&self) -> Result<(Report, Vec<OwnedFd>), StartError> {
        let failed = |error: io::Error| StartError::io("wait for the process to be ready", error);
        let waited = self.birthplace.wait(&self.handshake, self.pid, PATIENCE).map_err(failed);
        let heard = waited.and_then(|awaited| match awaited {
            Awaited::Held(hold) => Err(StartError::Held(hold)),
            Awaited::Nothing => Err(StartError::Slow(PATIENCE.all)),
            Awaited::Heard => match message::receive::<Report>(&self.handshake) {
                Ok(Some((Report::Failed(failure) | Report::ExecFailed(failure), _))) => {
                    Err(StartError::Failed(failure))
                }
                Ok(Some(report)) => Ok(report),
                // A reset is an end before the last order was read.
                Ok(None) => Err(self.ended()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(self.ended()),
                Err(error) => Err(failed(error)),
            },
        });
        heard.inspect_err(|_| {
            // It may have ended already.
            drop(crate::pidfd_signal(self.pidfd(), libc::SIGKILL));
        })
    }

    /// Why it ended without a word.
    fn ended(&self) -> StartError {
        self.birthplace.out_of_memory().map_or(StartError::Killed, StartError::OutOfMemory)
    }

    /// Tells a prepared first process to execute its program.
    ///
    /// # Errors
    /// [`StartError::Killed`] when the process has ended in the meantime.
    pub fn release(&self) -> Result<(), StartError> {
        self.order(&Order::Go)
    }

    /// Waits until the program runs, or could not be executed: as long as its hooks take. `listen` is given the
    /// descriptor of a filter that asks; if it fails, the process is killed, for nobody would answer it.
    ///
    /// # Errors
    /// [`StartError::Io`] when the handshake breaks or `listen` fails.
    pub fn executed(&self, listen: impl Fn(OwnedFd) -> io::Result<()>) -> Result<Executed, StartError> {
        set_socket_timeout(&self.handshake, Timeout::Recv, None)
            .map_err(|errno| StartError::io("wait for the program", errno))?;
        loop {
            if let Some(executed) = self.next(&listen)? {
                return Ok(executed);
            }
        }
    }

    /// The next step of [`Starting::executed`], for callers that wait by other means than a thread: a container can hold its
    /// process here for as long as it likes. None when there is more to come.
    ///
    /// # Errors
    /// As for [`Starting::executed`].
    pub fn next(&self, listen: impl Fn(OwnedFd) -> io::Result<()>) -> Result<Option<Executed>, StartError> {
        let failed = |error: io::Error| StartError::io("wait for the program", error);
        match message::receive::<Report>(&self.handshake).map_err(failed)? {
            None => Ok(Some(Executed::Running)),
            Some((Report::ExecFailed(failure) | Report::Failed(failure), _)) => {
                Ok(Some(Executed::Failed(failure)))
            }
            Some((Report::Listener, mut carried)) => {
                let fd = carried.pop().ok_or_else(out_of_turn)?;
                if let Err(error) = listen(fd) {
                    crate::pidfd_signal(self.pidfd(), libc::SIGKILL).map_err(failed)?;
                    return Err(StartError::io("hand the seccomp listener over", error));
                }
                Ok(None)
            }
            Some((Report::Ready | Report::Built, _)) => Err(out_of_turn()),
        }
    }

    fn order(&self, order: &Order) -> Result<(), StartError> {
        message::send(&self.handshake, order, &[]).map_err(|_| StartError::Killed)
    }
}

fn out_of_turn() -> StartError {
    StartError::io("follow the process", io::Error::other("it spoke out of turn"))
}

/// The link of a process's namespace.
pub fn namespace_link(pid: i32, kind: NamespaceKind) -> PathBuf {
    format!("/proc/{pid}/ns/{}", kind.proc_name()).into()
}
