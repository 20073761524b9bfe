//! What the keeper of the clock has to know, and what follows from a look at the source: decisions, and no more.
//!
//! The clock is to be ahead of its source by a fixed time:
//!
//! | source | at the start | after SetGuestDateTime |
//! |---|---|---|
//! | tells what time it is (KVM) | by nothing | by nothing if the host's time is the source's to within [`SAME`], else by the difference |
//! | tells how much time has passed (chip) | by what it shows after the kernel set the clock by it | by what it shows then |
//!
//! A restore from a snapshot changes none of it: the source went on while the machine did not, so it shows what was missed.

use super::correction::{Correction, correct};
use super::source::Offset;

/// A host that sets a time this near to the source's means the source's: its call took a while to arrive. In nanoseconds.
const SAME: i64 = 1_000_000_000;

/// What is known no better than this is learned from the first closer look that agrees. In nanoseconds.
const ROUGH: i64 = 100_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Whether the source tells what time it is.
    is_absolute: bool,
    /// The right time less the source's. None until a look has shown it.
    ahead: Option<Ahead>,
}

/// A difference between the right time and the source's, and how wrong it may be; both in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Ahead {
    by: i64,
    uncertainty: i64,
}

impl Keeper {
    /// For a source that tells what time it is, or only how much has passed.
    pub(super) fn new(is_absolute: bool) -> Keeper {
        Keeper { is_absolute, ahead: is_absolute.then_some(Ahead { by: 0, uncertainty: 0 }) }
    }

    /// By how much the right time is ahead of the source's, in nanoseconds, where that is known.
    pub(super) fn ahead(&self) -> Option<i64> {
        self.ahead.map(|ahead| ahead.by)
    }

    /// The clock was set to a time that is right from now on. `seen` is what the source showed just after; without it the
    /// next look teaches.
    pub(super) fn was_set(&mut self, seen: Option<Offset>) {
        self.ahead = None;
        if let Some(seen) = seen {
            self.learn(seen);
        }
    }

    /// What to do about the clock after a close look at the source. A look that agrees with what is
    /// roughly known only teaches.
    pub(super) fn judge(&mut self, seen: Offset) -> Correction {
        let Some(ahead) = self.ahead else {
            self.learn(seen);
            return Correction::None;
        };
        let error = seen.offset.saturating_add(ahead.by);
        if ahead.uncertainty < ROUGH {
            return correct(error, seen.uncertainty);
        }
        let uncertainty = seen.uncertainty.saturating_add(ahead.uncertainty);
        if error.saturating_abs() <= uncertainty {
            self.learn(seen);
            return Correction::None;
        }
        correct(error, uncertainty)
    }

    /// As [`Keeper::judge`] for a look that is quick and not close: what is wrong for sure is jumped over, and nothing is
    /// learned.
    pub(super) fn judge_glance(&self, seen: Offset) -> Correction {
        let Some(ahead) = self.ahead else { return Correction::None };
        let error = seen.offset.saturating_add(ahead.by);
        match correct(error, 0) {
            step @ Correction::Step(_)
                if error.saturating_abs() > seen.uncertainty.saturating_add(ahead.uncertainty) =>
            {
                step
            }
            _ => Correction::None,
        }
    }

