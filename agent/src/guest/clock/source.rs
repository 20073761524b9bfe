//! Where the right time comes from.
//!
//! | source | how right | cost of a look |
//! |---|---|---|
//! | the host's clock through KVM (`/dev/ptpN`, "KVM virtual PTP") | microseconds | one exit of the machine |
//! | the real-time clock chip (`/sys/class/rtc/rtc0`) | it counts whole seconds of the host; where they begin is learned | about twenty reads around the beginning of a second |
//!
//! QEMU's chip begins its seconds when the machine begins, not when the host's begin. So it says how much time has passed,
//! stop or no stop, and not what time it is: that comes from the kernel's own reading at boot, until the host says it
//! exactly with SetGuestDateTime.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

const SECOND: i64 = 1_000_000_000;
/// How the kernel calls the clock of a KVM host (drivers/ptp/ptp_kvm_common.c).
const KVM_NAME: &str = "KVM virtual PTP";
/// How often the chip is read around the beginning of a second.
const STEP: Duration = Duration::from_millis(4);
/// How long before the second is expected the reading begins.
const AHEAD: Duration = Duration::from_millis(60);
/// Looks at the host's clock; the quickest counts.
const LOOKS: usize = 5;
/// A look at the chip that took longer is not trusted.
const UNSURE: i64 = 25_000_000;

/// What a look at a source has shown, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offset {
    /// The source's time less the guest's.
    pub(super) offset: i64,
    /// How wrong that may be.
    pub(super) uncertainty: i64,
}

/// A source of time.
pub(super) enum Source {
    /// The clock of a KVM host.
    Host(File),
    /// The chip, and the guest's time at the beginning of one of its seconds less that second.
    Chip {
        /// Its seconds since 1970, read anew each time.
        seconds: File,
        /// None until learned.
        phase: Option<i64>,
    },
}

/// The guest's own time, in nanoseconds since 1970.
pub(super) fn guest_now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.saturating_mul(SECOND).saturating_add(now.tv_nsec)
}

impl Source {
    /// The best source of this machine; none where it has none.
    pub(super) fn find() -> Option<Source> {
        host_clock().map(Source::Host).or_else(|| {
            let seconds = File::open("/sys/class/rtc/rtc0/since_epoch").ok()?;
            Some(Source::Chip { seconds, phase: None })
        })
    }

    /// Its name, for the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Source::Host(_) => "the host's clock through KVM",
            Source::Chip { .. } => "the real-time clock chip",
        }
    }

    /// How often to look.
    pub(super) fn period(&self) -> Duration {
        match self {
            Source::Host(_) => Duration::from_secs(2),
            Source::Chip { .. } => Duration::from_secs(5),
        }
    }

    /// Forgets what was learned about the chip: the guest's time has been set right by other means.
    pub(super) fn relearn(&mut self) {
        if let Source::Chip { phase, .. } = self {
            *phase = None;
        }
    }

    /// Looks. None when the chip was not yet known, or the look was too slow to mean anything.
    pub(super) fn look(&mut self) -> io::Result<Option<Offset>> {
        match self {
            Source::Host(device) => {
                let clock = ClockId::from_raw(clock_of(device.as_raw_fd()));
                let look = || -> io::Result<Offset> {
                    let before = guest_now();
                    let there = clock_gettime(clock)?;
                    let after = guest_now();
                    let there = there.tv_sec().saturating_mul(SECOND) + there.tv_nsec();
                    let uncertainty = (after - before).max(0) / 2;
                    Ok(Offset { offset: there - (before + uncertainty), uncertainty })
                };
                let looks = (0..LOOKS).map(|_| look()).collect::<io::Result<Vec<_>>>()?;
                Ok(looks.into_iter().min_by_key(|look| look.uncertainty))
            }
            Source::Chip { seconds, phase } => {
                let edge = find_edge(*phase, || read_seconds(seconds), guest_now, std::thread::sleep)?;
                let Some(edge) = edge.filter(|edge| edge.uncertainty <= UNSURE) else { return Ok(None) };
                let now = edge.guest - edge.second * SECOND;
                let known = phase.get_or_insert(now);
                Ok(Some(Offset { offset: *known - now, uncertainty: edge.uncertainty }))
            }
        }
    }
}

