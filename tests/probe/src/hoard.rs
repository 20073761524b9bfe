//! A process that takes as much as it is told of what the kernel counts per user or in total, and keeps it.
//!
//! Promises one line in a file when it has all, or when the kernel refuses more: how many it has, and the refusal.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::inotify;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::UnshareFlags;

/// Descriptors of one epoll instance.
const WATCHED: usize = 512;
/// Threads that end again.
const FEW: usize = 8;

/// Takes `count` of a kind, says so in `file`, and waits for its end.
///
/// # Errors
/// An unknown kind, and a file that cannot be written.
pub(crate) fn hoard(kind: &str, count: &str, file: &str) -> io::Result<()> {
    let count: usize = count.parse().map_err(io::Error::other)?;
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    let mut held = Held::default();
    let take: fn(&mut Held) -> io::Result<()> = match kind {
        "epoll" => Held::watch,
        "inotify" => Held::notify,
        "files" => Held::open,
        "mounts" => Held::mounts,
        "uts" => Held::uts,
        "times" => Held::times,
        "cgroups" => Held::cgroups,
        "ipc" => Held::ipc,
        "nets" => Held::nets,
        "threads" => Held::thread,
        "pipes" => Held::pipe,
        "timers" => Held::timer,
        "queues" => Held::queue,
        "requests" => Held::requests,
        "groups" => Held::group,
        "keys" => Held::key,
        "terminals" => Held::terminal,
        "made-cgroups" => Held::cgroup,
        _ => return Err(io::Error::other(format!("{kind} is no kind"))),
    };
    let mut refusal = String::from("all");
    let taken = (0..count).take_while(|_| match take(&mut held) {
        Ok(()) => true,
        Err(error) => {
            refusal = error.to_string();
            false
        }
    });
    let line = format!("{} {refusal}\n", taken.count());
    held.make_room();
    std::fs::write(file, line)?;
    loop {
        std::thread::park();
    }
}

#[derive(Default)]
struct Held {
    descriptors: Vec<OwnedFd>,
    watched: Vec<OwnedFd>,
    watches: usize,
    /// How many of a kind without descriptors.
    taken: usize,
    /// Each ends when it is told so and unparked.
    threads: Vec<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Held {
    fn open(&mut self) -> io::Result<()> {
        self.descriptors.push(eventfd(0, EventfdFlags::CLOEXEC)?);
        Ok(())
    }

    fn notify(&mut self) -> io::Result<()> {
        self.descriptors.push(inotify::init(inotify::CreateFlags::CLOEXEC)?);
        Ok(())
    }

    /// One watch more; an instance more whenever all is watched by the last one.
    fn watch(&mut self) -> io::Result<()> {
        if self.watched.len() < WATCHED {
            self.watched.push(eventfd(0, EventfdFlags::CLOEXEC)?);
        }
        let number = self.watches % WATCHED;
        if number == 0 {
            self.descriptors.push(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        }
        let instance = self.descriptors.last().ok_or(io::ErrorKind::NotFound)?;
        epoll::add(instance, &self.watched[number], epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        self.watches += 1;
        Ok(())
    }

    /// A namespace more, kept by a descriptor. All of them are in a user namespace, which anybody may make.
    fn unshare(&mut self, kind: UnshareFlags, name: &str) -> io::Result<()> {
        let first = if self.taken == 0 { UnshareFlags::NEWUSER } else { UnshareFlags::empty() };
        crate::sys::unshare(first | kind)?;
        self.taken += 1;
        self.descriptors.push(File::open(format!("/proc/self/ns/{name}"))?.into());
        Ok(())
    }

    fn mounts(&mut self) -> io::Result<()> {
        self.unshare(UnshareFlags::NEWNS, "mnt")
    }

    fn uts(&mut self) -> io::Result<()> {
        self.unshare(UnshareFlags::NEWUTS, "uts")
    }

    fn times(&mut self) -> io::Result<()> {
        self.unshare(UnshareFlags::NEWTIME, "time_for_children")
    }

    fn cgroups(&mut self) -> io::Result<()> {
        self.unshare(UnshareFlags::NEWCGROUP, "cgroup")
    }

    fn ipc(&mut self) -> io::Result<()> {
        self.unshare(UnshareFlags::NEWIPC, "ipc")
    }

    fn nets(&mut self) -> io::Result<()> {
        self.unshare(UnshareFlags::NEWNET, "net")
    }

    fn thread(&mut self) -> io::Result<()> {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let builder = std::thread::Builder::new().stack_size(16 << 10);
        let thread = builder.spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                std::thread::park();
            }
        })?;
        self.threads.push((is_over, thread));
        Ok(())
    }

    /// Ends a few threads, so that somebody can run a program beside this one to ask for the outcome.
    fn make_room(&mut self) {
        for (is_over, thread) in self.threads.drain(self.threads.len().saturating_sub(FEW)..) {
            is_over.store(true, Ordering::Relaxed);
            thread.thread().unpark();
            drop(thread.join());
        }
    }

    /// A pipe of the usual size; the kernel makes smaller ones for who has too many.
    fn pipe(&mut self) -> io::Result<()> {
        let (reader, writer) = rustix::pipe::pipe()?;
        let size = rustix::pipe::fcntl_getpipe_size(&reader)?;
        if size < 65_536 {
            return Err(io::Error::other(format!("a pipe of {size} bytes")));
        }
        self.descriptors.extend([reader, writer]);
        Ok(())
    }

    fn timer(&mut self) -> io::Result<()> {
        crate::sys::timer()
    }

    fn queue(&mut self) -> io::Result<()> {
        self.taken += 1;
        crate::sys::queue(self.taken)
    }

    fn requests(&mut self) -> io::Result<()> {
        crate::sys::requests(4096)
    }

    fn group(&mut self) -> io::Result<()> {
        self.descriptors.push(crate::sys::watch_group()?);
        Ok(())
    }

    fn key(&mut self) -> io::Result<()> {
        self.taken += 1;
        crate::sys::add_key(self.taken, 16_000)
    }

    fn terminal(&mut self) -> io::Result<()> {
        self.descriptors.push(File::options().read(true).write(true).open("/dev/ptmx")?.into());
        Ok(())
    }

    /// A cgroup below the process's own, in a hierarchy that anybody may mount who is in a user namespace.
    fn cgroup(&mut self) -> io::Result<()> {
        const MOUNT: &str = "/tmp/cgroup";
        if self.taken == 0 {
            crate::sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP)?;
            std::fs::write("/proc/self/uid_map", "0 0 1")?;
            std::fs::create_dir_all(MOUNT)?;
            rustix::mount::mount("cgroup2", MOUNT, "cgroup2", rustix::mount::MountFlags::empty(), None)?;
        }
        self.taken += 1;
        std::fs::create_dir(format!("{MOUNT}/{}", self.taken))
    }
}
