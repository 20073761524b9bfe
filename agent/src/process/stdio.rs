//! Streams of a process.
//!
//! Each output has a *pump*, a task that reads the pipe or terminal into a bounded buffer from which callers are
//! served. So a caller that goes away loses nothing, a slow one only holds up the process (its pipe fills), and once a
//! process has ended its descriptors are closed even if nobody ever reads. Each input has a *feeder*, a task that
//! writes what callers hand it, in order and to the end.
//!
//! An output ends when the pipe does, or when its process has ended and nothing has come for [`QUIET`]: a grandchild
//! may hold the pipe open for ever, and the shims wait for the end of the output before they ask for the exit status.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize};
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::error::{ErrorKind, Kind, kind_of_errno};

/// How long an output of an ended process may be silent before it counts as ended too.
// COMPAT(kata): `a_grandchild_that_holds_stdout_does_not_keep_its_end_away`. Shims wait for the exit status only after
// the end of the output.
const QUIET: Duration = Duration::from_millis(500);
/// Bytes that a pump reads at once: a pipe's usual capacity.
const CHUNK: usize = 64 * 1024;
/// Bytes that a pump holds while the process lives.
const BUFFER: usize = 64 * 1024;
/// Bytes that a pump holds once the process has ended, so that a whole pipe can be taken in and closed.
const BUFFER_AFTER_EXIT: usize = 2 * BUFFER + 1024 * 1024;

/// Why a stream could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The process has no such stream, or it was closed.
    #[error("stdin is closed")]
    Closed,
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
            StreamError::Closed => ErrorKind::State,
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

/// Streams of a running process.
#[derive(Debug)]
pub(crate) struct Stdio {
    stdin: mpsc::Sender<Input>,
    stdout: Arc<Output>,
    stderr: Arc<Output>,
    /// The terminal's master end, while its process lives.
    terminal: Mutex<Option<OwnedFd>>,
}

enum Input {
    Data(Vec<u8>, oneshot::Sender<Result<(), StreamError>>),
    Close,
}

impl Stdio {
    /// Starts pumps and feeder over pipes. `exit` ends the outputs after the process.
    pub(crate) fn of_pipes(pipes: Pipes, exit: &watch::Receiver<Option<i32>>) -> Result<Stdio, StreamError> {
        let output = |fd: Option<OwnedFd>| -> Result<Arc<Output>, StreamError> {
            let output = Arc::new(Output::default());
            match fd {
                Some(fd) => tokio::spawn(Arc::clone(&output).pump(reader(fd)?, exit.clone())),
                None => return Ok(output.ended()),
            };
            Ok(output)
        };
        let (sender, receiver) = mpsc::channel(16);
        if let Some(fd) = pipes.stdin {
            tokio::spawn(feed(writer(fd)?, receiver, false, exit.clone()));
        }
        Ok(Stdio {
            stdin: sender,
            stdout: output(pipes.stdout)?,
            stderr: output(pipes.stderr)?,
            terminal: Mutex::default(),
        })
    }

