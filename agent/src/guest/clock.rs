//! The guest's clock.

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

/// Sets the real-time clock of the kernel (`clock_settime(2)`).
pub(crate) fn set(seconds: i64, microseconds: i64) -> Result<(), ClockError> {
    if seconds <= 0 || !(0..1_000_000).contains(&microseconds) {
        return Err(ClockError::Invalid { seconds, microseconds });
    }
    let time = TimeSpec::new(seconds, microseconds * 1000);
    clock_settime(ClockId::CLOCK_REALTIME, time).map_err(|errno| ClockError::Set(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_time_is_refused() {
        for (seconds, microseconds) in [(0, 0), (-1, 0), (1, -1), (1, 1_000_000)] {
            assert_eq!(set(seconds, microseconds).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
