//! The only `waitpid` in the agent.
//!
//! PID 1 is every orphan's parent, so all children are waited for, known or not; the status of a known one is published
//! to whoever watches it. Nothing else in the agent may wait for a child: it would take statuses away from here.

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    watched: HashMap<i32, watch::Sender<Option<i32>>>,
    /// Ends of children nobody had registered yet, newest last.
    unclaimed: VecDeque<(i32, i32)>,
}

/// How many unclaimed ends are remembered: a child can only be registered moments after its clone.
const UNCLAIMED: usize = 32;

impl Reaper {
    /// Starts to watch a child. Its end is published even if it came before this call: `pidfd` tells a child that has
    /// been reaped from an older one that had the same pid.
    pub(crate) fn register(&self, pid: i32, pidfd: BorrowedFd<'_>) -> watch::Receiver<Option<i32>> {
        let mut table = self.table();
        let is_reaped = rustjail::pidfd_signal(pidfd, 0).is_err();
        let early = table.unclaimed.iter().rposition(|(other, _)| *other == pid);
        let early = early.and_then(|at| table.unclaimed.remove(at)).filter(|_| is_reaped);
        let (sender, receiver) = watch::channel(early.map(|(_, status)| status));
        if early.is_none() {
            table.watched.insert(pid, sender);
        }
        receiver
    }

    /// Reaps for ever. Spawn once.
    pub(crate) async fn run(self: Arc<Self>) -> std::io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        loop {
            self.reap();
            if children.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    /// Collects every child that has ended.
    fn reap(&self) {
        loop {
            // Under the lock, so that a registration sees either the watched pid or the unclaimed end.
            let mut table = self.table();
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(errno) => {
                    tracing::error!(%errno, "cannot wait for children");
                    return;
                }
            };
            match table.watched.remove(&pid) {
                Some(watcher) => {
                    // Nobody may be left who wants to know.
                    watcher.send_replace(Some(status));
                }
                None => {
                    table.unclaimed.push_back((pid, status));
                    if table.unclaimed.len() > UNCLAIMED {
                        table.unclaimed.pop_front();
                    }
                    tracing::debug!(pid, status, "reaped an orphan");
                }
            }
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        // The table is consistent at every point where a panic could come.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
