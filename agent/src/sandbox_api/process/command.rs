//! A command that was started: its streams, its end, and who listens.
//!
//! ```text
//! process ── stdout, stderr or terminal ── pump ── feed ──┬─ listener (the stream of Start)
//!    │                                                    └─ listener (of Connect)
//!    └── end ── all that was written is in the feed ── end in the feed ── kept 30 s
//! ```

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustjail::cgroup::{Cgroup, Nested};
use sandbox_api::connect::{Code, Error};
use tokio::sync::{Notify, watch};

use super::end::{End, SHELL_KILLED};
use super::feed::{Feed, LITTLE_ROOM, Piece, ROOM, Stream, Taken};
use crate::container::Born;
use crate::process::reaper::Cause;
use crate::process::stdio::StreamError;
use crate::process::{Process, ProcessError};
use crate::sandbox_api::task;

/// Most bytes that are read of a pipe at once.
const PIPE_CHUNK: usize = 32 * 1024;
/// Most bytes that are read of a terminal at once.
const PTY_CHUNK: usize = 16 * 1024;
/// Bytes of an input that are handed to the process at once.
const INPUT_CHUNK: usize = 64 * 1024;
/// How long a call that kills a process waits for its end.
const DYING: std::time::Duration = std::time::Duration::from_secs(1);
/// Bytes that all commands together may hold, from where on each has little room.
pub(super) const HELD: usize = 8 << 20;

/// What a command was started with, as List tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Config {
    /// The program.
    pub(super) cmd: String,
    /// Its arguments.
    pub(super) args: Vec<String>,
    /// Its variables.
    pub(super) envs: Vec<(String, String)>,
    /// Its working directory, as it was asked for.
    pub(super) cwd: Option<String>,
    /// The caller's name for it.
    pub(super) tag: Option<String>,
}

/// What a command reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// A pipe.
    Pipe,
    /// A terminal.
    Pty,
    /// Nothing, or no more.
    Closed,
}

/// Bytes that all commands hold.
pub(super) type Held = Arc<AtomicUsize>;

/// See the module.
pub(super) struct Command {
    /// Its container's id.
    pub(super) container: String,
    /// Its process id in its container.
    pub(super) pid: u32,
    /// How it was started.
    pub(super) config: Config,
    is_pty: bool,
    process: Arc<Process>,
    cause: Cause,
    cgroup: Arc<Nested>,
    container_cgroup: Arc<Cgroup>,
    /// Kills for want of memory in the container, before it started.
    kills_before: u64,
    feed: Mutex<Feed<End>>,
    /// Told when something was put into the feed.
    arrived: Notify,
    /// Told when something was taken.
    taken: Notify,
    held: Held,
    input: Mutex<Input>,
    /// Whether its end is not to wait for its pipes.
    hurries: watch::Sender<bool>,
    /// Whether it was killed by a call.
    is_killed: AtomicBool,
    /// Whether it took longer than it might.
    is_late: AtomicBool,
}

impl Command {
    /// Of a process that was born. Nothing is read before [`Command::run`]. Blocks for a moment.
    pub(super) fn new(
        born: Born,
        container: &str,
        config: Config,
        input: Input,
        held: &Held,
    ) -> (Command, Running) {
        let Born { process, pid, cause, cgroup, container: container_cgroup, executed: _ } = born;
        let kills_before = container_cgroup.oom_kill_count().unwrap_or_default();
        let is_pty = input == Input::Pty;
        let (hurries, hurry) = watch::channel(is_pty);
        let command = Command {
            container: container.to_owned(),
            pid: pid.unsigned_abs(),
            config,
            is_pty,
            process,
            cause,
            cgroup,
            container_cgroup,
            kills_before,
            feed: Mutex::new(Feed::new()),
            arrived: Notify::new(),
            taken: Notify::new(),
            held: Arc::clone(held),
            input: Mutex::new(input),
            hurries,
            is_killed: AtomicBool::new(false),
            is_late: AtomicBool::new(false),
        };
        (command, Running { hurry })
    }

    fn feed(&self) -> MutexGuard<'_, Feed<End>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the feed, and counts what it holds.
    fn change<T>(&self, change: impl FnOnce(&mut Feed<End>) -> T) -> T {
        let mut feed = self.feed();
        let before = feed.held();
        let result = change(&mut feed);
        let after = feed.held();
        drop(feed);
        self.held.fetch_add(after, Ordering::Relaxed);
        self.held.fetch_sub(before, Ordering::Relaxed);
        result
    }

    fn room(&self) -> usize {
        if self.held.load(Ordering::Relaxed) > HELD { LITTLE_ROOM } else { ROOM }
    }

    /// Whether it is still of interest: it runs, or somebody holds its pipes.
    pub(super) fn is_running(&self) -> bool {
        let is_given_up = *self.hurries.borrow() && self.process.exited().is_some();
        !is_given_up && self.feed().end().is_none()
    }

