//! The only `waitpid` in the agent.
//!
//! PID 1 is every orphan's parent, so all children are waited for, known or not; the status of a known one is published
//! to whoever watches it. Nothing else in the agent may wait for a child: it would take statuses away from here.

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    watched: HashMap<i32, Watched>,
    /// Ends of children nobody had registered yet, newest last.
    unclaimed: VecDeque<(i32, WaitStatus)>,
}

#[derive(Debug)]
struct Watched {
    told: watch::Sender<Option<i32>>,
    cause: Cause,
}

/// Why a child ended, once it has: set before its status is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cause(Arc<OnceLock<WaitStatus>>);

impl Cause {
    /// The signal that killed it, and whether it left a core; none if it ended by itself, or lives.
    #[cfg_attr(
        not(feature = "sandbox-api"),
        allow(dead_code, reason = "only the sandbox API tells them apart")
    )]
    pub(crate) fn signal(&self) -> Option<(i32, bool)> {
        /// `WCOREDUMP` of `wait(2)`.
        const CORE: u32 = 0x80;
        let status = self.0.get()?;
        Some((status.terminating_signal()?, status.as_raw() as u32 & CORE != 0))
    }
}

/// Also children whose end is told by another signal than SIGCHLD, or by none (`waitpid(2)`).
const WALL: WaitOptions = WaitOptions::from_bits_retain(0x4000_0000);

/// How many unclaimed ends are remembered: a child can only be registered moments after its clone.
const UNCLAIMED: usize = 32;

impl Reaper {
    /// Starts to watch a child, whatever it ends of.
    #[cfg(test)]
    fn register(&self, pid: i32, pidfd: BorrowedFd<'_>) -> watch::Receiver<Option<i32>> {
        self.register_with(pid, pidfd, Cause::default())
    }

    /// Starts to watch a child. Its end is published even if it came before this call: `pidfd` tells a child that has
    /// been reaped from an older one that had the same pid. Why it ended is put into `cause`.
    pub(crate) fn register_with(
        &self,
        pid: i32,
        pidfd: BorrowedFd<'_>,
        cause: Cause,
    ) -> watch::Receiver<Option<i32>> {
        let mut table = self.table();
        let is_reaped = rustjail::pidfd_signal(pidfd, 0).is_err();
        let early = table.unclaimed.iter().rposition(|(other, _)| *other == pid);
        let early = early.and_then(|at| table.unclaimed.remove(at)).filter(|_| is_reaped);
        let (told, receiver) = watch::channel(early.and_then(|(_, status)| exit_status(status)));
        match early {
            Some((_, status)) => {
                cause.0.get_or_init(|| status);
            }
            None => drop(table.watched.insert(pid, Watched { told, cause })),
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
            let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG | WALL) {
                Ok(Some((pid, status))) => (pid.as_raw_nonzero().get(), status),
                Ok(None) | Err(Errno::CHILD) => return,
                Err(Errno::INTR) => continue,
                Err(errno) => {
                    tracing::error!(%errno, "cannot wait for children");
                    return;
                }
            };
            // Somebody who traces it is told of stops; no end has come.
            let Some(told) = exit_status(status) else { continue };
            match table.watched.remove(&pid) {
                Some(watcher) => {
                    // It ends once.
                    watcher.cause.0.get_or_init(|| status);
                    // Nobody may be left who wants to know.
                    watcher.told.send_replace(Some(told));
                }
                None => {
                    table.unclaimed.push_back((pid, status));
                    if table.unclaimed.len() > UNCLAIMED {
                        table.unclaimed.pop_front();
                    }
                    tracing::debug!(pid, status = told, "reaped an orphan");
                }
            }
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        // The table is consistent at every point where a panic could come.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The status that the agent tells: the process's own, or 128 and the number of the signal that killed it. None while it
/// lives. Every signal has a number, though those from 32 on have no name (`signal(7)`, "Real-time signals").
fn exit_status(status: WaitStatus) -> Option<i32> {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::process::{Child, Command};

    use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

    /// Signals that stop a process, and those that do nothing unless somebody asked for them (`signal(7)`).
    const STOP: [i32; 4] = [19, 20, 21, 22];
    const IGNORED: [i32; 4] = [17, 18, 23, 28];
    /// The C library's own: it leaves them ignored in what it spawns.
    const RESERVED: [i32; 2] = [32, 33];

    fn pid(child: &Child) -> Pid {
        Pid::from_child(child)
    }

    #[expect(clippy::zombie_processes, reason = "the reaper waits for it")]
    fn spawn(reaper: &Reaper, script: &str) -> (Pid, watch::Receiver<Option<i32>>) {
        let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        let pidfd = pidfd_open(pid(&child), PidfdFlags::empty()).unwrap();
        (pid(&child), reaper.register(pid(&child).as_raw_nonzero().get(), std::os::fd::AsFd::as_fd(&pidfd)))
    }

    /// Reaps until all have ended.
    fn statuses<K: Ord + Copy>(
        reaper: &Reaper,
        watched: &BTreeMap<K, watch::Receiver<Option<i32>>>,
    ) -> BTreeMap<K, i32> {
        for _ in 0..3000 {
            reaper.reap();
            if watched.values().all(|exit| exit.borrow().is_some()) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        watched.iter().filter_map(|(key, exit)| Some((*key, (*exit.borrow())?))).collect()
    }

    // One test: whoever reaps takes all children of the process.
    #[test]
    fn every_end_has_its_status() {
        let reaper = Reaper::default();
        let mut stopped = Vec::new();
        let signals: BTreeMap<i32, _> = (1..=64)
            .map(|signal| {
                // A shell that is not ended by it says so by 77.
                let script = format!("ulimit -c 0; kill -{signal} $$; exit 77");
                let (pid, exit) = spawn(&reaper, &script);
                if STOP.contains(&signal) {
                    stopped.push(pid);
                }
                (signal, exit)
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(300));
        reaper.reap();
        for signal in STOP {
            assert_eq!(*signals[&signal].borrow(), None, "signal {signal} ends nothing");
        }
        // A stop may come yet on a busy machine; then this kill is what ends it.
        for pid in stopped {
            kill_process(pid, Signal::KILL).unwrap();
        }
        for (signal, status) in statuses(&reaper, &signals) {
            let expected = match signal {
                _ if STOP.contains(&signal) => 128 + 9,
                _ if IGNORED.contains(&signal) || RESERVED.contains(&signal) => 77,
                _ => 128 + signal,
            };
            assert_eq!(status, expected, "signal {signal}");
        }
        let codes: BTreeMap<i32, _> =
            (0..=255).map(|code| (code, spawn(&reaper, &format!("exit {code}")).1)).collect();
        let ends = statuses(&reaper, &codes);
        assert_eq!(ends.len(), 256);
        assert!(ends.iter().all(|(code, status)| code == status), "{ends:?}");
        assert_eq!(statuses(&reaper, &signals).len(), 64, "an end was lost");
    }
}
