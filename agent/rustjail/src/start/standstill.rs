//! Why nothing is heard of a new process.
//!
//! It is born in its container's cgroup, and by and by it is one of the container's. So the container can freeze the cgroup,
//! or stop the process by a signal, or the cgroup's memory can be too little for it. Such a process is waited for no longer
//! than seconds, and the reason is told. One that is merely slow has more time: how fast it goes is up to the machine.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

/// When a process that says nothing is looked at first. Each further look is after twice the time, up to [`LONGEST_SLICE`]: where
/// a hundred start at once, all wait long, and looks would take their time from them.
const SLICE: Duration = Duration::from_millis(100);
const LONGEST_SLICE: Duration = Duration::from_millis(800);

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For a process that is held, all the times that it was together.
    pub(crate) held: Duration,
    /// For any.
    pub(crate) all: Duration,
}

/// What was waited for.
#[derive(Debug)]
pub(crate) enum Awaited {
    /// A word, or the end.
    Heard,
    /// The process is held.
    Held(Hold),
    /// It runs, and says nothing.
    Nothing,
}

/// What holds a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The freezer of its cgroup, or of one above.
    Frozen,
    /// A signal such as SIGSTOP, or a tracer.
    Stopped,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hold::Frozen => "its cgroup is frozen",
            Hold::Stopped => "something has stopped it (SIGSTOP, or a tracer)",
        })
    }
}

/// There was too little memory for a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// The limit of its own cgroup is too low: so many bytes, where that can be read.
    Own(Option<u64>),
    /// Its own cgroup has room: what is used up is a limit above it, as a pod's, or all memory.
    Above,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the process was killed for want of memory before it started: ")?;
        match self {
            Shortage::Own(Some(limit)) => write!(f, "the limit of {limit} bytes is too low"),
            Shortage::Own(None) => f.write_str("a limit is too low"),
            Shortage::Above => f.write_str(
                "not by a limit of its own cgroup, but since the pod's memory, or the guest's, is used up",
            ),
        }
    }
}

/// The cgroup that a process is born in.
#[derive(Debug)]
pub(crate) struct Birthplace {
    cgroup: Option<OwnedFd>,
    /// Processes that it had lost to want of memory before.
    killed_before: u64,
    /// How often its own limit had been met before.
    met_before: u64,
}

impl Birthplace {
    /// To be made before the process. Without a cgroup, or with one that cannot be read, less can be told.
    pub(crate) fn new(cgroup: Option<BorrowedFd<'_>>) -> Birthplace {
        let cgroup = cgroup.and_then(|cgroup| cgroup.try_clone_to_owned().ok());
        let mut birthplace = Birthplace { cgroup, killed_before: 0, met_before: 0 };
        let events = birthplace.read("memory.events");
        (birthplace.killed_before, birthplace.met_before) =
            (count(&events, "oom_kill"), count(&events, "oom"));
        birthplace
    }

    /// Waits until `socket` can be read. `pid` is at its other end.
    pub(crate) fn wait(&self, socket: impl AsFd, pid: i32, patience: Patience) -> io::Result<Awaited> {
        let (start, mut held) = (Instant::now(), Duration::ZERO);
        let (mut looked, mut slice) = (start, SLICE);
        loop {
            // Less than a second, as the constants are.
            let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(slice.subsec_nanos()) };
            match poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&pause)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(Awaited::Heard),
                Err(errno) => return Err(errno.into()),
            }
            let now = Instant::now();
            if let Some(hold) = self.hold(pid) {
                held += now - looked;
                if held >= patience.held {
                    return Ok(Awaited::Held(hold));
                }
            }
            (looked, slice) = (now, (slice * 2).min(LONGEST_SLICE));
            if now - start >= patience.all {
                return Ok(Awaited::Nothing);
            }
        }
    }

    /// Whether the process lacked memory. To be asked once it has ended.
    pub(crate) fn out_of_memory(&self) -> Option<Shortage> {
        let events = self.read("memory.events");
        if count(&events, "oom_kill") <= self.killed_before {
            return None;
        }
        let is_own = count(&events, "oom") > self.met_before;
        Some(if is_own {
            Shortage::Own(self.read("memory.max").trim().parse().ok())
        } else {
            Shortage::Above
        })
    }

    fn hold(&self, pid: i32) -> Option<Hold> {
        // A cgroup counts as frozen once all that live in it stand still.
        if crate::cgroup::flat_keyed(&self.read("cgroup.events"), "frozen") == Some(1) {
            return Some(Hold::Frozen);
        }
        is_stopped(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).then_some(Hold::Stopped)
    }

    fn read(&self, file: &str) -> String {
        let Some(cgroup) = &self.cgroup else { return String::new() };
        let mut text = String::new();
        let opened = rustix::fs::openat(cgroup, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        // Kernels without the controller have no such file.
        drop(opened.map(|file| File::from(file).read_to_string(&mut text)));
        text
    }
}

