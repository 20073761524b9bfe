//! Streams of a process.
//!
//! Each output has a *pump*, a task that reads the pipe or terminal into a bounded buffer from which callers are
//! served. So a caller that goes away loses nothing, a slow one only holds up the process (its pipe fills), and once a
//! process has ended its descriptors are closed even if nobody ever reads. Each input has a *feeder*, a task that
//! writes what callers hand it, in order and to the end.
//!
//! Where the host passed a connection for a stream, `passfd` copies in place of pump and feeder.
//!
//! An output ends when the pipe does, or when its process has ended and nothing has come for a moment: a grandchild
//! may hold the pipe open for ever, and the shims wait for the end of the output before they ask for the exit status.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use rustix::termios::Winsize;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot, watch};

use super::input::{Input, feed};
use super::output::{Exit, Output};
use super::passfd::{self, Claimed};
pub(crate) use super::stream::StreamError;
use super::unread::Unread;
use crate::error::chain;

/// Names of the outputs in errors.
pub(crate) const STDOUT: &str = "stdout";
/// See [`STDOUT`].
pub(crate) const STDERR: &str = "stderr";

/// The child's ends.
#[derive(Debug, Default)]
pub(crate) struct ChildStreams([Option<OwnedFd>; 3]);

impl ChildStreams {
    /// Descriptors 0, 1 and 2 of the child, where it is not to have a terminal.
    pub(crate) fn borrow(&self) -> [Option<BorrowedFd<'_>>; 3] {
        [0, 1, 2].map(|number| self.0[number].as_ref().map(|fd| fd.as_fd()))
    }
}

/// The agent's ends of a process's pipes, before it starts.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// The size of pipes that an option asks for, or 0, the kernel's own, with a warning where the kernel has none that large: the
/// option must not keep every process from starting.
pub(crate) fn possible_size(asked: u32) -> u32 {
    match pipes(asked as usize) {
        Ok(_) => asked,
        Err(error) => {
            tracing::warn!(asked, error = %chain(&error), "pipes have the usual size: agent.container_pipe_size cannot be had");
            0
        }
    }
}

/// Makes the three pipes of a process. `size` is their capacity in bytes, 0 for the kernel's default.
pub(crate) fn pipes(size: usize) -> Result<(Pipes, ChildStreams), StreamError> {
    let pipe = || -> Result<(OwnedFd, OwnedFd), StreamError> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
            .map_err(|errno| StreamError::io("make a pipe", errno))?;
        if size > 0 {
            rustix::pipe::fcntl_setpipe_size(&write, size)
                .map_err(|errno| StreamError::io("set a pipe's size", errno))?;
        }
        Ok((read, write))
    };
    let ((stdin_child, stdin), (stdout, stdout_child), (stderr, stderr_child)) = (pipe()?, pipe()?, pipe()?);
    let ours = Pipes { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) };
    Ok((ours, ChildStreams([Some(stdin_child), Some(stdout_child), Some(stderr_child)])))
}

/// Makes the pipes of a process that has no input: its stdin is `/dev/null`, as a terminal that is not there would be.
#[cfg_attr(
    not(feature = "sandbox-api"),
    allow(dead_code, reason = "only commands of the sandbox API have none")
)]
pub(crate) fn pipes_without_input(size: usize) -> Result<(Pipes, ChildStreams), StreamError> {
    let (mut ours, mut childs) = pipes(size)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty());
    childs.0[0] = Some(null.map_err(|errno| StreamError::io("open /dev/null", errno))?);
    ours.stdin = None;
    Ok((ours, childs))
}

/// The agent's ends of a process's streams.
pub(crate) enum Ends {
    /// Pipes.
    Pipes(Pipes),
    /// A terminal's master end.
    Terminal(OwnedFd),
}

