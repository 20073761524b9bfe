//! The process that interprets policies, from both sides.
//!
//! The interpreter recurses as the policy does: a function that calls itself, or a sum of ten thousand terms,
//! overflows its stack, and a rule can ask for any amount of memory. In PID 1 that would be the end of the guest, so a
//! process of its own takes the fall. It is the agent's own program with another argument, it has no work but this, and
//! all that counts stays with the agent: the text and the state, from which another one can go on.
//!
//! ```text
//! agent (thread `policy`)              worker
//!   ├── Order::Load{source, state} ────►│ understands it once
//!   │◄── Ok(lenient) or Err(reason) ────┤
//!   ├── Order::Judge{request, input} ──►│
//!   │◄── Ok(Allowed) or Err ────────── ──┤   … until the socket ends
//! ```
//!
//! One JSON document per line. Promises the agent an answer or the worker's end within a bound. Must never be trusted
//! to have done what it did not answer.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{PidfdFlags, Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::engine::{Allowed, Engine};

/// First argument of the agent's program that makes it a worker.
pub(crate) const ARGUMENT: &str = "policy";

/// How long an answer may take. The interpreter itself stops after half of that, but looks at the clock between steps
/// only, and a step can be a function that makes a list of millions.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much memory a worker may write to, in bytes. A generated policy of a megabyte takes a tenth of that.
const MEMORY: u64 = 256 << 20;

/// The interpreter's stack, in bytes. Only what is used takes memory.
const STACK: usize = 16 << 20;

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Load { source: String, state: Value },
    Judge { request: String, input: Value },
}

type Loaded = Result<bool, String>;
type Judged = Result<Allowed, String>;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The policy's own doing.
    Refused(String),
    /// The worker is of no use any more.
    Lost(String),
}

/// A running worker: its socket, and its process where it is one. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Link {
    socket: BufReader<UnixStream>,
    process: Option<OwnedFd>,
}

impl Link {
    /// Starts a process. The agent's reaper collects it.
    ///
    /// # Errors
    /// When there can be none.
    pub(super) fn spawn() -> io::Result<Link> {
        let (ours, theirs) = UnixStream::pair()?;
        // No pre_exec and no ids: std then uses posix_spawn, which is safe in a threaded process.
        let child = Command::new("/proc/self/exe")
            .arg(ARGUMENT)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        let pid = rustix::process::Pid::from_child(&child);
        // Where it ended at once, so does its socket.
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
        Link::over(ours, process)
    }

    #[cfg(test)]
    pub(super) fn to_a_thread() -> io::Result<Link> {
        let (ours, theirs) = UnixStream::pair()?;
        thread::spawn(move || serve(theirs));
        Link::over(ours, None)
    }

    /// # Errors
    /// When the socket takes no deadline.
    pub(super) fn over(socket: UnixStream, process: Option<OwnedFd>) -> io::Result<Link> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Link { socket: BufReader::new(socket), process })
    }

    /// Loads a policy. True when it ignores refusals.
    pub(super) fn load(&mut self, source: &str, state: &Value) -> Result<bool, Failure> {
        let order = Order::Load { source: source.to_owned(), state: state.clone() };
        self.ask::<Loaded>(&order)?.map_err(Failure::Refused)
    }

    /// Judges a call.
    pub(super) fn judge(&mut self, request: &str, input: Value) -> Result<Allowed, Failure> {
        let order = Order::Judge { request: request.to_owned(), input };
        self.ask::<Judged>(&order)?.map_err(Failure::Refused)
    }

    fn ask<T: for<'de> Deserialize<'de>>(&mut self, order: &Order) -> Result<T, Failure> {
        let answer = write_line(self.socket.get_mut(), order).and_then(|()| read_line(&mut self.socket));
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Failure::Lost("its interpreter died of it".into())),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(Failure::Lost(format!("it took more than {} s", PATIENCE.as_secs())))
            }
            Err(error) => Err(Failure::Lost(format!("its interpreter died of it: {error}"))),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // It may be busy for ever. One that has ended is neither killed nor mourned.
        if let Some(process) = &self.process {
            rustix::process::pidfd_send_signal(process, Signal::KILL).ok();
        }
        self.socket.get_ref().shutdown(Shutdown::Both).ok();
    }
}

fn write_line(socket: &mut UnixStream, document: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(document)?;
    line.push(b'\n');
    socket.write_all(&line)
}

/// None at the end.
fn read_line<T: for<'de> Deserialize<'de>>(socket: &mut BufReader<UnixStream>) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    socket.read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// The worker's whole life, in its own process.
pub(crate) fn main() -> ExitCode {
    let run = || -> io::Result<()> {
        restrict()?;
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let interpreter = thread::Builder::new().stack_size(STACK).spawn(move || serve(socket))?;
        interpreter.join().map_err(|_| io::Error::other("the interpreter panicked"))?
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: the policy's worker ends: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a policy could do by a bug of its interpreter, it can do less of.
fn restrict() -> io::Result<()> {
    let limit = |most| Rlimit { current: Some(most), maximum: Some(most) };
    rustix::process::setrlimit(Resource::Data, limit(MEMORY))?;
    rustix::process::setrlimit(Resource::Core, limit(0))?;
    rustix::process::setrlimit(Resource::Fsize, limit(0))?;
    rustix::thread::set_no_new_privs(true)?;
    // Short of memory, the kernel takes this one before any container; where it may not be said, it is a guess.
    std::fs::write("/proc/self/oom_score_adj", "1000").ok();
    Ok(())
}

/// Answers orders until the socket ends.
pub(super) fn serve(socket: UnixStream) -> io::Result<()> {
    let mut socket = BufReader::new(socket);
    let mut engine: Option<Engine> = None;
    while let Some(order) = read_line(&mut socket)? {
        match order {
            Order::Load { source, state } => {
                let loaded: Loaded = match Engine::parse(&source, state) {
                    Ok(understood) => Ok(engine.insert(understood).lenient()),
                    Err(reason) => Err(reason),
                };
                write_line(socket.get_mut(), &loaded)?;
            }
            Order::Judge { request, input } => {
                let judged: Judged = match &mut engine {
                    Some(engine) => engine.judge(&request, input),
                    None => Err("no policy is loaded".into()),
                };
                write_line(socket.get_mut(), &judged)?;
            }
        }
    }
    Ok(())
}
