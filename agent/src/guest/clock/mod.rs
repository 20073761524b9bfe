//! The guest's clock: set by the host, and kept right by a thread of the agent, also when the machine goes on from a
//! snapshot.
//!
//! Promises that the real-time clock stays within 100 ms of what the host's clock or SetGuestDateTime made it, where the
//! machine has a [`source`] of time that goes on while the machine does not. Elsewhere it is what SetGuestDateTime made it,
//! and stands still with the machine. What the host has set is never undone ([`keeper`]).
//!
//! ```text
//!  kernel's log ── new generation id ──┐
//!  connections  ── all reset at once ──┼──► thread "clock" ── clock right, generator stirred, noted and counted
//!  a sleep that was too long ──────────┘         │
//!                                                └─ every few seconds: a close look at the source
//!  a connection of the host ──► a glance at the source, before it is answered
//! ```
//!
//! Whatever sign of a restore there is, the clock is set, if only by a microsecond: so each program of a container that waits
//! with TFD_TIMER_CANCEL_ON_SET (timerfd_create(2)) learns of it.

mod correction;
mod keeper;
mod signs;
mod source;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use correction::Correction;
use keeper::Keeper;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use signs::{Bell, Ear, Signs};
use source::Source;

use crate::error::{ErrorKind, Kind, chain};
use crate::guest::random;
use crate::listen::{Sign, Watcher};
use crate::sys;

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

/// Before the first close look: a guest that starts has better things to do.
const SETTLE: Duration = Duration::from_secs(1);
/// Connections that break within this time of one another are told of once.
const TOGETHER: Duration = Duration::from_secs(1);

/// How often what has happened, since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Restores {
    /// The machine got a new generation id: it is a restored copy.
    pub(crate) forked: u64,
    /// The host's vsock device ended all connections: the machine was saved, restored or moved.
    pub(crate) reset: u64,
    /// The machine's clocks jumped.
    pub(crate) still: u64,
    /// The agent made the real-time clock jump to the right time.
    pub(crate) stepped: u64,
}

/// The clock. Clones are handles to the same.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Shared>);

struct Shared {
    source: Option<Box<dyn Source>>,
    /// Wakes the thread, if there is one.
    bell: Option<Bell>,
    state: Mutex<State>,
}

struct State {
    keeper: Keeper,
    /// How often the host has set the clock: a look from before that says nothing any more.
    sets: u64,
    /// What the thread has still to hear of.
    signs: Signs,
    /// When connections last broke.
    broke: Option<Instant>,
    restores: Restores,
}

impl Clock {
    /// Starts to keep the clock, if this machine has a source, and to watch for restores. `is_ours` says whether the clock is
    /// the agent's to set: as PID 1 it is, on a host it is not.
    pub(crate) fn keep(is_ours: bool) -> Clock {
        // Opened at once, so that the agent holds what it will hold from the beginning.
        let source = if is_ours { source::find() } else { None };
        if is_ours && source.is_none() {
            tracing::info!("this machine has no source of time: the clock is what the host sets it to");
        }
        let failed = |error: io::Error| tracing::error!(%error, "the clock is not kept");
        let bell = if is_ours { Bell::new().map_err(failed).ok() } else { None };
        let shared = Arc::new(Shared::new(source, bell));
        if shared.bell.is_some() {
            let (ear, keeper) = (Ear::open(), Arc::clone(&shared));
            let thread = std::thread::Builder::new().name("clock".into());
            drop(thread.spawn(move || keep(&keeper, ear)).map_err(failed));
        }
        Clock(shared)
    }

    /// Sets the real-time clock of the kernel (`clock_settime(2)`). It stays what it was set to: from now on the time is
    /// this one, as long as the source counts it on.
    pub(crate) fn set(&self, seconds: i64, microseconds: i64) -> Result<(), ClockError> {
        if !(1..=LATEST).contains(&seconds) || !(0..1_000_000).contains(&microseconds) {
            return Err(ClockError::Invalid { seconds, microseconds });
        }
        let mut state = self.0.lock();
        set_to(TimeSpec::new(seconds, microseconds * 1000))?;
        state.sets += 1;
        let seen = self.0.source.as_ref().and_then(|source| source.glance().ok());
        state.keeper.was_set(seen);
        drop(state);
        self.0.tell(Signs { is_asked: true, ..Signs::default() });
        Ok(())
    }

    /// For those who have connections of the host's.
    pub(crate) fn watcher(&self) -> Watcher {
        let shared = Arc::clone(&self.0);
        Arc::new(move |sign| match sign {
            Sign::Arrived => shared.somebody_came(),
            Sign::Reset => shared.connections_broke(),
        })
    }

    /// What has happened so far.
    pub(crate) fn restores(&self) -> Restores {
        self.0.lock().restores
    }
}