/// Streams of a running process.
#[derive(Debug)]
pub(crate) struct Stdio {
    stdin: mpsc::Sender<Input>,
    stdin_is_passed: Arc<AtomicBool>,
    stdout: Outlet,
    stderr: Outlet,
    /// The terminal's master end, while its process lives.
    terminal: Mutex<Option<OwnedFd>>,
}

/// Where an output goes.
#[derive(Debug)]
enum Outlet {
    /// To callers.
    Calls(Arc<Output>),
    /// To a connection. True once WaitProcess may answer.
    Passed(watch::Receiver<bool>),
}

impl Stdio {
    /// Starts the tasks that move the bytes. `exit` ends the outputs after the process; what nobody reads counts in `unread`.
    pub(crate) fn start(
        ends: Ends,
        claimed: Claimed,
        exit: &watch::Receiver<Option<i32>>,
        unread: &Arc<Unread>,
    ) -> Result<Stdio, StreamError> {
        let exit = Exit::of(exit);
        let is_terminal = matches!(ends, Ends::Terminal(_));
        let (pipes, terminal) = match ends {
            Ends::Pipes(pipes) => (pipes, None),
            Ends::Terminal(master) => {
                let copy = || {
                    let copied = master.try_clone();
                    copied.map_err(|error| StreamError::io("copy a terminal's descriptor", error))
                };
                // One master is one source of bytes, and all of them are stdout's: a reader of stderr would take some
                // away. A connection for stderr is closed.
                (Pipes { stdin: Some(copy()?), stdout: Some(copy()?), stderr: None }, Some(master))
            }
        };
        let outlet = |fd: Option<OwnedFd>, peer| -> Result<Outlet, StreamError> {
            let output = Arc::new(Output::new(unread));
            match (fd.map(reader).transpose()?, peer) {
                (Some(fd), Some(peer)) => {
                    return Ok(Outlet::Passed(passfd::Drain::start(fd, peer, exit.clone(), is_terminal)));
                }
                (Some(fd), None) => {
                    drop(tokio::spawn(Arc::clone(&output).pump(fd, exit.clone(), Arc::clone(unread))));
                }
                (None, _) => return Ok(Outlet::Calls(output.ended())),
            }
            Ok(Outlet::Calls(output))
        };
        let (sender, receiver) = mpsc::channel(16);
        let stdin_is_passed = Arc::new(AtomicBool::new(claimed.stdin.is_some()));
        match (pipes.stdin.map(writer).transpose()?, claimed.stdin) {
            (Some(fd), Some(peer)) => {
                let stdin = passfd::Stdin { is_terminal, is_init: claimed.is_init };
                let is_passed = Arc::clone(&stdin_is_passed);
                drop(tokio::spawn(passfd::feed(fd, peer, receiver, stdin, is_passed, exit.clone())));
            }
            (Some(fd), None) => drop(tokio::spawn(feed(fd, receiver, is_terminal, exit.clone()))),
            (None, _) => {}
        }
        Ok(Stdio {
            stdin: sender,
            stdin_is_passed,
            stdout: outlet(pipes.stdout, claimed.stdout)?,
            stderr: outlet(pipes.stderr, claimed.stderr)?,
            terminal: Mutex::new(terminal),
        })
    }

    /// Starts pumps and feeder over pipes, for a reader of the agent's own.
    pub(crate) fn of_pipes(pipes: Pipes, exit: &watch::Receiver<Option<i32>>) -> Result<Stdio, StreamError> {
        Stdio::start(Ends::Pipes(pipes), Claimed::default(), exit, &Arc::default())
    }

    /// Starts pump and feeder over a terminal's master end, for a reader of the agent's own.
    pub(crate) fn of_terminal(
        master: OwnedFd,
        exit: &watch::Receiver<Option<i32>>,
    ) -> Result<Stdio, StreamError> {
        Stdio::start(Ends::Terminal(master), Claimed::default(), exit, &Arc::default())
    }