    /// Whether its time was over.
    pub(super) fn is_late(&self) -> bool {
        self.is_late.load(Ordering::Relaxed)
    }

    /// Reads what it writes until it ends; then removes its cgroup, once that is empty.
    pub(super) async fn run(self: Arc<Self>, running: Running, streams_end: watch::Sender<Option<i32>>) {
        let pumps = async {
            if self.is_pty {
                self.pump(Stream::Pty).await;
            } else {
                tokio::join!(self.pump(Stream::Out), self.pump(Stream::Err));
            }
        };
        let hurry = async {
            let mut hurry = running.hurry;
            drop(self.process.end().await);
            // The sender is the command's own, so the channel does not close.
            drop(hurry.wait_for(|hurries| *hurries).await.map(drop));
            streams_end.send_replace(Some(0));
            std::future::pending::<()>().await
        };
        tokio::select! {
            biased;
            // The other one never ends: it only makes the pumps end.
            () = pumps => {}
            () = hurry => {}
        }
        let end = self.end().await;
        self.change(|feed| feed.finish(end));
        self.arrived.notify_waiters();
        // It may be forgotten by the container's table.
        drop(self.process.wait().await);
    }

    async fn pump(&self, stream: Stream) {
        loop {
            loop {
                let taken = self.taken.notified();
                tokio::pin!(taken);
                taken.as_mut().enable();
                if self.feed().has_room(self.room()) {
                    break;
                }
                taken.await;
            }
            let stdio = &self.process.stdio;
            let bytes = match stream {
                Stream::Out => stdio.read_stdout(PIPE_CHUNK).await,
                Stream::Pty => stdio.read_stdout(PTY_CHUNK).await,
                Stream::Err => stdio.read_stderr(PIPE_CHUNK).await,
            };
            if bytes.is_empty() {
                return;
            }
            let room = self.room();
            self.change(|feed| feed.put(Piece { stream, bytes: bytes.into() }, room));
            self.arrived.notify_waiters();
        }
    }

    async fn end(&self) -> End {
        let status = self.process.end().await.unwrap_or(-1);
        let cause = self.cause.signal();
        let could_be_oom = match cause {
            Some((signal, _)) => signal == nix::libc::SIGKILL && !self.is_killed.load(Ordering::Relaxed),
            None => status == SHELL_KILLED,
        };
        let is_oom = could_be_oom && self.kills().await > self.kills_before;
        match cause {
            Some((signal, core)) => End::Killed { signal, core, is_oom },
            None => End::Exited { code: status, is_oom },
        }
    }

    async fn kills(&self) -> u64 {
        let cgroup = Arc::clone(&self.container_cgroup);
        let kills = task::blocking(move || cgroup.oom_kill_count().unwrap_or_default()).await;
        kills.unwrap_or_default()
    }

    /// Removes its cgroup once no process is left in it: what it started may outlive it.
    pub(super) async fn tidy(&self) {
        tidy(Arc::clone(&self.cgroup)).await;
    }

