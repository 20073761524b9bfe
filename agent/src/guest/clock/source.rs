//! Where the right time comes from.
//!
//! | source | how right | cost of a look |
//! |---|---|---|
//! | the host's clock through KVM (`/dev/ptpN`, "KVM virtual PTP") | microseconds | one exit of the machine |
//! | the real-time clock chip (`/sys/class/rtc/rtc0`: CMOS on x86, PL031 on Arm) | it counts whole seconds of the host; where they begin is learned | about twenty reads around the beginning of a second |
//!
//! QEMU's CMOS begins its seconds when the machine begins, not when the host's begin. So it says how much time has passed,
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
pub(super) trait Source: Send + Sync {
    /// Its name, for the log.
    fn name(&self) -> &'static str;

    /// How often to look.
    fn period(&self) -> Duration;

    /// Whether it tells what time it is, and at once. Otherwise it tells how much time has passed.
    fn is_absolute(&self) -> bool;

    /// What can be seen at once.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn glance(&self) -> io::Result<Offset>;

    /// Looks as closely as it can. `ahead` is by how much the guest's time is ahead of the source's, as far as is known.
    /// `sleep` gives false when the look is to be given up. None for such a look, and for one that was too slow to mean
    /// anything.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn look(&self, ahead: Option<i64>, sleep: &mut dyn FnMut(Duration) -> bool)
    -> io::Result<Option<Offset>>;
}

/// The best source of this machine; none where it has none.
pub(super) fn find() -> Option<Box<dyn Source>> {
    if let Some(clock) = host_clock() {
        return Some(Box::new(Host(clock)));
    }
    let seconds = File::open("/sys/class/rtc/rtc0/since_epoch").ok()?;
    Some(Box::new(Chip(seconds)))
}

/// The guest's own time, in nanoseconds since 1970.
fn guest_now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.saturating_mul(SECOND).saturating_add(now.tv_nsec)
}

/// The clock of a KVM host.
struct Host(File);

impl Source for Host {
    fn name(&self) -> &'static str {
        "the host's clock through KVM"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn is_absolute(&self) -> bool {
        true
    }

    fn glance(&self) -> io::Result<Offset> {
        let clock = ClockId::from_raw(clock_of(self.0.as_raw_fd()));
        let look = || -> io::Result<Offset> {
            let before = guest_now();
            let there = clock_gettime(clock)?;
            let after = guest_now();
            let there = there.tv_sec().saturating_mul(SECOND) + there.tv_nsec();
            let uncertainty = (after - before).max(0) / 2;
            Ok(Offset { offset: there - (before + uncertainty), uncertainty })
        };
        let mut best = look()?;
        for _ in 1..LOOKS {
            let next = look()?;
            if next.uncertainty < best.uncertainty {
                best = next;
            }
        }
        Ok(best)
    }

    fn look(&self, _: Option<i64>, _: &mut dyn FnMut(Duration) -> bool) -> io::Result<Option<Offset>> {
        self.glance().map(Some)
    }
}

/// The chip, as the file that has its seconds since 1970, read anew each time.
struct Chip(File);

impl Source for Chip {
    fn name(&self) -> &'static str {
        "the real-time clock chip"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn is_absolute(&self) -> bool {
        false
    }

    fn glance(&self) -> io::Result<Offset> {
        let before = guest_now();
        let second = read_seconds(&self.0)?;
        let asked = (guest_now() - before).max(0) / 2;
        // Somewhere in that second.
        let there = second.saturating_mul(SECOND) + SECOND / 2;
        Ok(Offset { offset: there - (before + asked), uncertainty: SECOND / 2 + asked })
    }

    fn look(
        &self,
        ahead: Option<i64>,
        sleep: &mut dyn FnMut(Duration) -> bool,
    ) -> io::Result<Option<Offset>> {
        let edge = find_edge(ahead, || read_seconds(&self.0), guest_now, sleep)?;
        let sure = edge.filter(|edge| edge.uncertainty <= UNSURE);
        Ok(sure.map(|edge| Offset {
            offset: edge.second.saturating_mul(SECOND) - edge.guest,
            uncertainty: edge.uncertainty,
        }))
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

/// Waits for the beginning of a second, a little before it is expected. None when none begins in two seconds, since the chip
/// stands still, and when `sleep` says that it is to be given up.
fn find_edge(
    ahead: Option<i64>,
    mut read: impl FnMut() -> io::Result<i64>,
    mut now: impl FnMut() -> i64,
    sleep: &mut dyn FnMut(Duration) -> bool,
) -> io::Result<Option<Edge>> {
    if let Some(ahead) = ahead {
        let until = SECOND - now().saturating_sub(ahead).rem_euclid(SECOND);
        if !sleep(Duration::from_nanos(until.unsigned_abs()).saturating_sub(AHEAD)) {
            return Ok(None);
        }
    }
    let mut before = now();
    let first = read()?;
    let start = before;
    loop {
        if !sleep(STEP) {
            return Ok(None);
        }
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
        let mut sleep = |by: Duration| {
            time.set(time.get() + by.as_nanos() as i64);
            true
        };
        (find_edge(known, read, || time.get(), &mut sleep).unwrap(), reads.get())
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
        let mut sleep = |by: Duration| {
            time.set(time.get() + by.as_nanos() as i64);
            true
        };
        assert_eq!(find_edge(None, || Ok(7), || time.get(), &mut sleep).unwrap(), None);
    }

    #[test]
    fn a_look_is_given_up_when_there_is_something_else_to_do() {
        let reads = Cell::new(0);
        let read = || {
            reads.set(reads.get() + 1);
            Ok(7)
        };
        assert_eq!(find_edge(Some(0), read, || 0, &mut |_| false).unwrap(), None);
        assert_eq!(reads.get(), 0);
    }

    #[test]
    fn clock_devices_have_negative_ids() {
        assert_eq!(clock_of(3), (!3 << 3) | 3);
        assert!(clock_of(3) < 0);
    }
}