    /// Refuses what calls may not read: an output that the host passed a connection for.
    pub(crate) fn expect_served(&self, stream: &'static str) -> Result<(), StreamError> {
        let outlet = if stream == STDERR { &self.stderr } else { &self.stdout };
        match outlet {
            Outlet::Calls(_) => Ok(()),
            Outlet::Passed(_) => Err(StreamError::Passed(stream)),
        }
    }

    /// Waits until what the process left behind has reached the connections of the host's that it goes to. A host that
    /// does not read makes this wait for a few seconds, not longer. What callers read does not count.
    pub(crate) async fn copied(&self) {
        for outlet in [&self.stdout, &self.stderr] {
            if let Outlet::Passed(copied) = outlet {
                // Without its sender the task has ended.
                drop(copied.clone().wait_for(|copied| *copied).await.map(drop));
            }
        }
    }

    /// At most `most` bytes of stdout; waits for them; none is the end.
    pub(crate) async fn read_stdout(&self, most: usize) -> Vec<u8> {
        self.stdout.read(most).await
    }

    /// At most `most` bytes of stderr; waits for them; none is the end, at once for a terminal.
    pub(crate) async fn read_stderr(&self, most: usize) -> Vec<u8> {
        self.stderr.read(most).await
    }

    /// Writes all of `data` to stdin. The writing goes on if the caller goes away.
    pub(crate) async fn write(&self, data: Vec<u8>) -> Result<(), StreamError> {
        if self.stdin_is_passed.load(Ordering::Relaxed) {
            return Err(StreamError::Passed("stdin"));
        }
        let (reply, written) = oneshot::channel();
        self.stdin.send(Input::Data(data, reply)).await.map_err(|_| StreamError::Closed)?;
        written.await.map_err(|_| StreamError::Closed)?
    }

    /// Closes stdin after what was written before. On a terminal the end-of-file character is typed instead: closing
    /// the master would hang up the session and lose its output.
    pub(crate) async fn close_stdin(&self) {
        // A feeder that is gone has closed it already.
        drop(self.stdin.send(Input::Close).await);
    }

    /// Closes the descriptor that only [`Stdio::resize`] needs. What was written is still read.
    pub(crate) fn release_terminal(&self) {
        *self.terminal.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Sets the terminal's size in characters.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> Result<(), StreamError> {
        let terminal = self.terminal.lock().unwrap_or_else(PoisonError::into_inner);
        let master = terminal.as_ref().ok_or(StreamError::NoTerminal)?;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(master, size)
            .map_err(|errno| StreamError::io("resize the terminal", errno))
    }
}

impl Outlet {
    async fn read(&self, most: usize) -> Vec<u8> {
        match self {
            Outlet::Calls(output) => output.read(most).await,
            Outlet::Passed(_) => Vec::new(),
        }
    }
}

/// Makes a descriptor of the agent's own non-blocking, as the runtime needs it. The child's end of a pipe is a
/// description of its own, so it stays blocking.
fn non_blocking(fd: OwnedFd) -> Result<OwnedFd, StreamError> {
    let flags = rustix::fs::fcntl_getfl(&fd).map_err(|errno| StreamError::io("look at a stream", errno))?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)
        .map_err(|errno| StreamError::io("make a stream non-blocking", errno))?;
    Ok(fd)
}

/// A readable end. The runtime's pipe type takes a terminal's master as well: it only polls and reads.
pub(super) fn reader(fd: OwnedFd) -> Result<pipe::Receiver, StreamError> {
    pipe::Receiver::from_owned_fd_unchecked(non_blocking(fd)?)
        .map_err(|error| StreamError::io("watch an output", error))
}

/// A writable end; see [`reader`].
pub(super) fn writer(fd: OwnedFd) -> Result<pipe::Sender, StreamError> {
    pipe::Sender::from_owned_fd_unchecked(non_blocking(fd)?)
        .map_err(|error| StreamError::io("watch an input", error))
}

#[cfg(test)]
#[path = "stdio_test.rs"]
mod tests;
