//! Streams of a process that the host passed to the guest as vsock connections of their own (`agent.passfd_listener_port`).
//!
//! The host connects first, one connection for each stream, then names its own port of each in CreateContainer or
//! ExecProcess. [`Waiting`] keeps the connections until they are claimed; what nobody claims is closed after [`AGE`].
//! The process still has pipes or a terminal, never the socket, since `/dev/stdout` cannot be opened again on a socket;
//! tasks copy between the two.
//!
//! ```text
//!            connection      claimed by port          pipe or terminal
//!  host ────────────────► Waiting ──► feed  ───────────────────────────► stdin
//!  host ◄──────────────────────────── Drain ◄─────────────────────── stdout, stderr
//! ```
//!
//! Promises: an output ends as it does for callers of ReadStdout (see `stdio`); WaitProcess answers after what the process
//! itself wrote has been copied, but a host that does not read keeps it for [`STALL`] at most, and keeps memory and
//! descriptors for [`GIVE_UP`] at most; a host that hangs up neither kills nor stops the process, whose further output
//! is thrown away. Must never hold up anything but the one process whose stream it copies.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::input::{self, Input};
use super::output::{Exit, QUIET, tell_read_error};
use super::stream::StreamError;
use crate::config::Cid;
use crate::error::{ErrorKind, Kind};
use crate::listen;

/// How long a request waits for connections that it names: they were made before it, so this is for a busy guest.
const CLAIM: Duration = Duration::from_secs(2);
/// How long a connection may go unclaimed.
const AGE: Duration = Duration::from_secs(15);
/// Connections that wait at most; the oldest make room.
const MOST: usize = 192;
/// Bytes that are copied at once.
const CHUNK: usize = 2 * listen::LARGEST_WRITE;
/// How long the host may leave the output of an ended process unread before WaitProcess answers all the same.
const STALL: Duration = Duration::from_secs(5);
/// How long the host may leave it unread before it is thrown away.
const GIVE_UP: Duration = Duration::from_secs(60);
/// How long a stdin that CloseStdin closes must have been silent: bytes sent before the call may still be on their way.
const SILENCE: Duration = Duration::from_millis(200);
/// Most that a terminal can hold for its reader (`TTYB_DEFAULT_MEM_LIMIT` of Linux 6.12).
const TERMINAL_BUFFER: u64 = 640 * 1024;

/// Why streams could not be passed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PassfdError {
    /// One connection cannot be two streams.
    #[error("port {0} is named for two streams")]
    Twice(NonZeroU32),
    /// Nobody listens for connections.
    #[error("stream over port {0}: agent.passfd_listener_port is not set")]
    Off(NonZeroU32),
    /// The host did not connect, or another process has the connection.
    #[error("stream over port {0}: no such connection waits; was it made, and not claimed before?")]
    Absent(NonZeroU32),
}

impl Kind for PassfdError {
    fn kind(&self) -> ErrorKind {
        match self {
            PassfdError::Twice(_) => ErrorKind::Invalid,
            PassfdError::Off(_) | PassfdError::Absent(_) => ErrorKind::State,
        }
    }
}

/// Ports of the host from which stdin, stdout and stderr come; none for a stream that the API serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ports([Option<NonZeroU32>; 3]);

impl Ports {
    /// Ports as requests have them, 0 for none.
    pub(crate) fn parse(ports: [u32; 3]) -> Result<Ports, PassfdError> {
        let ports = ports.map(NonZeroU32::new);
        let given: Vec<NonZeroU32> = ports.into_iter().flatten().collect();
        match given.iter().enumerate().find(|(at, port)| given[..*at].contains(port)) {
            Some((_, port)) => Err(PassfdError::Twice(*port)),
            None => Ok(Ports(ports)),
        }
    }
}

/// A connection of the host's.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// See [`Connection`].
pub(crate) type Peer = Box<dyn Connection>;

/// The connections of one process.
#[derive(Default)]
pub(crate) struct Claimed {
    pub(super) stdin: Option<Peer>,
    pub(super) stdout: Option<Peer>,
    pub(super) stderr: Option<Peer>,
    /// Whether the process is a container's first, which must not end because its host was exchanged.
    pub(crate) is_init: bool,
}

/// Connections that nobody has claimed yet.
#[derive(Default)]
pub(crate) struct Waiting {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Default)]
struct Queue {
    is_open: bool,
    /// By the host's port: the connection, and when it came.
    peers: BTreeMap<u32, (Peer, Instant)>,
}

impl Waiting {
    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that connections will come. Until then every claim is refused at once.
    pub(crate) fn open(&self) {
        self.queue().is_open = true;
    }

