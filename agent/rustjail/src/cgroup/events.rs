//! Freezer, kill, and the events a cgroup reports.
//!
//! Owns: `cgroup.freeze`, `cgroup.kill`, `cgroup.events`, `memory.events`. Promises: freezing and thawing return when
//! the kernel says it is done, or at the deadline; a freeze that fails is undone. Must never: send a signal by pid.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Cgroup, Error};

/// How long to trust a poll: long enough to cost nothing, short enough that a lost wake-up is not felt.
const SLICE: Duration = Duration::from_millis(100);

/// A file that reports events: it turns ready for `POLLPRI` (`EPOLLPRI`) whenever it has been changed since it was
/// last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventsFile {
    /// `cgroup.events`: `populated` and `frozen`.
    Cgroup,
    /// `memory.events`: `oom_kill` and its like, counted over the cgroup and all below it.
    Memory,
}

impl EventsFile {
    fn name(self) -> &'static str {
        match self {
            EventsFile::Cgroup => "cgroup.events",
            EventsFile::Memory => "memory.events",
        }
    }
}

impl Cgroup {
    /// Opens an events file to be polled.
    ///
    /// # Errors
    /// [`Error::NoController`] or [`Error::NoFile`] if the kernel does not have it.
    pub fn open_events(&self, file: EventsFile) -> Result<OwnedFd, Error> {
        match self.directory.open_file(file.name())? {
            Some(fd) => Ok(fd),
            None => Err(self.explain_missing(file.name())?),
        }
    }

    /// Whether a process lives in the cgroup or below it. A cgroup that is gone has none.
    pub fn populated(&self) -> Result<bool, Error> {
        Ok(self.event("cgroup.events", "populated")? == Some(1))
    }

    /// How many processes of the cgroup, or below it, the kernel has killed for want of memory so far.
    pub fn oom_kill_count(&self) -> Result<u64, Error> {
        Ok(self.event("memory.events", "oom_kill")?.unwrap_or(0))
    }

    /// How often processes of the cgroup, or below it, have met its own limit of memory, or one below it, and nothing could be
    /// reclaimed any more. Limits above it are not counted.
    pub fn memory_limit_hits(&self) -> Result<u64, Error> {
        Ok(self.event("memory.events", "oom")?.unwrap_or(0))
    }

