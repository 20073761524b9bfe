//! What to do about a clock that is wrong by so much: a decision, and no more.

/// An error above this is jumped over: to run it off at the kernel's 500 ppm would take a minute and more.
const STEP: i64 = 30_000_000;
/// An error below this is left: it may be the measurement's own.
const LEAVE: i64 = 1_000_000;

/// What is done about an error, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Correction {
    /// Nothing.
    None,
    /// The clock runs faster or slower for a while: no program sees a jump.
    Slew(i64),
    /// The clock jumps.
    Step(i64),
}

/// Decides. `offset` is the reference's time less the clock's, `uncertainty` how wrong that may be; both in nanoseconds.
pub(super) fn correct(offset: i64, uncertainty: i64) -> Correction {
    match offset.saturating_abs() {
        error if error <= LEAVE.max(uncertainty.saturating_mul(2)) => Correction::None,
        error if error <= STEP => Correction::Slew(offset),
        _ => Correction::Step(offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_errors_are_left_middling_ones_run_off_and_large_ones_jumped_over() {
        assert_eq!(correct(500_000, 0), Correction::None);
        assert_eq!(correct(5_000_000, 1_000), Correction::Slew(5_000_000));
        assert_eq!(correct(-5_000_000, 3_000_000), Correction::None);
        assert_eq!(correct(-31_000_000, 1_000_000), Correction::Step(-31_000_000));
        assert_eq!(correct(i64::MIN, 0), Correction::Step(i64::MIN));
    }

    proptest! {
        #[test]
        fn no_error_that_is_sure_stays_above_100_ms(offset: i64, uncertainty in 0i64..20_000_000) {
            let left = match correct(offset, uncertainty) {
                Correction::None => offset,
                Correction::Slew(by) | Correction::Step(by) => offset.saturating_sub(by),
            };
            prop_assert!(left.saturating_abs() < 100_000_000);
        }
    }
}