/// The clock id of an open clock device (clock_getres(2), "Dynamic clocks").
fn clock_of(fd: i32) -> i32 {
    (!fd << 3) | 3
}

fn host_clock() -> Option<File> {
    let clocks = std::fs::read_dir("/sys/class/ptp").ok()?;
    let is_hosts = |path: &Path| {
        std::fs::read_to_string(path.join("clock_name")).is_ok_and(|name| name.trim() == KVM_NAME)
    };
    let found = clocks.filter_map(|entry| Some(entry.ok()?.path())).find(|path| is_hosts(path))?;
    File::open(Path::new("/dev").join(found.file_name()?)).ok()
}

fn read_seconds(file: &File) -> io::Result<i64> {
    let mut text = [0; 32];
    let count = file.read_at(&mut text, 0)?;
    let text = str::from_utf8(&text[..count]).map_err(io::Error::other)?;
    text.trim().parse().map_err(io::Error::other)
}

/// The beginning of one of the chip's seconds.
#[derive(Debug, PartialEq, Eq)]
struct Edge {
    second: i64,
    guest: i64,
    uncertainty: i64,
}

/// Waits for the beginning of a second, a little before it is expected. None when none begins in two seconds: the chip
/// stands still.
fn find_edge(
    phase: Option<i64>,
    mut read: impl FnMut() -> io::Result<i64>,
    mut now: impl FnMut() -> i64,
    mut sleep: impl FnMut(Duration),
) -> io::Result<Option<Edge>> {
    if let Some(phase) = phase {
        let until = SECOND - (now() - phase).rem_euclid(SECOND);
        sleep(Duration::from_nanos(until.unsigned_abs()).saturating_sub(AHEAD));
    }
    let mut before = now();
    let first = read()?;
    let start = before;
    loop {
        sleep(STEP);
        let asked = now();
        let second = read()?;
        let after = now();
        if second != first {
            // It began after the last read that did not show it, and before this one was over.
            let uncertainty = (after - before).max(0) / 2;
            return Ok(Some(Edge { second, guest: before + uncertainty, uncertainty }));
        }
        if asked.saturating_sub(start) > 2 * SECOND {
            return Ok(None);
        }
        before = asked;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A chip whose seconds begin `phase` after the guest's, read while the guest's time goes on by itself.
    fn edge(guest: i64, phase: i64, known: Option<i64>) -> (Option<Edge>, u32) {
        let (time, reads) = (Cell::new(guest), Cell::new(0));
        let read = || {
            reads.set(reads.get() + 1);
            time.set(time.get() + 100_000);
            Ok((time.get() - phase).div_euclid(SECOND))
        };
        let sleep = |by: Duration| time.set(time.get() + by.as_nanos() as i64);
        (find_edge(known, read, || time.get(), sleep).unwrap(), reads.get())
    }

    #[test]
    fn a_second_is_found_within_the_step_of_the_search() {
        let (found, reads) = edge(1_000 * SECOND + 300_000_000, 250_000_000, None);
        let found = found.unwrap();
        assert_eq!(found.second, 1_001);
        assert!((found.guest - (1_001 * SECOND + 250_000_000)).abs() <= found.uncertainty + 100_000);
        assert!(found.uncertainty < 3_000_000, "{found:?}");
        assert!(reads > 100);
    }

    #[test]
    fn a_chip_that_is_known_costs_few_reads() {
        let (found, reads) = edge(1_000 * SECOND + 300_000_000, 250_000_000, Some(250_000_000));
        assert_eq!(found.unwrap().second, 1_001);
        assert!(reads < 25, "{reads}");
    }

    #[test]
    fn a_chip_that_stands_still_is_given_up() {
        let time = Cell::new(0i64);
        let sleep = |by: Duration| time.set(time.get() + by.as_nanos() as i64);
        assert_eq!(find_edge(None, || Ok(7), || time.get(), sleep).unwrap(), None);
    }

    #[test]
    fn clock_devices_have_negative_ids() {
        assert_eq!(clock_of(3), (!3 << 3) | 3);
        assert!(clock_of(3) < 0);
    }
}
