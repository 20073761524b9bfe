//! Signs that the machine may have been stopped, saved, and continued later or elsewhere, and the wait for them.
//!
//! | sign | what it means | who tells |
//! |---|---|---|
//! | forked | a restored copy of the machine: it has a new generation id (VMGenID) | the kernel's log, and nothing else of Linux 6.12: `drivers/virt/vmgenid.c` sends no event to user space |
//! | reset | saved, restored or moved: the host's vsock device has ended all connections at once | whoever reads one of them |
//! | still | the machine's clocks jumped, as KVM's can after a restore | a sleep that was too long |
//!
//! None of them costs a machine anything that nothing happens to.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// What the kernel logs when it has seen a new generation id and has seeded its generator (`drivers/char/random.c`).
const FORKED: &[u8] = b"random: crng reseeded due to virtual machine fork";
/// The longest record of `/dev/kmsg`: `PRINTK_MESSAGE_MAX` of Linux 6.12.
const RECORD: usize = 2048;
/// Records that are read before anything else gets its turn.
const RECORDS: usize = 256;
/// A sleep that was longer than this beyond its time was none.
const OVERSLEPT: Duration = Duration::from_secs(5);

/// What has been noticed since the last time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Signs {
    pub(super) is_forked: bool,
    pub(super) is_reset: bool,
    pub(super) is_still: bool,
    /// The host has connected or set the clock: no sign of anything, but a moment to look at the clock.
    pub(super) is_asked: bool,
}

impl Signs {
    /// Whether the machine may have been restored.
    pub(super) fn is_urgent(self) -> bool {
        self.is_forked | self.is_reset | self.is_still
    }

    pub(super) fn any(self) -> bool {
        self != Signs::default()
    }

    pub(super) fn and(self, other: Signs) -> Signs {
        Signs {
            is_forked: self.is_forked | other.is_forked,
            is_reset: self.is_reset | other.is_reset,
            is_still: self.is_still | other.is_still,
            is_asked: self.is_asked | other.is_asked,
        }
    }
}

/// Wakes an [`Ear`].
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub(super) fn new() -> io::Result<Bell> {
        Ok(Bell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(super) fn ring(&self) {
        // It fails when it has rung very often and nobody came: one more makes no difference.
        rustix::io::write(&self.0, &1u64.to_ne_bytes()).ok();
    }

    fn quieten(&self) -> bool {
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }
}

/// Hears signs.
pub(super) struct Ear {
    kernel: Option<File>,
}

impl Ear {
    /// Listens to what the kernel logs from now on.
    pub(super) fn open() -> Ear {
        let open = || -> io::Result<File> {
            let flags = OFlags::NONBLOCK.bits().cast_signed();
            let mut log = File::options().read(true).custom_flags(flags).open("/dev/kmsg")?;
            log.seek(SeekFrom::End(0))?;
            Ok(log)
        };
        let kernel = open();
        if let Err(error) = &kernel {
            tracing::warn!(%error, "/dev/kmsg cannot be read: a restore is noticed later");
        }
        Ear { kernel: kernel.ok() }
    }

    /// Waits for signs of the kernel's and for the bell, whose signs `take` takes, until `at_most` is over.
    pub(super) fn wait(&mut self, bell: &Bell, at_most: Option<Duration>, take: &dyn Fn() -> Signs) -> Signs {
        let start = Instant::now();
        loop {
            let left = at_most.map(|time| time.saturating_sub(start.elapsed()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut sources = vec![PollFd::new(&bell.0, PollFlags::IN)];
            sources.extend(self.kernel_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let ready = poll(&mut sources, timeout.as_ref());
            let slept = start.elapsed();
            let mut signs = Signs::default();
            match ready {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "cannot wait for signs of a restore");
                    std::thread::sleep(at_most.unwrap_or(Duration::from_secs(1)));
                }
            }
            if bell.quieten() {
                signs = signs.and(take());
            }
            signs.is_forked |= self.kernel.as_mut().is_some_and(tells_of_fork);
            signs.is_still |= at_most.is_some_and(|time| slept > time + OVERSLEPT);
            let is_over = at_most.is_some_and(|time| slept >= time);
            if signs.any() || is_over {
                return signs;
            }
        }
    }

    fn kernel_fd(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.as_ref().map(|log| log.as_fd())
    }
}

/// Reads what is new in the kernel's log.
fn tells_of_fork(log: &mut File) -> bool {
    let mut record = [0; RECORD];
    let mut is_forked = false;
    for _ in 0..RECORDS {
        match log.read(&mut record) {
            Ok(count) => is_forked |= is_fork(&record[..count]),
            // Records were overwritten before they were read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    is_forked
}

/// Whether a record is the kernel's own and tells of a new generation id (Documentation/ABI/testing/dev-kmsg: priority and
/// facility, sequence, time and flags, a semicolon, text). What a program writes there has another facility than 0.
fn is_fork(record: &[u8]) -> bool {
    let Some(at) = record.iter().position(|byte| *byte == b';') else { return false };
    let (prefix, text) = (&record[..at], &record[at + 1..]);
    let level = prefix.split(|byte| *byte == b',').next().unwrap_or_default();
    let level = str::from_utf8(level).ok().and_then(|level| level.parse::<u32>().ok());
    level.is_some_and(|level| level >> 3 == 0) && text.starts_with(FORKED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_tells_of_forks() {
        assert!(is_fork(b"5,412,1234567,-;random: crng reseeded due to virtual machine fork\n"));
        for record in [
            // A program wrote it: facility 1.
            &b"13,412,1234567,-;random: crng reseeded due to virtual machine fork\n"[..],
            b"5,412,1234567,-;random: crng init done\n",
            b"5,412,1234567,-;x random: crng reseeded due to virtual machine fork\n",
            b"random: crng reseeded due to virtual machine fork\n",
            b"",
        ] {
            assert!(!is_fork(record), "{}", String::from_utf8_lossy(record));
        }
    }

    #[test]
    fn the_bell_ends_a_wait_with_the_signs_that_were_left() {
        let (bell, mut ear) = (Bell::new().unwrap(), Ear { kernel: None });
        let take = || Signs { is_reset: true, ..Signs::default() };
        bell.ring();
        bell.ring();
        assert!(ear.wait(&bell, None, &take).is_reset);
        assert_eq!(ear.wait(&bell, Some(Duration::from_millis(1)), &take), Signs::default());
    }
}