    /// Kills every process in the cgroup and below it, also frozen ones and any that they fork meanwhile
    /// (`cgroup.kill`, Linux 5.14). Returns before they are dead.
    pub fn kill(&self) -> Result<(), Error> {
        match self.directory.write("cgroup.kill", "1") {
            Ok(true) => Ok(()),
            // Without its files the cgroup has been removed: nothing is left to kill.
            Ok(false) if !self.directory.has("cgroup.procs") => Ok(()),
            Ok(false) => Err(self.explain_missing("cgroup.kill")?),
            Err(error) if error.vanished() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Stops every process in the cgroup and below it, and waits until they stand still.
    ///
    /// # Errors
    /// [`Error::Timeout`] if a process did not stop in time (one stuck in the kernel never does); all of them run
    /// again then.
    pub fn freeze(&self, deadline: Duration) -> Result<(), Error> {
        self.set_frozen(true, deadline).inspect_err(|_| {
            // The caller gets the first error; if this write fails too, there is nothing more to do about it.
            drop(self.directory.write("cgroup.freeze", "0"));
        })
    }

    /// Lets the processes run again, and waits until the kernel says so.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the cgroup is still frozen at the deadline, as when one above it is.
    pub fn thaw(&self, deadline: Duration) -> Result<(), Error> {
        self.set_frozen(false, deadline)
    }

    fn set_frozen(&self, frozen: bool, deadline: Duration) -> Result<(), Error> {
        let start = Instant::now();
        // Opened before the write, so that the change cannot fall between the two.
        let events = self.open_events(EventsFile::Cgroup)?;
        if !self.directory.write("cgroup.freeze", if frozen { "1" } else { "0" })? {
            return Err(self.explain_missing("cgroup.freeze")?);
        }
        loop {
            if self.event_of(&events, "frozen")? == Some(u64::from(frozen)) {
                return Ok(());
            }
            let waited = start.elapsed();
            if waited >= deadline {
                let awaited = if frozen { "is not frozen" } else { "is still frozen" };
                return Err(Error::Timeout { path: self.path().to_owned(), awaited, waited });
            }
            wait_for_event(&events, SLICE.min(deadline - waited))
                .map_err(|errno| self.events_error("poll", errno))?;
        }
    }

    fn event(&self, file: &str, key: &str) -> Result<Option<u64>, Error> {
        Ok(self.directory.read(file)?.and_then(|text| flat_keyed(&text, key)))
    }

    /// A value in the open `cgroup.events`; reading it also arms the next poll.
    fn event_of(&self, events: &OwnedFd, key: &str) -> Result<Option<u64>, Error> {
        let mut buffer = [0u8; 512];
        match rustix::io::pread(events, &mut buffer, 0) {
            Ok(length) => Ok(flat_keyed(&String::from_utf8_lossy(&buffer[..length]), key)),
            Err(errno) => Err(self.events_error("read", errno)),
        }
    }

    fn events_error(&self, operation: &'static str, errno: rustix::io::Errno) -> Error {
        Error::Io { operation, path: self.path().join("cgroup.events"), source: errno.into() }
    }
}

fn wait_for_event(events: &OwnedFd, slice: Duration) -> Result<(), rustix::io::Errno> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(slice.subsec_nanos()) };
    match poll(&mut [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::PRI)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The value of `key` in a flat keyed file (`KEY VALUE` lines).
pub(crate) fn flat_keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::fake;
    use super::*;

    fn text(tree: &Path, file: &str) -> String {
        fs::read_to_string(tree.join("c1").join(file)).unwrap()
    }

    #[test]
    fn a_key_is_matched_whole() {
        let text = "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(flat_keyed(text, "oom"), Some(1));
        assert_eq!(flat_keyed(text, "oom_kill"), Some(2));
        assert_eq!(flat_keyed(text, "oom_"), None);
        assert_eq!(flat_keyed("oom_kill many\n", "oom_kill"), None);
    }

    #[test]
    fn freeze_waits_for_the_kernel() {
        let (tree, cgroup) = fake(&[("cgroup.freeze", "0"), ("cgroup.events", "populated 1\nfrozen 0\n")]);
        let events = tree.path().join("c1/cgroup.events");
        let kernel = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            fs::write(events, "populated 1\nfrozen 1\n").unwrap();
        });
        cgroup.freeze(Duration::from_secs(20)).unwrap();
        kernel.join().unwrap();
        assert_eq!(text(tree.path(), "cgroup.freeze"), "1");
        assert!(cgroup.populated().unwrap());
    }

    #[test]
    fn a_freeze_that_never_comes_is_undone() {
        let (tree, cgroup) = fake(&[("cgroup.freeze", "0"), ("cgroup.events", "populated 1\nfrozen 0\n")]);
        let error = cgroup.freeze(Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        assert_eq!(text(tree.path(), "cgroup.freeze"), "0");
    }

    #[test]
    fn a_kernel_without_the_file_is_said_so() {
        let (_tree, cgroup) = fake(&[("cgroup.procs", ""), ("cgroup.events", "populated 0\nfrozen 0\n")]);
        assert!(cgroup.kill().unwrap_err().to_string().contains("5.14"));
        assert!(cgroup.freeze(Duration::ZERO).unwrap_err().to_string().contains("5.2"));
        assert!(cgroup.open_events(EventsFile::Memory).unwrap_err().to_string().contains("CONFIG_MEMCG"));
        assert_eq!(cgroup.oom_kill_count().unwrap(), 0);
    }

    #[test]
    fn the_oom_kills_are_counted() {
        let (_tree, cgroup) = fake(&[("memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\n")]);
        assert_eq!(cgroup.oom_kill_count().unwrap(), 2);
        assert_eq!(cgroup.memory_limit_hits().unwrap(), 1);
    }
}
