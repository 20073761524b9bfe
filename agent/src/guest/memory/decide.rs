//! When to reclaim how much, and when to compact: pure functions of the settings and of what was seen.

use std::collections::VecDeque;
use std::time::Duration;

use rustjail::cgroup::{Inactive, Reclaimed, Stalls};

use super::settings::{Compaction, Reclaim};

/// The longest memory of looks: whoever asks for more gets the least of so many.
const REMEMBERED: usize = 32;

/// One reclaim takes this at most, so that the pressure is looked at in between.
const STEP: u64 = 32 << 20;

/// Less than this is not worth a reclaim.
const WORTH: u64 = 1 << 20;

/// A stall is measured against this at least: one late page within a few milliseconds is no percentage.
const SHORTEST: Duration = Duration::from_secs(1);

/// What part of a time was stalled, in percent: memory or disk, whichever is more.
pub(super) fn stalled_percent(before: Stalls, after: Stalls, time: Duration) -> u64 {
    let memory = after.memory_us.saturating_sub(before.memory_us);
    let io = after.io_us.saturating_sub(before.io_us);
    let percent = u128::from(memory.max(io)) * 100 / time.max(SHORTEST).as_micros();
    u64::try_from(percent).unwrap_or(u64::MAX)
}

/// What was seen of one container, look by look.
#[derive(Debug, Default)]
pub(super) struct History {
    looks: VecDeque<Inactive>,
    taken: u64,
}

impl History {
    /// Notes what a look saw.
    pub(super) fn note(&mut self, seen: Inactive) {
        self.taken = self.taken.saturating_add(1);
        if self.looks.len() == REMEMBERED {
            self.looks.pop_front();
        }
        self.looks.push_back(seen);
    }

    /// What lay idle in all of the last `count` looks: no page that was idle throughout is missing from the least of
    /// them. None while there were fewer looks.
    fn cold(&self, count: u64) -> Option<Inactive> {
        if self.taken < count {
            return None;
        }
        let count = usize::try_from(count).unwrap_or(REMEMBERED).max(1);
        let last = self.looks.iter().rev().take(count);
        last.copied()
            .reduce(|one, other| Inactive { file: one.file.min(other.file), anon: one.anon.min(other.anon) })
    }
}

/// Memory to be taken back from one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Eviction {
    /// Bytes.
    pub(super) bytes: u64,
    /// As `memory.reclaim` takes it.
    pub(super) swappiness: u8,
}

/// What to take from a container which stalled for so much of the period, while so much swap space is free. None to
/// leave it alone.
pub(super) fn evict(settings: &Reclaim, history: &History, stalled: u64, swap_free: u64) -> Option<Eviction> {
    if settings.disabled || stalled > settings.period_stall_limit.into() {
        return None;
    }
    let cold = history.cold(settings.looks)?;
    let anon = if settings.swap { cold.anon.min(swap_free) } else { 0 };
    let most = u64::from(settings.swappiness_max);
    let bytes =
        cold.file.saturating_add(u64::try_from(u128::from(anon) * u128::from(most) / 200).unwrap_or(anon));
    if bytes < WORTH {
        return None;
    }
    // Anonymous memory is preferred by its part in what is cold, up to the limit.
    let part = u128::from(anon) * 200 / (u128::from(anon) + u128::from(cold.file)).max(1);
    let swappiness = u8::try_from(part.min(most.into())).unwrap_or(settings.swappiness_max);
    Some(Eviction { bytes, swappiness })
}

/// The bytes of the next step of an eviction that has `left` to take; none when it is over, because of what the last
/// step found or because the container stalled for too much of the time since it began.
pub(super) fn next_step(settings: &Reclaim, left: u64, stalled: u64, last: Reclaimed) -> Option<u64> {
    let goes_on = !settings.disabled
        && last == Reclaimed::All
        && left > 0
        && stalled <= settings.eviction_stall_limit.into();
    goes_on.then_some(left.min(STEP))
}

/// Why a compaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Enough has been scattered since the last one.
    Scattered,
    /// There was none for so many looks.
    Forced,
}

/// What is known of compactions so far.
#[derive(Debug, Default)]
pub(super) struct Compactions {
    /// Scattered pages after the last one, or the fewest seen since.
    baseline: u64,
    /// Looks without one since.
    skipped: u64,
}

