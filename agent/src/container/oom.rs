//! Tells of out-of-memory kills: one event for each, whichever container, and which limit it was.
//!
//! One thread sleeps in epoll on the `memory.events` of all watched cgroups (`cgroups.7`: a change wakes EPOLLPRI) and
//! compares their `oom_kill` counts with what it told before. Counting, not listening, is what makes it complete: kills
//! between two wake-ups, or just before a removal, still show in the count. Events that nobody asks for are kept up to a
//! number; more of them would tell nothing new.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustjail::cgroup::{self, Cgroup, EventsFile};
use tokio::sync::mpsc;

use super::id::ContainerId;
use crate::reserve::Reserve;

/// Most events that wait to be asked for.
const MOST_EVENTS: usize = 1024;

/// Whose limit it was that a process was killed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Container,
    Pod,
    /// None: the guest as a whole lacks memory.
    Guest,
}

impl Limit {
    /// By whether the limits were met since the last look.
    fn of(containers: bool, pods: bool) -> Limit {
        match (containers, pods) {
            (true, _) => Limit::Container,
            (false, true) => Limit::Pod,
            (false, false) => Limit::Guest,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Limit::Container => "the container's limit",
            Limit::Pod => "the limit of the pod: its containers together",
            Limit::Guest => "all memory of the guest",
        }
    }
}

/// See the module.
pub(crate) struct OomWatch {
    shared: Arc<Shared>,
    events: tokio::sync::Mutex<mpsc::Receiver<ContainerId>>,
}

struct Shared {
    epoll: OwnedFd,
    watched: Mutex<Watched>,
    told: mpsc::Sender<ContainerId>,
    reserve: Arc<Reserve>,
    /// Has the pod's limits follow the memory that there is.
    follow_memory: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Watched {
    next: u64,
    entries: HashMap<u64, Counted>,
}

struct Counted {
    id: ContainerId,
    cgroup: Arc<Cgroup>,
    /// Kept open: closing it takes it out of the epoll set.
    _events: OwnedFd,
    counted: u64,
    /// How often limits had been met: its own, and the pod's.
    met: (u64, u64),
}

impl OomWatch {
    /// Starts the thread. `follow_memory` is called when processes are killed and their containers' limits were not met:
    /// there may be less memory than the pod's limit says, as where a balloon has taken some, or more by now.
    pub(crate) fn start(
        reserve: Arc<Reserve>,
        follow_memory: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<OomWatch> {
        let (told, events) = mpsc::channel(MOST_EVENTS);
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let shared = Arc::new(Shared {
            epoll,
            watched: Mutex::default(),
            told,
            reserve,
            follow_memory: Box::new(follow_memory),
        });
        let thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("oom".into())
            .stack_size(128 * 1024)
            .spawn(move || thread.watch())?;
        Ok(OomWatch { shared, events: tokio::sync::Mutex::new(events) })
    }

    /// Begins to watch a container's cgroup.
    pub(super) fn add(&self, id: &ContainerId, cgroup: &Arc<Cgroup>) -> Result<(), cgroup::Error> {
        let events = cgroup.open_events(EventsFile::Memory)?;
        let counted = cgroup.oom_kill_count()?;
        let met = (cgroup.memory_limit_hits()?, self.shared.reserve.memory_limit_hits());
        let mut watched = self.shared.watched();
        let key = watched.next;
        watched.next += 1;
        let flags = EventFlags::PRI | EventFlags::ET;
        if let Err(errno) = epoll::add(&self.shared.epoll, &events, EventData::new_u64(key), flags) {
            tracing::error!(container_id = %id, %errno, "memory events are not watched");
            return Ok(());
        }
        let entry = Counted { id: id.clone(), cgroup: Arc::clone(cgroup), _events: events, counted, met };
        watched.entries.insert(key, entry);
        Ok(())
    }

    /// Tells what has not been told, and stops to watch a container. To be called while its cgroup still exists.
    pub(super) fn remove(&self, id: &ContainerId) {
        let mut watched = self.shared.watched();
        let keys: Vec<u64> =
            watched.entries.iter().filter(|(_, entry)| entry.id == *id).map(|(key, _)| *key).collect();
        for key in keys {
            self.shared.tell(&mut watched, key);
            watched.entries.remove(&key);
        }
    }

    /// Waits for the next kill, and gives the container in which it was.
    pub(crate) async fn next(&self) -> Option<ContainerId> {
        self.events.lock().await.recv().await
    }
}

impl Shared {
    fn watched(&self) -> std::sync::MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 16];
        loop {
            match epoll::wait(&self.epoll, &mut events, None) {
                Ok(count) => {
                    let mut watched = self.watched();
                    let mut lacks_memory = false;
                    for event in &events[..count] {
                        let limit = self.tell(&mut watched, event.data.u64());
                        lacks_memory |= matches!(limit, Some(Limit::Pod | Limit::Guest));
                    }
                    drop(watched);
                    if lacks_memory {
                        (self.follow_memory)();
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "out-of-memory kills are no longer watched");
                    return;
                }
            }
        }
    }