    /// Kills it, and all that it has started.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) async fn kill(&self) -> Result<(), Error> {
        self.is_killed.store(true, Ordering::Relaxed);
        let cgroup = Arc::clone(&self.cgroup);
        let killed = task::blocking(move || cgroup.kill()).await;
        self.hurries.send_replace(true);
        match killed {
            Ok(Ok(())) => {
                // Who asks again, or for a list, is not to find it still. What the kernel does not let go is not waited for.
                drop(tokio::time::timeout(DYING, self.process.end()).await);
                Ok(())
            }
            Ok(Err(error)) => {
                Err(Error::internal(format!("error sending signal: {}", crate::error::chain(&error))))
            }
            Err(_) => Err(Error::internal("error sending signal: it panicked")),
        }
    }

    /// Kills it since its time is over.
    pub(super) async fn expire(&self) {
        self.is_late.store(true, Ordering::Relaxed);
        if let Err(error) = self.kill().await {
            tracing::error!(%error, pid = self.pid, "a command whose time is over is not killed");
        }
    }

    /// Sends SIGTERM to the process itself.
    ///
    /// # Errors
    /// `not_found` if it has ended.
    pub(super) fn terminate(&self) -> Result<(), Error> {
        self.process.signal(nix::libc::SIGTERM as u32).map_err(|error| match error {
            ProcessError::Gone(_) => not_found(self.pid),
            error => Error::internal(format!("error sending signal: {}", crate::error::chain(&error))),
        })?;
        self.hurries.send_replace(true);
        Ok(())
    }

    /// Freezes it, or lets it go on. Blocks for a moment.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn set_frozen(&self, is_frozen: bool) -> Result<(), rustjail::cgroup::Error> {
        self.cgroup.set_frozen(is_frozen)
    }

    fn input(&self) -> MutexGuard<'_, Input> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands it all of `data`; waits until it, or its pipe, has taken it.
    ///
    /// # Errors
    /// `internal`, if it has no such input, or its reader is gone.
    pub(super) async fn write(&self, data: Vec<u8>, to: Input) -> Result<(), Error> {
        let wrong = match (*self.input(), to) {
            (Input::Pipe, Input::Pipe) | (Input::Pty, Input::Pty) => None,
            (Input::Pty, _) => Some(
                "error writing to stdin: tty assigned to process - input should be written to the pty, not the stdin",
            ),
            (Input::Closed, Input::Pipe) => Some("error writing to stdin: stdin not enabled or closed"),
            _ => Some("error writing to tty: tty not assigned to process"),
        };
        if let Some(text) = wrong {
            return Err(Error::internal(text));
        }
        for piece in data.chunks(INPUT_CHUNK) {
            self.process.stdio.write(piece.to_vec()).await.map_err(|error| {
                Error::internal(match error {
                    StreamError::Closed if to == Input::Pty => {
                        "error writing to tty: input/output error".to_owned()
                    }
                    // It may have been closed meanwhile.
                    StreamError::Closed if *self.input() == Input::Closed => {
                        "error writing to stdin: stdin not enabled or closed".to_owned()
                    }
                    StreamError::Closed => "error writing to stdin: write |1: broken pipe".to_owned(),
                    error => format!("error writing to stdin: {}", crate::error::chain(&error)),
                })
            })?;
        }
        Ok(())
    }

    /// Closes its stdin. It may be closed already.
    ///
    /// # Errors
    /// `internal` on a terminal, which has no such end.
    pub(super) async fn close_stdin(&self) -> Result<(), Error> {
        let was = {
            let mut input = self.input();
            let was = *input;
            if was == Input::Pipe {
                *input = Input::Closed;
            }
            was
        };
        match was {
            Input::Pty => {
                let text = "error closing stdin: a terminal's input has no end, send Ctrl+D (0x04) instead";
                Err(Error::internal(text))
            }
            Input::Pipe => {
                self.process.stdio.close_stdin().await;
                Ok(())
            }
            Input::Closed => Ok(()),
        }
    }

    /// Sets its terminal's size.
    ///
    /// # Errors
    /// `internal` if it has none.
    pub(super) fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        if !self.is_pty {
            return Err(Error::internal("error resizing tty: tty not assigned to process"));
        }
        let resized = self.process.stdio.resize(rows, columns);
        resized
            .map_err(|error| Error::internal(format!("error resizing tty: {}", crate::error::chain(&error))))
    }

    /// Listens to it.
    ///
    /// # Errors
    /// `resource_exhausted` if too many do.
    pub(super) fn listen(self: &Arc<Self>) -> Result<Listening, Error> {
        let id = self.change(Feed::listen);
        let id = id.ok_or_else(|| Error::new(Code::ResourceExhausted, "too many listen to this process"))?;
        Ok(Listening { command: Arc::clone(self), id })
    }
}

/// Removes the cgroup of a command once no process is left in it.
pub(super) async fn tidy(cgroup: Arc<Nested>) {
    let mut pause = FIRST_LOOK;
    loop {
        let looked_at = Arc::clone(&cgroup);
        match task::blocking(move || looked_at.remove_if_empty()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the cgroup of a command is not removed");
                return;
            }
        }
        tokio::time::sleep(pause).await;
        pause = LAST_LOOK.min(pause * 4);
    }
}

/// When the cgroup of an ended command is looked at again, at first and at last.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_secs(10);

/// What [`Command::run`] needs of a command.
pub(super) struct Running {
    hurry: watch::Receiver<bool>,
}

impl Drop for Command {
    fn drop(&mut self) {
        let held = self.feed().held();
        self.held.fetch_sub(held, Ordering::Relaxed);
    }
}

/// What envd says where there is no such process.
pub(super) fn not_found(pid: u32) -> Error {
    Error::not_found(format!("process with pid {pid} not found"))
}

/// Somebody who listens to a command.
pub(super) struct Listening {
    /// The command.
    pub(super) command: Arc<Command>,
    id: u64,
}

impl Listening {
    /// Waits for the next thing.
    pub(super) async fn next(&self) -> Taken<End> {
        loop {
            let arrived = self.command.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            match self.command.change(|feed| feed.take(self.id)) {
                Taken::Nothing => arrived.await,
                Taken::Piece(piece) => {
                    self.command.taken.notify_waiters();
                    return Taken::Piece(piece);
                }
                other => return other,
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.command.change(|feed| feed.leave(self.id));
        // Nobody may be left whom it waits for.
        self.command.taken.notify_waiters();
    }
}

#[cfg(test)]
#[path = "command_test.rs"]
mod tests;
