//! The frequency of the host's time-stamp counter.
//!
//! Under TCG the guest's counter is the host's. Told its frequency (`tsc_early_khz`), the guest's kernel skips a
//! calibration that takes long and goes wrong on a busy host.

use std::time::{Duration, Instant};

use super::sys::time_stamp;

/// Long enough for an error of about 100 ppm with the window below.
const INTERVAL: Duration = Duration::from_millis(20);
/// Clock and counter must be read within this time of each other, or the pair is read again.
const WINDOW: Duration = Duration::from_micros(2);
const TRIES: u32 = 1000;

/// The counter's frequency in kHz, or nothing when it is not constant or could not be measured.
pub fn host_khz() -> Option<u64> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    if !is_constant(&cpuinfo) {
        return None;
    }
    let (start, first) = paired_reading()?;
    std::thread::sleep(INTERVAL);
    let (end, last) = paired_reading()?;
    khz(last.checked_sub(first)?, end - start)
}

fn is_constant(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let has = |flag| flags.split_whitespace().any(|word| word == flag);
    has("constant_tsc") && has("nonstop_tsc")
}

fn khz(ticks: u64, time: Duration) -> Option<u64> {
    u64::try_from(u128::from(ticks) * 1_000_000 / time.as_nanos().max(1)).ok()
}

fn paired_reading() -> Option<(Instant, u64)> {
    (0..TRIES).find_map(|_| {
        let before = Instant::now();
        let ticks = time_stamp()?;
        (before.elapsed() < WINDOW).then_some((before, ticks))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_kilohertz() {
        assert_eq!(khz(52_000_000, Duration::from_millis(20)), Some(2_600_000));
    }

    #[test]
    fn only_a_constant_counter_counts() {
        assert!(is_constant("processor : 0\nflags\t\t: fpu constant_tsc nonstop_tsc sse\n"));
        assert!(!is_constant("flags\t\t: fpu constant_tsc_x nonstop_tsc\n"));
        assert!(!is_constant(""));
    }
}