    /// Starts pump and feeder over a terminal's master end.
    pub(crate) fn of_terminal(
        master: OwnedFd,
        exit: &watch::Receiver<Option<i32>>,
    ) -> Result<Stdio, StreamError> {
        let copy =
            || master.try_clone().map_err(|error| StreamError::io("copy a terminal's descriptor", error));
        let output = Arc::new(Output::default());
        let (sender, receiver) = mpsc::channel(16);
        let (source, sink) = (reader(copy()?)?, writer(copy()?)?);
        tokio::spawn(Arc::clone(&output).pump(source, exit.clone()));
        tokio::spawn(feed(sink, receiver, true, exit.clone()));
        // One master is one source of bytes, and all of them are stdout's: a reader of stderr would take some away.
        let stderr = Arc::new(Output::default()).ended();
        Ok(Stdio { stdin: sender, stdout: output, stderr, terminal: Mutex::new(Some(master)) })
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

/// Makes a descriptor of the agent's own non-blocking, as the runtime needs it. The child's end of a pipe is a
/// description of its own, so it stays blocking.
fn non_blocking(fd: OwnedFd) -> Result<OwnedFd, StreamError> {
    let flags = rustix::fs::fcntl_getfl(&fd).map_err(|errno| StreamError::io("look at a stream", errno))?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)
        .map_err(|errno| StreamError::io("make a stream non-blocking", errno))?;
    Ok(fd)
}

/// A readable end. The runtime's pipe type takes a terminal's master as well: it only polls and reads.
fn reader(fd: OwnedFd) -> Result<pipe::Receiver, StreamError> {
    pipe::Receiver::from_owned_fd_unchecked(non_blocking(fd)?)
        .map_err(|error| StreamError::io("watch an output", error))
}

/// A writable end; see [`reader`].
fn writer(fd: OwnedFd) -> Result<pipe::Sender, StreamError> {
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
    chunks: VecDeque<Vec<u8>>,
    bytes: usize,
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

    async fn pump(self: Arc<Self>, fd: pipe::Receiver, mut exit: watch::Receiver<Option<i32>>) {
        let mut buffer = vec![0; CHUNK];
        loop {
            let has_exited = exit.borrow().is_some();
            if self.held().bytes >= if has_exited { BUFFER_AFTER_EXIT } else { BUFFER } {
                tokio::select! {
                    () = self.taken.notified() => {}
                    _ = exit.changed(), if !has_exited => {}
                }
                continue;
            }
            match fd.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.held().put(buffer[..count].to_vec());
                    self.arrived.notify_one();
                    // One busy stream must not keep the agent's only thread from the others.
                    tokio::task::yield_now().await;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !has_exited {
                        tokio::select! {
                            _ = fd.readable() => {}
                            _ = exit.changed() => {}
                        }
                    } else if tokio::time::timeout(QUIET, fd.readable()).await.is_err() {
                        break;
                    }
                }
                // EIO is how a terminal says that its last user is gone.
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => break,
                Err(error) => {
                    tracing::warn!(%error, "a process's output cannot be read");
                    break;
                }
            }
        }
        self.held().is_ended = true;
        self.arrived.notify_one();
    }
}

impl Held {
    fn put(&mut self, chunk: Vec<u8>) {
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
    }

    fn take(&mut self, most: usize) -> Option<Vec<u8>> {
        let first = self.chunks.front_mut()?;
        let chunk = if first.len() <= most {
            self.chunks.pop_front()?
        } else {
            let rest = first.split_off(most.max(1));
            std::mem::replace(first, rest)
        };
        self.bytes -= chunk.len();
        Some(chunk)
    }
}

/// Writes what arrives on the channel, until it is closed or the process has ended and nobody reads.
async fn feed(
    fd: pipe::Sender,
    mut inputs: mpsc::Receiver<Input>,
    is_terminal: bool,
    mut exit: watch::Receiver<Option<i32>>,
) {
    loop {
        let input = tokio::select! {
            input = inputs.recv() => input,
            // With its reader gone the pipe is of no use; a terminal lives until the process does.
            _ = exit.wait_for(Option::is_some) => None,
        };
        match input {
            Some(Input::Data(data, reply)) => {
                let result = tokio::select! {
                    result = write_all(&fd, &data) => result,
                    _ = exit.wait_for(Option::is_some) => Err(StreamError::Closed),
                };
                // The caller may be gone.
                drop(reply.send(result));
            }
            Some(Input::Close) if is_terminal => {
                if let Some(character) = end_of_file(&fd)
                    && let Err(error) = write_all(&fd, &[character]).await
                {
                    tracing::debug!(%error, "cannot type the end of input");
                }
            }
            Some(Input::Close) | None => return,
        }
    }
}

async fn write_all(fd: &pipe::Sender, mut data: &[u8]) -> Result<(), StreamError> {
    while !data.is_empty() {
        fd.writable().await.map_err(|error| StreamError::io("watch stdin", error))?;
        match fd.try_write(data) {
            Ok(count) => {
                data = &data[count..];
                tokio::task::yield_now().await;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(StreamError::io("write to stdin", error)),
        }
    }
    Ok(())
}

/// The end-of-file character of a terminal in line mode; in raw mode there is none.
fn end_of_file(terminal: impl AsFd) -> Option<u8> {
    let modes = rustix::termios::tcgetattr(terminal).ok()?;
    modes.local_modes.contains(LocalModes::ICANON).then(|| modes.special_codes[SpecialCodeIndex::VEOF])
}

#[cfg(test)]
#[path = "stdio_test.rs"]
mod tests;
