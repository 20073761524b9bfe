//! Processes of containers: their identity, their end and their streams.
//!
//! [`reaper`] holds the only `waitpid` of the agent; [`launch`] makes processes through the forker; [`stdio`] moves
//! bytes between a process and whoever asks for them, [`passfd`] between it and connections that the host passed;
//! [`command`] runs helper programs of the guest.

pub(crate) mod command;
mod input;
pub(crate) mod launch;
mod output;
pub(crate) mod passfd;
pub(crate) mod reaper;
pub(crate) mod stdio;
mod stream;
mod table;
pub(crate) mod unread;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

pub(crate) use table::ProcessTable;

use crate::error::{ErrorKind, Kind};
use stdio::Stdio;

/// Why something could not be done with a process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// The process has ended. The words are what shims look for.
    #[error("process {0} is gone: ESRCH: No such process")]
    Gone(String),
    /// No such process was ever started, or it was forgotten.
    // COMPAT(kata): `a_process_that_never_was_is_gone_in_the_words_shims_look_for`. They take it for a process that is
    // gone, which is what they want of a kill.
    #[error("process not found: {0} (ESRCH: No such process)")]
    Unknown(String),
    /// An exec id that is in use.
    #[error("process {0} exists already")]
    Exists(String),
    /// Not a signal of Linux.
    #[error("{0} is not a signal")]
    NotASignal(u32),
    /// The kernel refused a signal.
    #[error("send signal {signal} to process {id}")]
    Signal {
        /// Exec id.
        id: String,
        /// Signal number.
        signal: u32,
        /// Why.
        source: std::io::Error,
    },
}

impl Kind for ProcessError {
    fn kind(&self) -> ErrorKind {
        match self {
            ProcessError::Gone(_) | ProcessError::Unknown(_) => ErrorKind::NotFound,
            ProcessError::Exists(_) => ErrorKind::Exists,
            ProcessError::NotASignal(_) => ErrorKind::Invalid,
            ProcessError::Signal { .. } => ErrorKind::Internal,
        }
    }
}

/// A started process.
#[derive(Debug)]
pub(crate) struct Process {
    id: String,
    pid: i32,
    /// Present while it lives.
    pidfd: Mutex<Option<OwnedFd>>,
    exit: watch::Receiver<Option<i32>>,
    waited: AtomicBool,
    /// Its streams.
    pub(crate) stdio: Stdio,
}

impl Process {
    pub(crate) fn new(
        id: String,
        pid: i32,
        pidfd: OwnedFd,
        exit: watch::Receiver<Option<i32>>,
        stdio: Stdio,
    ) -> Process {
        Process { id, pid, pidfd: Mutex::new(Some(pidfd)), exit, waited: AtomicBool::new(false), stdio }
    }

    /// Closes what only a living process needs, as soon as it ends: its status may be kept for days.
    pub(crate) fn release_at_exit(self: &Arc<Self>) {
        let process = Arc::clone(self);
        tokio::spawn(async move {
            // An error means that its end will never be known; its descriptors are of no use then either.
            drop(process.exit.clone().wait_for(Option::is_some).await.map(drop));
            *process.pidfd() = None;
            process.stdio.release_terminal();
        });
    }

    fn pidfd(&self) -> std::sync::MutexGuard<'_, Option<OwnedFd>> {
        self.pidfd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Process id in the guest. Only for reading `/proc`: signals go through the pidfd.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Exit status, once it has ended: its own, or 128 and the number of the signal that killed it.
    pub(crate) fn exited(&self) -> Option<i32> {
        *self.exit.borrow()
    }

    /// Waits for the end. Any number of callers, before or after it, get the same status.
    pub(crate) async fn wait(&self) -> Result<i32, ProcessError> {
        let status = self.end().await?;
        // COMPAT(kata): `sixty_four_mebibytes_have_arrived_when_the_wait_ends`. runtime-rs waits for nothing but this.
        self.stdio.copied().await;
        self.waited.store(true, Ordering::Relaxed);
        Ok(status)
    }

    /// Waits for the end of the process alone, whatever its output does.
    pub(crate) async fn end(&self) -> Result<i32, ProcessError> {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        status.ok_or_else(|| ProcessError::Gone(self.id.clone()))
    }

    /// Whether its end has been told to somebody, so that it may be forgotten.
    pub(crate) fn is_collected(&self) -> bool {
        self.waited.load(Ordering::Relaxed) && self.exited().is_some()
    }

    /// Sends a signal; 0 probes.
    pub(crate) fn signal(&self, signal: u32) -> Result<(), ProcessError> {
        use std::os::fd::AsFd as _;
        if !rustjail::signal_is_valid(signal) {
            return Err(ProcessError::NotASignal(signal));
        }
        let pidfd = self.pidfd();
        let Some(pidfd) = pidfd.as_ref() else { return Err(ProcessError::Gone(self.id.clone())) };
        match rustjail::pidfd_signal(pidfd.as_fd(), signal as i32) {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {
                Err(ProcessError::Gone(self.id.clone()))
            }
            Err(source) => Err(ProcessError::Signal { id: self.id.clone(), signal, source }),
        }
    }

    /// Whether SIGTERM would do nothing at all: a container's first process is pid 1 of its namespace, which the kernel
    /// shields from signals it has no handler for (`pid_namespaces(7)`).
    pub(crate) fn is_deaf_to_term(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/status", self.pid))
            .is_ok_and(|status| is_unhandled(&status, nix::libc::SIGTERM as u32))
    }
}

/// Whether a signal is in none of the blocked, ignored and caught sets of a `/proc/PID/status`.
fn is_unhandled(status: &str, signal: u32) -> bool {
    let bit = 1u64 << (signal - 1);
    ["SigBlk:", "SigIgn:", "SigCgt:"].iter().all(|set| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(set))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask & bit == 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_unhandled_only_if_no_set_has_it() {
        let status = |blocked: &str, caught: &str| {
            format!("Name:\tx\nSigBlk:\t{blocked}\nSigIgn:\t0000000000000000\nSigCgt:\t{caught}\n")
        };
        assert!(is_unhandled(&status("0000000000000000", "0000000000000001"), 15));
        assert!(!is_unhandled(&status("0000000000004000", "0000000000000000"), 15));
        assert!(!is_unhandled(&status("0000000000000000", "0000000000004000"), 15));
        assert!(!is_unhandled("", 15));
    }
}