impl Shared {
    fn new(source: Option<Box<dyn Source>>, bell: Option<Bell>) -> Shared {
        let state = State {
            keeper: Keeper::new(source.as_ref().is_some_and(|source| source.is_absolute())),
            sets: 0,
            signs: Signs::default(),
            broke: None,
            restores: Restores::default(),
        };
        Shared { source, bell, state: Mutex::new(state) }
    }

    /// Held for a few system calls at most.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, signs: Signs) {
        if let Some(bell) = &self.bell {
            let mut state = self.lock();
            state.signs = state.signs.and(signs);
            drop(state);
            bell.ring();
        }
    }

    fn take_signs(&self) -> Signs {
        std::mem::take(&mut self.lock().signs)
    }

    /// The first call after a restore comes over a new connection, and is to find the right time.
    fn somebody_came(&self) {
        match &self.source {
            Some(source) if source.is_absolute() => {
                self.glance();
            }
            // One look serves all that come during it.
            Some(_) => self.tell(Signs { is_asked: true, ..Signs::default() }),
            None => {}
        }
    }

    fn connections_broke(&self) {
        self.tell(Signs { is_reset: true, ..Signs::default() });
    }

    /// Looks at the source as far as can be done at once, and corrects what is wrong. Whether the clock was made to jump.
    fn glance(&self) -> bool {
        let Some(source) = &self.source else { return false };
        let mut state = self.lock();
        match source.glance() {
            Ok(seen) if source.is_absolute() => {
                let correction = state.keeper.judge(seen);
                state.apply(correction)
            }
            Ok(seen) => {
                let correction = state.keeper.judge_glance(seen);
                state.apply(correction)
            }
            Err(error) => {
                tracing::warn!(%error, source = source.name(), "the source of time cannot be read");
                false
            }
        }
    }

    /// Looks closely, which takes up to two seconds, and corrects what is wrong.
    fn look(&self, source: &dyn Source, sleep: &mut dyn FnMut(Duration) -> bool) -> io::Result<()> {
        let (sets, ahead) = {
            let state = self.lock();
            (state.sets, state.keeper.ahead())
        };
        if let Some(seen) = source.look(ahead, sleep)? {
            let mut state = self.lock();
            // What the host has set meanwhile is right, whatever the look says.
            if state.sets == sets {
                let correction = state.keeper.judge(seen);
                state.apply(correction);
            }
        }
        Ok(())
    }

    /// Does what a restore makes necessary.
    fn react(&self, signs: Signs) {
        if !signs.any() {
            return;
        }
        let was_stepped = self.glance();
        if !signs.is_urgent() {
            return;
        }
        if !was_stepped && let Err(error) = sys::clock::step(1) {
            tracing::warn!(%error, "programs that wait for the clock to be set are not told of a restore");
        }
        // The hour of the restore is what another copy has not, even where the processor gives no random numbers.
        let now = [rustix::time::ClockId::Realtime, rustix::time::ClockId::Monotonic]
            .map(rustix::time::clock_gettime);
        let known = now.map(|time| [time.tv_sec.to_ne_bytes(), time.tv_nsec.to_ne_bytes()].concat()).concat();
        if let Err(error) = random::stir(&known) {
            tracing::error!(error = %chain(&error), "random numbers may be those of another copy of this machine");
        }
        let signs = self.lock().note(signs, Instant::now());
        if signs.is_forked {
            tracing::info!("the machine goes on from a snapshot: it has a new generation id");
        }
        if signs.is_reset {
            tracing::info!(
                "the host's vsock device has ended all connections: the machine was saved, restored or moved"
            );
        }
        if signs.is_still {
            tracing::info!("the machine's clocks jumped: it stood still, or was restored");
        }
    }
}

impl State {
    /// Counts signs. What is given is worth a line in the log: connections that break one after the other are one sign.
    fn note(&mut self, signs: Signs, now: Instant) -> Signs {
        let again = self.broke.is_some_and(|broke| now.saturating_duration_since(broke) < TOGETHER);
        if signs.is_reset {
            self.broke = Some(now);
        }
        let signs = Signs { is_reset: signs.is_reset && !again, ..signs };
        self.restores.forked += u64::from(signs.is_forked);
        self.restores.reset += u64::from(signs.is_reset);
        self.restores.still += u64::from(signs.is_still);
        signs
    }

    /// Whether the clock was made to jump.
    fn apply(&mut self, correction: Correction) -> bool {
        let done = match correction {
            Correction::None => return false,
            Correction::Slew(by) => sys::clock::slew(by / 1000),
            Correction::Step(by) => {
                tracing::info!(milliseconds = by / 1_000_000, "the clock was wrong and is stepped");
                sys::clock::step(by / 1000)
            }
        };
        match done {
            Ok(()) => {
                let is_step = matches!(correction, Correction::Step(_));
                self.restores.stepped += u64::from(is_step);
                is_step
            }
            Err(error) => {
                tracing::error!(%error, "the clock is not corrected");
                false
            }
        }
    }
}

