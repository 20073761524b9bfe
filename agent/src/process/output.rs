//! One output of a process: a pump that reads it, and what nobody has taken yet.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, watch};

use super::unread::{Account, Left, Unread};

/// How long an output of an ended process may be silent before it counts as ended too.
// COMPAT(kata): `a_grandchild_that_holds_stdout_does_not_keep_its_end_away`. Shims wait for the exit status only after
// the end of the output.
pub(super) const QUIET: Duration = Duration::from_millis(500);
/// Bytes that a pump reads at once: a pipe's usual capacity.
const CHUNK: usize = 64 * 1024;
/// Bytes that a pipe may hold whose reader wants more at once than pipes usually hold: the most that users may have
/// (pipe(7), /proc/sys/fs/pipe-max-size).
const LARGE_PIPE: usize = 1 << 20;
/// Bytes that a pump holds once the process has ended, so that a whole pipe can be taken in and closed.
const BUFFER_AFTER_EXIT: usize = 2 * CHUNK + 1024 * 1024;

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
#[derive(Debug)]
pub(super) struct Output {
    held: Mutex<Held>,
    /// Told when bytes or the end arrive.
    arrived: Notify,
    /// Told when bytes were taken.
    taken: Notify,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: VecDeque<u8>,
    is_ended: bool,
    /// Whether the pipe had more at the last look.
    has_more: bool,
    /// The most that a reader wants at once who waits for more of that.
    wish: usize,
    account: Account,
}

impl Output {
    pub(super) fn new(unread: &Arc<Unread>) -> Output {
        let account = Account::new(Arc::clone(unread));
        let held =
            Mutex::new(Held { bytes: VecDeque::new(), is_ended: false, has_more: false, wish: 0, account });
        Output { held, arrived: Notify::new(), taken: Notify::new() }
    }

    pub(super) fn ended(self: Arc<Self>) -> Arc<Self> {
        self.held().is_ended = true;
        self
    }

    pub(super) fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn read(&self, most: usize) -> Vec<u8> {
        let mut wish = None;
        loop {
            // Registered before the look, so that what arrives in between is noticed.
            let arrived = self.arrived.notified();
            {
                let mut held = self.held();
                if held.falls_short_of(most) {
                    // The pump stands still where nobody wants that much.
                    held.wish = held.wish.max(most);
                    if wish.is_none() {
                        wish = Some(Wish(self));
                    }
                    self.taken.notify_one();
                } else if let Some(chunk) = held.take(most) {
                    drop(held);
                    self.taken.notify_one();
                    // Another reader may find more.
                    self.arrived.notify_one();
                    return chunk;
                } else if held.is_ended {
                    drop(held);
                    self.arrived.notify_one();
                    return Vec::new();
                }
            }
            arrived.await;
        }
    }

    pub(super) async fn pump(self: Arc<Self>, fd: pipe::Receiver, mut exit: Exit, unread: Arc<Unread>) {
        let mut buffer = Vec::new();
        let (mut has_exited, mut has_large_pipe) = (false, false);
        loop {
            if !has_exited && exit.has_come() {
                has_exited = true;
                self.held().account.end();
                let this: Weak<Self> = Arc::downgrade(&self);
                unread.has_ended(this);
            }
            unread.settle();
            if self.held().is_ended {
                // Thrown away.
                break;
            }
            let room = if has_exited { BUFFER_AFTER_EXIT } else { unread.room() };
            if self.held().is_full(room) {
                tokio::select! {
                    biased;
                    // Either way the loop looks at both.
                    () = self.taken.notified() => {}
                    () = exit.come(), if !has_exited => {}
                }
                continue;
            }
            buffer.clear();
            buffer.reserve(CHUNK);
            match fd.try_read_buf(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let (is_enough, wish) = self.held().put(&mut buffer, count >= CHUNK);
                    if is_enough {
                        self.arrived.notify_one();
                    } else if wish > CHUNK && !has_large_pipe {
                        // The process can write that much before somebody has to read. Terminals, and users whose pipes have
                        // taken all that they may, keep what they have.
                        rustix::pipe::fcntl_setpipe_size(&fd, LARGE_PIPE).ok();
                        has_large_pipe = true;
                    }
                    // One busy stream must not keep the agent's only thread from the others.
                    tokio::task::yield_now().await;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.held().is_drained() {
                        self.arrived.notify_one();
                    }
                    // An idle process costs no buffer.
                    buffer = Vec::new();
                    if !has_exited {
                        tokio::select! {
                            biased;
                            // Either way the loop reads what there is.
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

/// A reader that waits for more than there is. It may give up, and must leave no wish behind.
struct Wish<'a>(&'a Output);

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.0.held().wish = 0;
        // Another reader may have had the same.
        self.0.arrived.notify_one();
    }
}

impl Left for Output {
    fn throw_away(&self) -> usize {
        let bytes = self.held().give_up().len();
        // The pump, if it still takes in, and a reader.
        self.taken.notify_one();
        self.arrived.notify_one();
        bytes
    }

    fn is_something(&self) -> bool {
        let held = self.held();
        !held.is_ended || !held.bytes.is_empty()
    }
}

impl Held {
    /// Takes bytes in. Tells whether a reader may have what is there now, and how much one wants.
    fn put(&mut self, bytes: &mut Vec<u8>, has_more: bool) -> (bool, usize) {
        if self.bytes.is_empty() && bytes.len() >= CHUNK / 2 {
            // As they are, without a copy.
            self.bytes = std::mem::take(bytes).into();
        } else {
            self.bytes.extend(&*bytes);
        }
        self.account.set(self.bytes.len());
        self.has_more = has_more;
        (!has_more || self.bytes.len() >= self.wish, self.wish)
    }

    /// Whether a reader of so much does better to wait: the pipe has more.
    fn falls_short_of(&self, most: usize) -> bool {
        self.has_more && !self.is_ended && self.bytes.len() < most
    }

    /// Whether the pump takes in no more for now.
    fn is_full(&self, room: usize) -> bool {
        self.bytes.len() >= room.max(self.wish)
    }

    /// Notes that the pipe has nothing more. Tells whether somebody may wait to hear that.
    fn is_drained(&mut self) -> bool {
        std::mem::take(&mut self.has_more)
    }

    /// Gives what is there up, and the rest of the output with it.
    fn give_up(&mut self) -> VecDeque<u8> {
        self.is_ended = true;
        self.account.set(0);
        std::mem::take(&mut self.bytes)
    }

    fn take(&mut self, most: usize) -> Option<Vec<u8>> {
        if self.bytes.is_empty() {
            return None;
        }
        self.wish = 0;
        let count = self.bytes.len().min(most.max(1));
        let taken = if count == self.bytes.len() {
            // As it is, without a copy, where it lies in one piece. And an idle process costs no buffer.
            Vec::from(std::mem::take(&mut self.bytes))
        } else {
            // Slices are copied at once, what is drained byte by byte.
            let mut taken = Vec::with_capacity(count);
            let (front, back) = self.bytes.as_slices();
            let of_front = count.min(front.len());
            taken.extend_from_slice(&front[..of_front]);
            taken.extend_from_slice(&back[..count - of_front]);
            drop(self.bytes.drain(..count));
            taken
        };
        self.account.set(self.bytes.len());
        Some(taken)
    }
}

/// Logs why an output ended, unless it is how a terminal says that its last user is gone.
pub(super) fn tell_read_error(error: &io::Error) {
    if error.raw_os_error() != Some(Errno::IO.raw_os_error()) {
        tracing::warn!(%error, "a process's output cannot be read");
    }
}
