//! A process that takes as much as it is told of what the kernel counts per user or in total, and keeps it.
//!
//! Promises one line in a file when it has all, or when the kernel refuses more: how many it has, and the refusal.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::inotify;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::UnshareFlags;

/// Descriptors of one epoll instance.
const WATCHED: usize = 512;

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
        "mounts" => Held::unshare,
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

    /// A mount namespace more, kept by a descriptor. All of them are in a user namespace, which anybody may make.
    fn unshare(&mut self) -> io::Result<()> {
        let first = if self.descriptors.is_empty() { UnshareFlags::NEWUSER } else { UnshareFlags::empty() };
        crate::sys::unshare(first | UnshareFlags::NEWNS)?;
        self.descriptors.push(File::open("/proc/self/ns/mnt")?.into());
        Ok(())
    }
}