/// The latest second that the kernel takes: its nanoseconds fit 64 bits for 30 years of running on
/// (include/linux/time64.h, `TIME_SETTOD_SEC_MAX`).
const LATEST: i64 = i64::MAX / 1_000_000_000 - 30 * 365 * 24 * 3600;

fn set_to(time: TimeSpec) -> Result<(), ClockError> {
    clock_settime(ClockId::CLOCK_REALTIME, time).map_err(|errno| ClockError::Set(errno.into()))
}

/// Keeps the clock and hears signs for ever.
fn keep(shared: &Shared, mut ear: Ear) {
    let Some(bell) = &shared.bell else { return };
    let mut source = shared.source.as_deref();
    if let Some(source) = source {
        tracing::debug!(source = source.name(), "keeping the clock");
        if !source.is_absolute() {
            // The kernel has set the clock by it a moment ago.
            let mut state = shared.lock();
            let seen = source.glance().ok();
            if state.sets == 0 {
                state.keeper.was_set(seen);
            }
        }
    }
    let take = || shared.take_signs();
    let mut signs = ear.wait(bell, Some(SETTLE), &take);
    loop {
        shared.react(std::mem::take(&mut signs));
        if let Some(looked_at) = source {
            let mut sleep = |time: Duration| {
                let start = Instant::now();
                while !signs.is_urgent() && start.elapsed() < time {
                    signs = signs.and(ear.wait(bell, Some(time.saturating_sub(start.elapsed())), &take));
                }
                !signs.is_urgent()
            };
            if let Err(error) = shared.look(looked_at, &mut sleep) {
                tracing::error!(%error, source = looked_at.name(), "the clock is no longer kept");
                source = None;
            }
        }
        if !signs.any() {
            signs = ear.wait(bell, source.map(Source::period), &take);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use source::Offset;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn what_is_no_time_is_refused() {
        let clock = Clock::keep(false);
        for (seconds, microseconds) in
            [(0, 0), (-1, 0), (1, -1), (1, 1_000_000), (i64::MAX, 0), (LATEST + 1, 0)]
        {
            assert_eq!(clock.set(seconds, microseconds).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    /// A source that always agrees with the clock.
    struct Fake {
        is_absolute: bool,
        glances: Arc<AtomicU64>,
    }

    impl Source for Fake {
        fn name(&self) -> &'static str {
            "a test"
        }

        fn period(&self) -> Duration {
            Duration::from_secs(1)
        }

        fn is_absolute(&self) -> bool {
            self.is_absolute
        }

        fn glance(&self) -> io::Result<Offset> {
            self.glances.fetch_add(1, Ordering::Relaxed);
            Ok(Offset { offset: 0, uncertainty: 0 })
        }

        fn look(&self, _: Option<i64>, _: &mut dyn FnMut(Duration) -> bool) -> io::Result<Option<Offset>> {
            self.glance().map(Some)
        }
    }

    fn shared(is_absolute: bool) -> (Shared, Arc<AtomicU64>) {
        let glances = Arc::new(AtomicU64::new(0));
        let source = Fake { is_absolute, glances: Arc::clone(&glances) };
        (Shared::new(Some(Box::new(source)), Some(Bell::new().unwrap())), glances)
    }

    #[test]
    fn an_absolute_source_is_looked_at_before_a_connection_is_answered() {
        let (shared, glances) = shared(true);
        shared.somebody_came();
        shared.somebody_came();
        assert_eq!((glances.load(Ordering::Relaxed), shared.take_signs()), (2, Signs::default()));
    }

    #[test]
    fn a_chip_is_left_to_the_thread() {
        let (shared, glances) = shared(false);
        shared.somebody_came();
        shared.connections_broke();
        let signs = shared.take_signs();
        assert!(signs.is_asked && signs.is_reset);
        assert_eq!((glances.load(Ordering::Relaxed), shared.take_signs()), (0, Signs::default()));
    }

    #[test]
    fn connections_that_break_one_after_the_other_are_one_sign() {
        let (shared, _) = shared(false);
        let reset = Signs { is_reset: true, ..Signs::default() };
        let start = Instant::now();
        for (milliseconds, is_news) in [(0, true), (10, false), (900, false), (5000, true)] {
            let now = start + Duration::from_millis(milliseconds);
            assert_eq!(shared.lock().note(reset, now).is_reset, is_news, "{milliseconds}");
        }
        assert_eq!(shared.lock().restores, Restores { reset: 2, ..Restores::default() });
    }
}
