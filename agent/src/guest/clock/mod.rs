//! The guest's clock: set by the host, and kept right by a thread of the agent.
//!
//! Promises that the real-time clock stays within 100 ms of the host's where the machine has a [`source`] of time that
//! goes on while the machine is stopped, without a daemon beside. Elsewhere it is what SetGuestDateTime made it.

mod correction;
mod source;

use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::Duration;

use correction::{Correction, correct};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::error::{ErrorKind, Kind};

/// Why the clock could not be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClockError {
    /// Not a time.
    #[error("{seconds} s and {microseconds} us are not a time after 1970")]
    Invalid {
        /// Seconds since 1970.
        seconds: i64,
        /// Microseconds on top of them.
        microseconds: i64,
    },
    /// The kernel refused.
    #[error("set the clock")]
    Set(#[source] std::io::Error),
}

impl Kind for ClockError {
    fn kind(&self) -> ErrorKind {
        match self {
            ClockError::Invalid { .. } => ErrorKind::Invalid,
            // A time that the kernel cannot count up to.
            ClockError::Set(source) if source.kind() == std::io::ErrorKind::InvalidInput => {
                ErrorKind::Invalid
            }
            ClockError::Set(_) => ErrorKind::Internal,
        }
    }
}

/// Before the first look: a guest that starts has better things to do.
const SETTLE: Duration = Duration::from_secs(1);

/// The clock. Cheap to ask, for the work is a thread's.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Tells the keeper that the clock was set.
    was_set: SyncSender<()>,
}

impl Clock {
    /// Starts to keep the clock, if this machine has a source. `is_ours` says whether the clock is the agent's to set: as
    /// PID 1 it is, on a host it is not.
    pub(crate) fn keep(is_ours: bool) -> Clock {
        let (was_set, told) = mpsc::sync_channel(1);
        // Opened at once, so that the agent holds what it will hold from the beginning.
        let source = if is_ours { source::Source::find() } else { None };
        if is_ours && source.is_none() {
            tracing::info!("this machine has no source of time: the clock is what the host sets it to");
        }
        if let Some(source) = source {
            let thread = std::thread::Builder::new().name("clock".into());
            if let Err(error) = thread.spawn(move || keep(source, &told)) {
                tracing::error!(%error, "the clock is not kept");
            }
        }
        Clock { was_set }
    }

    /// Sets the real-time clock of the kernel (`clock_settime(2)`).
    pub(crate) fn set(&self, seconds: i64, microseconds: i64) -> Result<(), ClockError> {
        if !(1..=LATEST).contains(&seconds) || !(0..1_000_000).contains(&microseconds) {
            return Err(ClockError::Invalid { seconds, microseconds });
        }
        set_to(TimeSpec::new(seconds, microseconds * 1000))?;
        // One message is enough, and a keeper that is gone needs none.
        self.was_set.try_send(()).or(Ok(()))
    }
}

/// The latest second that the kernel takes: its nanoseconds fit 64 bits for 30 years of running on
/// (include/linux/time64.h, `TIME_SETTOD_SEC_MAX`).
const LATEST: i64 = i64::MAX / 1_000_000_000 - 30 * 365 * 24 * 3600;

fn set_to(time: TimeSpec) -> Result<(), ClockError> {
    clock_settime(ClockId::CLOCK_REALTIME, time).map_err(|errno| ClockError::Set(errno.into()))
}

/// Looks at the source for ever, and corrects what it shows.
fn keep(mut source: source::Source, told: &mpsc::Receiver<()>) {
    std::thread::sleep(SETTLE);
    tracing::debug!(source = source.name(), "keeping the clock");
    loop {
        let looked = source.look();
        // What the host has set meanwhile is right, whatever the look says.
        match told.try_recv() {
            Ok(()) => {
                source.relearn();
                continue;
            }
            Err(mpsc::TryRecvError::Disconnected) => return,
            Err(mpsc::TryRecvError::Empty) => {}
        }
        match looked {
            Ok(Some(look)) => apply(correct(look.offset, look.uncertainty)),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, source = source.name(), "the clock is no longer kept");
                return;
            }
        }
        match told.recv_timeout(source.period()) {
            Ok(()) => source.relearn(),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn apply(correction: Correction) {
    let done = match correction {
        Correction::None => Ok(()),
        Correction::Slew(by) => crate::sys::clock::slew(by / 1000).map_err(ClockError::Set),
        Correction::Step(by) => {
            let right = source::guest_now().saturating_add(by);
            let (seconds, rest) = (right.div_euclid(1_000_000_000), right.rem_euclid(1_000_000_000));
            tracing::info!(milliseconds = by / 1_000_000, "the clock was wrong and is stepped");
            set_to(TimeSpec::new(seconds, rest))
        }
    };
    if let Err(error) = done {
        tracing::error!(error = %crate::error::chain(&error), "the clock is not corrected");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_time_is_refused() {
        let clock = Clock::keep(false);
        for (seconds, microseconds) in
            [(0, 0), (-1, 0), (1, -1), (1, 1_000_000), (i64::MAX, 0), (LATEST + 1, 0)]
        {
            assert_eq!(clock.set(seconds, microseconds).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
