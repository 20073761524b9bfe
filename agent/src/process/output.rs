//! The *pump* of an output: reads the pipe or terminal into a bounded buffer, from which callers are served.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, watch};

/// How long an output of an ended process may be silent before it counts as ended too.
// COMPAT(kata): `a_grandchild_that_holds_stdout_does_not_keep_its_end_away`. Shims wait for the exit status only after
// the end of the output.
pub(super) const QUIET: Duration = Duration::from_millis(500);
/// Bytes that a pump reads at once: a pipe's usual capacity.
const CHUNK: usize = 64 * 1024;
/// Bytes that a pump holds while the process lives.
const BUFFER: usize = 64 * 1024;
/// Bytes that a pump holds once the process has ended, so that a whole pipe can be taken in and closed.
const BUFFER_AFTER_EXIT: usize = 2 * BUFFER + 1024 * 1024;

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

/// One output: what the pump has read and nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Output {
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
    pub(super) fn ended(self: Arc<Self>) -> Arc<Self> {
        self.held().is_ended = true;
        self
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn read(&self, most: usize) -> Vec<u8> {
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

    pub(super) async fn pump(self: Arc<Self>, fd: pipe::Receiver, mut exit: Exit) {
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