impl Compactions {
    /// Whether to compact, when so many pages are scattered and the guest stalled for so much of the period.
    pub(super) fn decide(&mut self, settings: &Compaction, scattered: u64, stalled: u64) -> Option<Cause> {
        if settings.disabled {
            return None;
        }
        self.baseline = self.baseline.min(scattered);
        let cause = if stalled > settings.period_stall_limit.into() {
            None
        } else if settings.force_after != u64::MAX && self.skipped >= settings.force_after {
            Some(Cause::Forced)
        } else {
            (scattered - self.baseline > settings.threshold).then_some(Cause::Scattered)
        };
        if cause.is_none() {
            self.skipped = self.skipped.saturating_add(1);
        }
        cause
    }

    /// Notes what a compaction has left scattered.
    pub(super) fn compacted(&mut self, scattered: u64) {
        *self = Compactions { baseline: scattered, skipped: 0 };
    }
}

/// Why a compaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It brings no more.
    Done,
    /// It has had its time.
    Time,
    /// The guest stalls.
    Stalled,
    /// It was switched off.
    Disabled,
}

/// How long the kernel may move nothing before a compaction counts as done: its thread may not have had its turn.
const IDLE: u32 = 3;

/// Whether a compaction ends that has taken so long. `stalled` is of the last second, `idle` says at how many looks in
/// a row the kernel had moved nothing.
pub(super) fn ends(settings: &Compaction, taken: Duration, stalled: u64, idle: u32) -> Option<End> {
    if settings.disabled {
        Some(End::Disabled)
    } else if stalled > settings.run_stall_limit.into() {
        Some(End::Stalled)
    } else if taken >= settings.longest {
        Some(End::Time)
    } else {
        (idle >= IDLE).then_some(End::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn seen(looks: &[(u64, u64)]) -> History {
        let mut history = History::default();
        for (file, anon) in looks {
            history.note(Inactive { file: file * MIB, anon: anon * MIB });
        }
        history
    }

    fn evict_of(settings: &Reclaim, history: &History) -> Option<Eviction> {
        evict(settings, history, 0, u64::MAX)
    }

    #[test]
    fn the_greater_stall_counts_and_not_below_a_second() {
        let before = Stalls { memory_us: 1_000_000, io_us: 0 };
        let after = Stalls { memory_us: 1_100_000, io_us: 500_000 };
        assert_eq!(stalled_percent(before, after, Duration::from_secs(10)), 5);
        assert_eq!(stalled_percent(before, after, Duration::from_millis(1)), 50);
        assert_eq!(stalled_percent(after, before, Duration::from_secs(10)), 0);
        let end = Stalls { memory_us: u64::MAX, io_us: 0 };
        assert_eq!(stalled_percent(Stalls::default(), end, Duration::ZERO), u64::MAX / 10_000);
    }

    #[test]
    fn the_least_of_the_last_looks_is_cold() {
        let settings = Reclaim::default();
        assert_eq!(evict_of(&settings, &seen(&[(90, 0), (90, 0)])), None);
        let eviction = |looks| evict_of(&settings, &seen(looks)).map(|eviction| eviction.bytes / MIB);
        assert_eq!(eviction(&[(90, 0), (80, 0), (95, 0)]), Some(80));
        assert_eq!(eviction(&[(5, 0), (90, 0), (80, 0), (95, 0)]), Some(80));
        // What came since the last look but one may be in use.
        assert_eq!(eviction(&[(0, 0), (0, 0), (95, 0)]), None);
    }

    #[test]
    fn any_number_of_looks_is_one_that_ends() {
        let mut history = seen(&[(7, 0)]);
        assert!(evict_of(&Reclaim { looks: 0, ..Reclaim::default() }, &history).is_some());
        for _ in 0..100 {
            history.note(Inactive { file: 9 * MIB, anon: 0 });
        }
        let eviction = evict_of(&Reclaim { looks: 100, ..Reclaim::default() }, &history).unwrap();
        assert_eq!(eviction.bytes, 9 * MIB);
        assert_eq!(evict_of(&Reclaim { looks: u64::MAX, ..Reclaim::default() }, &history), None);
        assert_eq!(history.looks.len(), REMEMBERED);
    }

    #[test]
    fn a_container_that_stalls_or_has_little_is_left_alone() {
        let (settings, history) = (Reclaim { looks: 1, ..Reclaim::default() }, seen(&[(50, 0)]));
        assert!(evict(&settings, &history, 1, 0).is_some());
        assert_eq!(evict(&settings, &history, 2, 0), None);
        assert_eq!(evict_of(&Reclaim { disabled: true, ..settings.clone() }, &history), None);
        assert_eq!(evict_of(&settings, &seen(&[(0, 50)])), None);
    }

    #[test]
    fn processes_memory_goes_only_where_it_may() {
        let looks = |swap, swappiness_max| Reclaim { looks: 1, swap, swappiness_max, ..Reclaim::default() };
        let history = seen(&[(100, 300)]);
        let got = |settings: &Reclaim, free| {
            evict(settings, &history, 0, free).map(|eviction| (eviction.bytes / MIB, eviction.swappiness))
        };
        assert_eq!(got(&looks(false, 200), u64::MAX), Some((100, 0)));
        assert_eq!(got(&looks(true, 200), u64::MAX), Some((400, 150)));
        assert_eq!(got(&looks(true, 50), u64::MAX), Some((175, 50)));
        assert_eq!(got(&looks(true, 0), u64::MAX), Some((100, 0)));
        assert_eq!(got(&looks(true, 200), 0), Some((100, 0)));
        assert_eq!(got(&looks(true, 200), 100 * MIB), Some((200, 100)));
    }

    #[test]
    fn an_eviction_goes_in_steps_until_something_ends_it() {
        let settings = Reclaim::default();
        assert_eq!(next_step(&settings, 100 * MIB, 0, Reclaimed::All), Some(STEP));
        assert_eq!(next_step(&settings, 5, 1, Reclaimed::All), Some(5));
        assert_eq!(next_step(&settings, 0, 0, Reclaimed::All), None);
        assert_eq!(next_step(&settings, 5, 2, Reclaimed::All), None);
        assert_eq!(next_step(&settings, 5, 0, Reclaimed::Less), None);
        assert_eq!(next_step(&Reclaim { disabled: true, ..settings }, 5, 0, Reclaimed::All), None);
    }

    #[test]
    fn compaction_waits_until_enough_is_scattered_anew() {
        let settings = Compaction::default();
        let mut compactions = Compactions::default();
        assert_eq!(compactions.decide(&settings, 1024, 0), None);
        assert_eq!(compactions.decide(&settings, 1025, 0), Some(Cause::Scattered));
        compactions.compacted(800);
        assert_eq!(compactions.decide(&settings, 1824, 0), None);
        assert_eq!(compactions.decide(&settings, 1825, 2), None);
        assert_eq!(compactions.decide(&settings, 1825, 1), Some(Cause::Scattered));
        compactions.compacted(800);
        // Less was scattered meanwhile, so what comes from there is new.
        assert_eq!(compactions.decide(&settings, 100, 0), None);
        assert_eq!(compactions.decide(&settings, 1200, 0), Some(Cause::Scattered));
        assert_eq!(compactions.decide(&Compaction { disabled: true, ..settings }, 9999, 0), None);
    }

    #[test]
    fn compaction_is_forced_after_so_many_looks_or_never() {
        let forced = |force_after| Compaction { force_after, ..Compaction::default() };
        let mut compactions = Compactions::default();
        assert_eq!(compactions.decide(&forced(2), 0, 0), None);
        assert_eq!(compactions.decide(&forced(2), 0, 0), None);
        assert_eq!(compactions.decide(&forced(2), 0, 99), None);
        assert_eq!(compactions.decide(&forced(2), 0, 0), Some(Cause::Forced));
        compactions.compacted(0);
        assert_eq!(compactions.decide(&forced(2), 0, 0), None);
        assert_eq!(compactions.decide(&forced(0), 0, 0), Some(Cause::Forced));
        let mut compactions = Compactions { baseline: 0, skipped: u64::MAX };
        assert_eq!(compactions.decide(&forced(u64::MAX), 0, 0), None);
    }

    #[test]
    fn a_compaction_ends_for_one_of_four_reasons() {
        let settings = Compaction::default();
        let second = Duration::from_secs(1);
        assert_eq!(ends(&settings, second, 5, 2), None);
        assert_eq!(ends(&settings, second, 0, 3), Some(End::Done));
        assert_eq!(ends(&settings, second, 6, 0), Some(End::Stalled));
        assert_eq!(ends(&settings, Duration::from_secs(300), 0, 0), Some(End::Time));
        assert_eq!(ends(&Compaction { disabled: true, ..settings }, second, 0, 0), Some(End::Disabled));
    }
}