/// A count of `memory.events`.
fn count(events: &str, key: &str) -> u64 {
    crate::cgroup::flat_keyed(events, key).unwrap_or(0)
}

/// Whether a line of `/proc/PID/stat` is of a process that is stopped or traced (`proc_pid_stat(5)`). The name before the
/// state may have brackets itself.
fn is_stopped(stat: &str) -> bool {
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    matches!(state, Some("T" | "t"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    const SHORT: Patience = Patience { held: Duration::from_millis(300), all: Duration::from_secs(60) };

    fn fake(files: &[(&str, &str)]) -> (tempfile::TempDir, Birthplace) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let birthplace = Birthplace::new(Some(File::open(dir.path()).unwrap().as_fd()));
        (dir, birthplace)
    }

    fn channel() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_stopped_process_is_not_waited_for_long() {
        let (ours, theirs) = channel();
        let mut child = Command::new("/bin/sh").args(["-c", "kill -STOP $$"]).spawn().unwrap();
        let pid = child.id() as i32;
        let start = Instant::now();
        let awaited = Birthplace::new(None).wait(&ours, pid, SHORT).unwrap();
        assert!(matches!(awaited, Awaited::Held(Hold::Stopped)), "{awaited:?}");
        assert!(start.elapsed() < Duration::from_secs(20));
        child.kill().unwrap();
        child.wait().unwrap();
        drop(theirs);
        assert!(matches!(Birthplace::new(None).wait(&ours, pid, SHORT).unwrap(), Awaited::Heard));
    }

    #[test]
    fn one_that_is_slow_has_more_time() {
        let (ours, _theirs) = channel();
        let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).spawn().unwrap();
        let patience = Patience { held: Duration::ZERO, all: Duration::from_millis(700) };
        let (start, pid) = (Instant::now(), child.id() as i32);
        let awaited = Birthplace::new(None).wait(&ours, pid, patience).unwrap();
        assert!(matches!(awaited, Awaited::Nothing), "{awaited:?}");
        assert!(start.elapsed() >= patience.all);
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_frozen_cgroup_is_told() {
        let (ours, _theirs) = channel();
        let (_dir, birthplace) = fake(&[("cgroup.events", "populated 1\nfrozen 1\n")]);
        let awaited = birthplace.wait(&ours, std::process::id() as i32, SHORT).unwrap();
        let Awaited::Held(hold) = awaited else { panic!("{awaited:?}") };
        assert_eq!(hold.to_string(), "its cgroup is frozen");
    }

    #[test]
    fn want_of_memory_is_known_by_a_kill_since() {
        let (dir, birthplace) = fake(&[("memory.events", "oom 3\noom_kill 2\n"), ("memory.max", "4096\n")]);
        assert_eq!(birthplace.out_of_memory(), None);
        std::fs::write(dir.path().join("memory.events"), "oom 4\noom_kill 3\n").unwrap();
        let shortage = birthplace.out_of_memory().unwrap();
        assert!(shortage.to_string().ends_with("the limit of 4096 bytes is too low"), "{shortage}");
        assert_eq!(fake(&[]).1.out_of_memory(), None);
        let (dir, birthplace) = fake(&[("memory.events", "oom 3\noom_kill 2\n"), ("memory.max", "max\n")]);
        std::fs::write(dir.path().join("memory.events"), "oom 3\noom_kill 3\n").unwrap();
        let shortage = birthplace.out_of_memory().unwrap();
        assert!(shortage.to_string().contains("the pod's memory"), "{shortage}");
    }

    #[test]
    fn a_state_is_found_whatever_the_name() {
        assert!(is_stopped("7 (a) R (b)) T 1 7 7"));
        assert!(is_stopped("7 (x) t 1 7"));
        assert!(!is_stopped("7 (T) S 1 7 7"));
        assert!(!is_stopped(""));
    }
}