    /// Keeps a connection. One with the same port is older and dead; the oldest of too many has to go.
    pub(crate) fn put(&self, port: u32, peer: Peer) {
        let mut queue = self.queue();
        queue.peers.insert(port, (peer, Instant::now()));
        if queue.peers.len() > MOST {
            let oldest = queue.peers.iter().min_by_key(|(_, (_, since))| *since).map(|(port, _)| *port);
            if let Some(port) = oldest {
                queue.peers.remove(&port);
                tracing::warn!(port, most = MOST, "too many streams are unclaimed, closed the oldest");
            }
        }
        drop(queue);
        self.arrived.notify_waiters();
    }

    /// Closes what has waited too long, and tells when to look again; none while nothing waits.
    pub(crate) fn sweep(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut queue = self.queue();
        queue.peers.retain(|port, (_, since)| {
            let is_young = now < *since + AGE;
            if !is_young {
                tracing::warn!(port, "closed a stream that nobody claimed");
            }
            is_young
        });
        queue.peers.values().map(|(_, since)| *since + AGE).min()
    }

    /// Takes the connections of these ports, all or none: what a refused claim leaves can still be claimed.
    pub(crate) async fn claim(&self, ports: Ports) -> Result<Claimed, PassfdError> {
        let deadline = Instant::now() + CLAIM;
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            // Registered before the look, so that what arrives in between is noticed.
            arrived.as_mut().enable();
            let missing = match self.take(ports) {
                Ok(claimed) => return Ok(claimed),
                Err(error @ PassfdError::Absent(_)) => error,
                Err(error) => return Err(error),
            };
            if tokio::time::timeout_at(deadline, arrived).await.is_err() {
                return Err(missing);
            }
        }
    }

    fn take(&self, Ports(ports): Ports) -> Result<Claimed, PassfdError> {
        let mut queue = self.queue();
        for port in ports.into_iter().flatten() {
            if !queue.is_open {
                return Err(PassfdError::Off(port));
            }
            if !queue.peers.contains_key(&port.get()) {
                return Err(PassfdError::Absent(port));
            }
        }
        let mut take = |port: Option<NonZeroU32>| Some(queue.peers.remove(&port?.get())?.0);
        let [stdin, stdout, stderr] = ports.map(&mut take);
        Ok(Claimed { stdin, stdout, stderr, is_init: false })
    }
}

