//! Signals for the container, and for who started it.

use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};

/// Signals that are not ours: they wait until they can be passed on.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Takes the signals by which people end a program.
    pub(crate) fn take() -> Result<Signals> {
        let set: SigSet =
            [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
        set.thread_block().context("hold signals back")?;
        Ok(Signals(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).context("wait for signals")?))
    }

    /// Passes signals on until the process ends. The second one kills it: the first process of a pid namespace does not
    /// hear a signal that it does not handle (`pid_namespaces(7)`).
    pub(crate) fn pass_on(&self, process: BorrowedFd<'_>) -> Result<()> {
        const SIGKILL: i32 = 9;
        let mut has_come = false;
        loop {
            let mut ready = [
                PollFd::from_borrowed_fd(process, PollFlags::IN),
                PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN),
            ];
            match poll(&mut ready, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno).context("wait for the container"),
            }
            if !ready[0].revents().is_empty() {
                return Ok(());
            }
            if let Some(signal) = self.0.read_signal().context("read a signal")? {
                let number = if has_come { SIGKILL } else { i32::try_from(signal.ssi_signo)? };
                has_come = true;
                match rustjail::pidfd_signal(process, number) {
                    // It has just ended.
                    Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
                    sent => sent.context("pass a signal on")?,
                }
            }
        }
    }
}
