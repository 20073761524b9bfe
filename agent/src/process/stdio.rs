//! Streams of a process.
//!
//! Each output has a *pump*, a task that reads the pipe or terminal into a bounded buffer from which callers are
//! served. So a caller that goes away loses nothing, a slow one only holds up the process (its pipe fills), and once a
//! process has ended its descriptors are closed even if nobody ever reads. Each input has a *feeder*, a task that
//! writes what callers hand it, in order and to the end.
//!
//! Where the host passed a connection for a stream, `passfd` copies in place of pump and feeder.
//!
//! An output ends when the pipe does, or when its process has ended and nothing has come for [`QUIET`]: a grandchild
//! may hold the pipe open for ever, and the shims wait for the end of the output before they ask for the exit status.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize};
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::passfd::{self, Claimed};
use crate::error::{ErrorKind, Kind, kind_of_errno};

/// How long an output of an ended process may be silent before it counts as ended too.
// COMPAT(kata): `a_grandchild_that_holds_stdout_does_not_keep_its_end_away`. Shims wait for the exit status only after
// the end of the output.
pub(super) const QUIET: Duration = Duration::from_millis(500);
/// Names of the outputs in errors.
pub(crate) const STDOUT: &str = "stdout";
/// See [`STDOUT`].
pub(crate) const STDERR: &str = "stderr";
/// Bytes that a pump reads at once: a pipe's usual capacity.
const CHUNK: usize = 64 * 1024;
/// Bytes that a pump holds while the process lives.
const BUFFER: usize = 64 * 1024;
/// Bytes that a pump holds once the process has ended, so that a whole pipe can be taken in and closed.
const BUFFER_AFTER_EXIT: usize = 2 * BUFFER + 1024 * 1024;

/// Why a stream could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// It was closed, by a caller or by the process.
    #[error("stdin is closed")]
    Closed,
    /// The host passed a connection for it, which nobody else may use.
    #[error("{0} is a connection of the host's own: calls can neither read nor write it")]
    Passed(&'static str),
    /// Resizing something that is no terminal.
    #[error("no tty")]
    NoTerminal,
    /// The kernel refused.
    #[error("{operation}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl StreamError {
    fn io(operation: &'static str, source: impl Into<io::Error>) -> StreamError {
        StreamError::Io { operation, source: source.into() }
    }
}

impl Kind for StreamError {
    fn kind(&self) -> ErrorKind {
        match self {
            StreamError::Closed | StreamError::Passed(_) => ErrorKind::State,
            // COMPAT(kata): `resize_without_a_terminal_is_unavailable`. Shims know UNAVAILABLE with this text.
            StreamError::NoTerminal => ErrorKind::Busy,
            StreamError::Io { source, .. } => kind_of_errno(source.raw_os_error()),
        }
    }
}

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

/// The end of a process.
#[derive(Debug, Clone)]
pub(super) struct Exit(watch::Receiver<Option<i32>>);

impl Exit {
    /// The end that is published here.
    pub(super) fn of(exit: &watch::Receiver<Option<i32>>) -> Exit {
        Exit(exit.clone())
    }

    /// Whether it has come. An end that will never be known counts as one, or its tasks would stay for ever.
    pub(super) fn has_come(&self) -> bool {
        self.0.borrow().is_some() || self.0.has_changed().is_err()
    }

    /// Waits for it.
    pub(super) async fn come(&mut self) {
        drop(self.0.wait_for(Option::is_some).await.map(drop));
    }
}

pub(super) enum Input {
    Data(Vec<u8>, oneshot::Sender<Result<(), StreamError>>),
    Close,
}