    fn learn(&mut self, seen: Offset) {
        let by = seen.offset.saturating_neg();
        self.ahead = Some(if self.is_absolute && by.saturating_abs() <= SAME {
            Ahead { by: 0, uncertainty: 0 }
        } else {
            Ahead { by, uncertainty: seen.uncertainty }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// A machine: what its source and its clock say, in nanoseconds, and the keeper of the clock.
    struct Machine {
        source: i64,
        clock: i64,
        keeper: Keeper,
    }

    impl Machine {
        fn new(is_absolute: bool) -> Machine {
            Machine {
                source: 1_700_000_000 * SECOND,
                clock: 1_700_000_000 * SECOND,
                keeper: Keeper::new(is_absolute),
            }
        }

        fn seen(&self) -> Offset {
            Offset { offset: self.source - self.clock, uncertainty: 1_000 }
        }

        fn pass(&mut self, time: i64) {
            self.source += time;
            self.clock += time;
        }

        /// Time during which the machine stands still, or lies on a disk.
        fn miss(&mut self, time: i64) {
            self.source += time;
        }

        fn host_sets(&mut self, time: i64) {
            self.clock = time;
            let seen = self.keeper.is_absolute.then(|| self.seen());
            self.keeper.was_set(seen);
        }

        fn look(&mut self) -> Correction {
            let correction = self.keeper.judge(self.seen());
            if let Correction::Slew(by) | Correction::Step(by) = correction {
                self.clock += by;
            }
            correction
        }
    }

    #[test]
    fn what_the_host_sets_stands_with_either_source() {
        for is_absolute in [true, false] {
            let mut machine = Machine::new(is_absolute);
            machine.look();
            machine.host_sets(1_900_000_000 * SECOND);
            for _ in 0..10 {
                machine.pass(2 * SECOND);
                assert_eq!(machine.look(), Correction::None);
            }
            assert_eq!(machine.clock, 1_900_000_020 * SECOND);
        }
    }

    #[test]
    fn a_time_that_the_host_chose_goes_on_over_a_restore() {
        for is_absolute in [true, false] {
            let mut machine = Machine::new(is_absolute);
            machine.host_sets(1_900_000_000 * SECOND);
            machine.look();
            machine.miss(3600 * SECOND);
            assert_eq!(machine.look(), Correction::Step(3600 * SECOND));
            assert_eq!(machine.clock, 1_900_003_600 * SECOND);
        }
    }

    #[test]
    fn the_hosts_own_time_that_comes_late_is_the_sources_time() {
        let mut machine = Machine::new(true);
        let right = machine.source;
        machine.host_sets(right - SECOND / 2);
        assert_eq!(machine.look(), Correction::Step(SECOND / 2));
        assert_eq!(machine.clock, machine.source);
        // Setting the right time undoes another choice.
        machine.host_sets(1_900_000_000 * SECOND);
        machine.host_sets(machine.source);
        machine.miss(60 * SECOND);
        assert_eq!(machine.look(), Correction::Step(60 * SECOND));
        assert_eq!(machine.clock, machine.source);
    }

    /// A look at the beginning or the middle of a second of a chip whose time is cut to whole seconds.
    fn glance(machine: &Machine) -> Offset {
        let shown = machine.source.div_euclid(SECOND) * SECOND + SECOND / 2;
        Offset { offset: shown - machine.clock, uncertainty: SECOND / 2 }
    }

    #[test]
    fn a_glance_corrects_what_is_wrong_for_sure_to_within_half_a_second() {
        let mut machine = Machine::new(false);
        machine.look();
        for phase in [0, SECOND / 3, SECOND - 1] {
            machine.source = 1_700_000_000 * SECOND + phase;
            machine.clock = machine.source;
            assert_eq!(machine.keeper.judge_glance(glance(&machine)), Correction::None);
            machine.miss(3 * SECOND);
            let Correction::Step(by) = machine.keeper.judge_glance(glance(&machine)) else {
                panic!("not stepped")
            };
            assert!((by - 3 * SECOND).abs() <= SECOND / 2, "{by}");
        }
    }

    #[test]
    fn a_machine_that_is_saved_before_the_first_close_look_is_not_taught_a_wrong_time() {
        let mut machine = Machine::new(false);
        machine.pass(SECOND / 4);
        machine.keeper.was_set(Some(glance(&machine)));
        machine.miss(3600 * SECOND);
        assert!(matches!(machine.look(), Correction::Step(_)));
        assert!((machine.clock - machine.source).abs() <= SECOND / 2);
        // The next one is close enough to be learned, and stays.
        machine.look();
        machine.miss(10 * SECOND);
        assert_eq!(machine.look(), Correction::Step(10 * SECOND));
    }
}