/// Listens on a vsock port and keeps the connections that the host makes. Listens when this returns.
pub(crate) fn serve(waiting: &Arc<Waiting>, port: u32, watcher: listen::Watcher) -> io::Result<()> {
    let connections = listen::vsock(Cid::Any, port, Some(watcher))?;
    let waiting = Arc::clone(waiting);
    waiting.open();
    tokio::spawn(async move {
        let mut connections = std::pin::pin!(connections);
        loop {
            let oldest = waiting.sweep();
            let due = async {
                match oldest {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // First: however many connections come, each round looks for those that are due.
                connection = connections.next() => match connection {
                    Some(Ok(stream)) => waiting.put(stream.peer_port(), Box::new(stream)),
                    Some(Err(error)) => tracing::warn!(%error, "cannot accept a stream"),
                    None => return,
                },
                () = due => {}
            }
        }
    });
    Ok(())
}

/// Copies one output to the host until it ends.
pub(super) struct Drain {
    fd: pipe::Receiver,
    /// None once the host is gone: the rest is thrown away.
    peer: Option<Peer>,
    /// The host has ended its half of the connection.
    has_heard_all: bool,
    exit: Exit,
    /// Bytes that the process has left behind and that are not copied yet. None while it lives.
    owed: Option<u64>,
    is_terminal: bool,
    /// Told when WaitProcess may answer.
    copied: watch::Sender<bool>,
}

impl Drain {
    /// Starts to copy. What it gives becomes true when WaitProcess may answer.
    pub(super) fn start(
        fd: pipe::Receiver,
        peer: Peer,
        exit: Exit,
        is_terminal: bool,
    ) -> watch::Receiver<bool> {
        let (copied, watcher) = watch::channel(false);
        tokio::spawn(
            Drain { fd, peer: Some(peer), has_heard_all: false, exit, owed: None, is_terminal, copied }.run(),
        );
        watcher
    }

    async fn run(mut self) {
        let mut buffer = Vec::new();
        loop {
            self.notice_exit();
            buffer.clear();
            buffer.reserve(CHUNK);
            match self.fd.try_read_buf(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {
                    self.put(&buffer).await;
                    self.settle(buffer.len() as u64);
                    // One busy stream must not keep the agent's only thread from the others.
                    tokio::task::yield_now().await;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // An idle process costs no buffer.
                    buffer = Vec::new();
                    if !self.more().await {
                        break;
                    }
                }
                Err(error) => {
                    tell_read_error(&error);
                    break;
                }
            }
        }
        self.copied.send_replace(true);
    }

    fn notice_exit(&mut self) {
        if self.owed.is_none() && self.exit.has_come() {
            // All that the process wrote is in the pipe by now. A grandchild may add to it for ever.
            self.owed = Some(match self.is_terminal {
                true => TERMINAL_BUFFER,
                false => rustix::io::ioctl_fionread(&self.fd).unwrap_or(0),
            });
            self.settle(0);
        }
    }

    fn settle(&mut self, count: u64) {
        if let Some(owed) = &mut self.owed {
            *owed = owed.saturating_sub(count);
            if *owed == 0 {
                self.copied.send_replace(true);
            }
        }
    }

    /// Waits for more to read, or for the end of the process. False when there will be no more.
    async fn more(&mut self) -> bool {
        if self.owed.is_some() {
            return tokio::time::timeout(QUIET, self.fd.readable()).await.is_ok();
        }
        tokio::select! {
            biased;
            _ = self.fd.readable() => {}
            () = self.exit.come() => {}
            () = hear(&mut self.peer, &mut self.has_heard_all) => {}
        }
        true
    }

    /// Writes to the host as long as it is there.
    async fn put(&mut self, mut data: &[u8]) {
        let mut stalled = Duration::ZERO;
        while let Some(peer) = &mut self.peer
            && !data.is_empty()
        {
            let stall = async {
                self.exit.come().await;
                tokio::time::sleep(STALL).await;
            };
            tokio::select! {
                biased;
                // What the host has taken is progress, also when its time is over.
                written = peer.write(data) => match written {
                    Ok(count) if count > 0 => {
                        data = &data[count..];
                        stalled = Duration::ZERO;
                    }
                    Ok(_) => self.peer = None,
                    Err(error) => {
                        tracing::debug!(%error, "the host hung up on an output");
                        self.peer = None;
                    }
                },
                () = stall => {
                    self.copied.send_replace(true);
                    stalled += STALL;
                    if stalled >= GIVE_UP {
                        tracing::warn!(bytes = data.len(), "the host does not read an ended process's output");
                        self.peer = None;
                    }
                }
            }
        }
    }
}

/// Lets go of the connection of an idle output once it was reset. What the host sends over it means nothing.
async fn hear(peer: &mut Option<Peer>, has_heard_all: &mut bool) {
    let Some(host) = peer.as_mut().filter(|_| !*has_heard_all) else { return std::future::pending().await };
    match host.read(&mut [0; 64]).await {
        Ok(count) => *has_heard_all = count == 0,
        Err(error) => {
            tracing::debug!(%error, "the connection of an output is gone");
            *peer = None;
        }
    }
}

/// What is to become of a process's stdin when its connection does not go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stdin {
    /// A terminal stays as it is: somebody else may attach to it.
    pub(super) is_terminal: bool,
    /// The stdin of a container's first process stays open after a reset, which is no host that hangs up but a machine that
    /// goes on from a snapshot: the end of its input would be the end of many such processes.
    pub(super) is_init: bool,
}

/// Copies from the host to stdin. The connection's end closes a pipe. `inputs` has what callers ask for; they may write
/// once `is_passed` is false, after a reset that stdin has outlived.
pub(super) async fn feed(
    fd: pipe::Sender,
    peer: Peer,
    mut inputs: mpsc::Receiver<Input>,
    Stdin { is_terminal, is_init }: Stdin,
    is_passed: Arc<AtomicBool>,
    mut exit: Exit,
) {
    let mut peer = Some(peer);
    let mut is_closing = false;
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        buffer.clear();
        let arrival = async {
            match &mut peer {
                Some(peer) => peer.read_buf(&mut buffer).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Nobody can read any more.
            () = exit.come() => return,
            // Before the connection: a host that sends without end must not keep callers from an answer.
            input = inputs.recv() => match input {
                Some(Input::Close) => is_closing = true,
                Some(Input::Data(_, reply)) => drop(reply.send(Err(StreamError::Passed("stdin")))),
                None => return,
            },
            count = arrival => match count {
                Ok(1..) => tokio::select! {
                    biased;
                    written = input::write_all(&fd, &buffer) => if written.is_err() {
                        // The process closed its end; so does the connection, for the host to know.
                        return;
                    },
                    () = exit.come() => return,
                },
                Err(error)
                    if (is_init || is_terminal) && listen::is_reset(&error) =>
                {
                    drop(peer);
                    is_passed.store(false, Ordering::Relaxed);
                    return input::feed(fd, inputs, is_terminal, exit).await;
                }
                _ if is_terminal => peer = None,
                _ => return,
            },
            () = tokio::time::sleep(SILENCE), if is_closing => {
                if !is_terminal {
                    return;
                }
                input::type_end_of_file(&fd).await;
                is_closing = false;
            }
        }
    }
}

#[cfg(test)]
#[path = "passfd_test.rs"]
mod tests;
