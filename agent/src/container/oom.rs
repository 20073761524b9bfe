//! Tells of out-of-memory kills: one event for each, whichever container, none lost.
//!
//! One thread sleeps in epoll on the `memory.events` of all watched cgroups (`cgroups.7`: a change wakes EPOLLPRI) and
//! compares their `oom_kill` counts with what it told before. Counting, not listening, is what makes it complete: kills
//! between two wake-ups, or just before a removal, still show in the count.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustjail::cgroup::{self, Cgroup, EventsFile};
use tokio::sync::mpsc;

use super::id::ContainerId;

/// See the module.
pub(crate) struct OomWatch {
    shared: Arc<Shared>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<ContainerId>>,
}

struct Shared {
    epoll: OwnedFd,
    watched: Mutex<Watched>,
    told: mpsc::UnboundedSender<ContainerId>,
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
}

impl OomWatch {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<OomWatch> {
        let (told, events) = mpsc::unbounded_channel();
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let shared = Arc::new(Shared { epoll, watched: Mutex::default(), told });
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
        let mut watched = self.shared.watched();
        let key = watched.next;
        watched.next += 1;
        let flags = EventFlags::PRI | EventFlags::ET;
        if let Err(errno) = epoll::add(&self.shared.epoll, &events, EventData::new_u64(key), flags) {
            tracing::error!(container_id = %id, %errno, "memory events are not watched");
            return Ok(());
        }
        let entry = Counted { id: id.clone(), cgroup: Arc::clone(cgroup), _events: events, counted };
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
                    for event in &events[..count] {
                        self.tell(&mut watched, event.data.u64());
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

    /// Sends an event for each kill since the last look.
    fn tell(&self, watched: &mut Watched, key: u64) {
        let Some(entry) = watched.entries.get_mut(&key) else { return };
        // A cgroup that is gone has told all it had to tell.
        let Ok(count) = entry.cgroup.oom_kill_count() else { return };
        for _ in entry.counted..count {
            tracing::warn!(container_id = %entry.id, "a process was killed for lack of memory");
            // The receiver lives as long as the agent.
            drop(self.told.send(entry.id.clone()));
        }
        entry.counted = entry.counted.max(count);
    }
}