    /// Sends an event for each kill since the last look, and tells whose limit it was, if there was any.
    fn tell(&self, watched: &mut Watched, key: u64) -> Option<Limit> {
        let entry = watched.entries.get_mut(&key)?;
        // A cgroup that is gone has told all it had to tell.
        let count = entry.cgroup.oom_kill_count().ok()?;
        if count <= entry.counted {
            return None;
        }
        let met = (entry.cgroup.memory_limit_hits().unwrap_or(entry.met.0), self.reserve.memory_limit_hits());
        let limit = Limit::of(met.0 > entry.met.0, met.1 > entry.met.1);
        for _ in entry.counted..count {
            tracing::warn!(container_id = %entry.id, limit = limit.name(), "a process was killed for lack of memory");
            if self.told.try_send(entry.id.clone()).is_err() {
                tracing::debug!(container_id = %entry.id, "nobody asks for out-of-memory events");
            }
        }
        (entry.counted, entry.met) = (count, met);
        Some(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustjail::cgroup::CgroupPath;
    use std::fs;
    use std::path::Path;

    /// A file system without events, which epoll refuses: [`Shared::tell`] is called by hand.
    fn watch(tree: &Path) -> (OomWatch, Arc<Cgroup>) {
        let events = tree.join("c1/memory.events");
        fs::create_dir(tree.join("c1")).unwrap();
        fs::write(&events, "oom 0\noom_kill 0\n").unwrap();
        let cgroup = Arc::new(Cgroup::open(tree, &CgroupPath::parse("c1", "").unwrap()).unwrap());
        let watch = OomWatch::start(Arc::new(Reserve::new(tree)), || ()).unwrap();
        let id = ContainerId::parse("c1").unwrap();
        let _events = cgroup.open_events(EventsFile::Memory).unwrap();
        let counted = Counted { id, cgroup: Arc::clone(&cgroup), _events, counted: 0, met: (0, 0) };
        watch.shared.watched().entries.insert(7, counted);
        (watch, cgroup)
    }

    #[tokio::test]
    async fn every_kill_is_told_with_its_limit_and_few_are_kept() {
        let tree = tempfile::tempdir().unwrap();
        let (watch, _cgroup) = watch(tree.path());
        let tell = |text: &str| {
            fs::write(tree.path().join("c1/memory.events"), text).unwrap();
            watch.shared.tell(&mut watch.shared.watched(), 7)
        };
        assert_eq!(tell("oom 1\noom_kill 2\n"), Some(Limit::Container));
        assert_eq!(tell("oom 1\noom_kill 2\n"), None);
        assert_eq!(tell("oom 1\noom_kill 3\n"), Some(Limit::Guest));
        for _ in 0..3 {
            assert_eq!(watch.next().await.unwrap().as_str(), "c1");
        }
        tell("oom 1\noom_kill 100000\n");
        let mut kept = 0;
        while watch.events.lock().await.try_recv().is_ok() {
            kept += 1;
        }
        assert_eq!(kept, MOST_EVENTS);
    }

    #[test]
    fn the_nearest_limit_is_named() {
        assert_eq!(Limit::of(true, true), Limit::Container);
        assert_eq!(Limit::of(false, true), Limit::Pod);
        assert_eq!(Limit::of(false, false), Limit::Guest);
    }
}