impl Stdio {
    /// Starts the tasks that move the bytes. `exit` ends the outputs after the process.
    pub(crate) fn start(
        ends: Ends,
        claimed: Claimed,
        exit: &watch::Receiver<Option<i32>>,
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
            let output = Arc::new(Output::default());
            match (fd.map(reader).transpose()?, peer) {
                (Some(fd), Some(peer)) => {
                    return Ok(Outlet::Passed(passfd::Drain::start(fd, peer, exit.clone(), is_terminal)));
                }
                (Some(fd), None) => drop(tokio::spawn(Arc::clone(&output).pump(fd, exit.clone()))),
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

    /// Starts pumps and feeder over pipes.
    pub(crate) fn of_pipes(pipes: Pipes, exit: &watch::Receiver<Option<i32>>) -> Result<Stdio, StreamError> {
        Stdio::start(Ends::Pipes(pipes), Claimed::default(), exit)
    }

    /// Starts pump and feeder over a terminal's master end.
    pub(crate) fn of_terminal(
        master: OwnedFd,
        exit: &watch::Receiver<Option<i32>>,
    ) -> Result<Stdio, StreamError> {
        Stdio::start(Ends::Terminal(master), Claimed::default(), exit)
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

/// One output: what the pump has read and nobody has taken yet.
#[derive(Debug, Default)]
struct Output {
    held: Mutex<Held>,
    /// Told when bytes or the end arrive.
    arrived: Notify,
    /// Told when bytes were taken.
    taken: Notify,
}

#[derive(Debug, Default)]
struct Held {
    bytes: VecDeque<u8>,
    is_ended: bool,
}

impl Output {
    fn ended(self: Arc<Self>) -> Arc<Self> {
        self.held().is_ended = true;
        self
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, most: usize) -> Vec<u8> {
        loop {
            // Registered before the look, so that what arrives in between is noticed.
            let arrived = self.arrived.notified();
            {
                let mut held = self.held();
                if let Some(chunk) = held.take(most) {
                    drop(held);
                    self.taken.notify_one();
                    // Another reader may find more.
                    self.arrived.notify_one();
                    return chunk;
                }
                if held.is_ended {
                    drop(held);
                    self.arrived.notify_one();
                    return Vec::new();
                }
            }
            arrived.await;
        }
    }

    async fn pump(self: Arc<Self>, fd: pipe::Receiver, mut exit: Exit) {
        let mut buffer = Vec::new();
        loop {
            let has_exited = exit.has_come();
            if self.held().bytes.len() >= if has_exited { BUFFER_AFTER_EXIT } else { BUFFER } {
                tokio::select! {
                    () = self.taken.notified() => {}
                    () = exit.come(), if !has_exited => {}
                }
                continue;
            }
            buffer.clear();
            buffer.reserve(CHUNK);
            match fd.try_read_buf(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {
                    self.held().bytes.extend(&buffer);
                    self.arrived.notify_one();
                    // One busy stream must not keep the agent's only thread from the others.
                    tokio::task::yield_now().await;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // An idle process costs no buffer.
                    buffer = Vec::new();
                    if !has_exited {
                        tokio::select! {
                            _ = fd.readable() => {}
                            () = exit.come() => {}
                        }
                    } else if tokio::time::timeout(QUIET, fd.readable()).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    tell_read_error(&error);
                    break;
                }
            }
        }
        self.held().is_ended = true;
        self.arrived.notify_one();
    }
}

/// Logs why an output ended, unless it is how a terminal says that its last user is gone.
pub(super) fn tell_read_error(error: &io::Error) {
    if error.raw_os_error() != Some(Errno::IO.raw_os_error()) {
        tracing::warn!(%error, "a process's output cannot be read");
    }
}

impl Held {
    fn take(&mut self, most: usize) -> Option<Vec<u8>> {
        if self.bytes.is_empty() {
            return None;
        }
        let count = self.bytes.len().min(most.max(1));
        let taken = self.bytes.drain(..count).collect();
        if self.bytes.is_empty() {
            // An idle process costs no buffer.
            self.bytes = VecDeque::new();
        }
        Some(taken)
    }
}

/// Writes what arrives on the channel, until it is closed or the process has ended and nobody reads.
pub(super) async fn feed(
    fd: pipe::Sender,
    mut inputs: mpsc::Receiver<Input>,
    is_terminal: bool,
    mut exit: Exit,
) {
    loop {
        // What was handed in before the end is tried before the end counts: a grandchild may read it.
        let input = tokio::select! {
            biased;
            input = inputs.recv() => input,
            // With its reader gone the pipe is of no use; a terminal lives until the process does.
            () = exit.come() => None,
        };
        match input {
            Some(Input::Data(data, reply)) => {
                // A process may end because of what it has just read. That was written, and the caller is told so.
                let result = tokio::select! {
                    biased;
                    result = write_all(&fd, &data) => result,
                    () = exit.come() => Err(StreamError::Closed),
                };
                let is_closed = matches!(result, Err(StreamError::Closed));
                // The caller may be gone.
                drop(reply.send(result));
                if is_closed {
                    return;
                }
            }
            Some(Input::Close) if is_terminal => type_end_of_file(&fd).await,
            Some(Input::Close) | None => return,
        }
    }
}

/// Writes all of it, however long that takes. A process that has closed its end makes it [`StreamError::Closed`].
pub(super) async fn write_all(fd: &pipe::Sender, mut data: &[u8]) -> Result<(), StreamError> {
    while !data.is_empty() {
        fd.writable().await.map_err(|error| StreamError::io("watch stdin", error))?;
        match fd.try_write(data) {
            Ok(count) => {
                data = &data[count..];
                // No pause after the last byte: whoever gives up on this write meanwhile would take it for unfinished.
                if !data.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                io::ErrorKind::BrokenPipe => return Err(StreamError::Closed),
                _ => return Err(StreamError::io("write to stdin", error)),
            },
        }
    }
    Ok(())
}

/// Types the character that ends the input of a terminal.
pub(super) async fn type_end_of_file(fd: &pipe::Sender) {
    if let Some(character) = end_of_file(fd)
        && let Err(error) = write_all(fd, &[character]).await
    {
        tracing::debug!(%error, "cannot type the end of input");
    }
}

/// The end-of-file character of a terminal in line mode; in raw mode there is none.
fn end_of_file(terminal: impl AsFd) -> Option<u8> {
    let modes = rustix::termios::tcgetattr(terminal).ok()?;
    modes.local_modes.contains(LocalModes::ICANON).then(|| modes.special_codes[SpecialCodeIndex::VEOF])
}

#[cfg(test)]
#[path = "stdio_test.rs"]
mod tests;
