//! Watches of directories, and the watchers that clients ask for by id.
//!
//! Each has a task that reads what the kernel tells as it comes, on a thread for files, so that directories below are watched
//! early and the kernel's own queue does not run over. Whoever asks for events reads what is left first: nothing that
//! happened before the question is missing in the answer. A watch ends with its container, whose file systems it would keep.

mod budget;
mod event;
mod network;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use event::{Event, Events};
pub(crate) use tree::Options;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::budget::Budget;
use self::event::{Kept, MOST_KEPT_BY_ALL};
use self::tree::{MOST_DIRECTORIES, Tree};
use crate::sandbox_api::rooted::{FileError, Root, Stop, Workers};
use crate::sandbox_api::task;
use crate::sys::readable::readable;

/// Watches at the same time.
pub(crate) const MOST_WATCHES: usize = 32;
/// A watcher whose client has not asked for so long makes room for another one.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Between two looks at what happened: who makes very many events keeps no thread busy.
const PAUSE: Duration = Duration::from_millis(5);

/// A directory that is watched. Dropped, it is not any more.
#[derive(Debug)]
pub(crate) struct Watch {
    inner: Arc<Inner>,
    reader: JoinHandle<()>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Inner {
    workers: Workers,
    state: Mutex<State>,
    /// Something happened, or the watch is over.
    news: Notify,
}

#[derive(Debug)]
struct State {
    /// None when the container is gone.
    tree: Option<Tree>,
    kept: Kept,
    /// What the next answer is: the events, after one that said that some were lost.
    owes_events: bool,
    /// A stream ends next: events were lost after those that it was told last.
    owes_loss: bool,
    error: Option<FileError>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what happened. Whether there may be more. Blocks.
    fn drain(&self) -> bool {
        let mut state = self.state();
        let State { tree: Some(tree), kept, error, .. } = &mut *state else { return false };
        // Events that were read must be kept, whoever goes away meanwhile.
        match tree.drain(kept, &Stop::default()) {
            Ok(more) => more,
            Err(failed) => {
                *error = Some(failed);
                state.tree = None;
                false
            }
        }
    }

    fn end(&self) {
        // To close it takes the kernel a moment.
        let tree = self.state().tree.take();
        // Without a runtime the agent ends, and has time.
        if let (Some(tree), Ok(_runtime)) = (tree, tokio::runtime::Handle::try_current()) {
            drop(task::blocking(move || drop(tree)));
        }
        self.news.notify_one();
    }

    /// Reads as long as the container is there.
    async fn read(self: Arc<Inner>, gone: impl Future<Output = ()> + Send + 'static) {
        let mut gone = std::pin::pin!(gone);
        let Some(descriptor) = self.state().tree.as_ref().map(Tree::descriptor) else { return };
        let Ok(descriptor) = readable(descriptor) else {
            return self.end();
        };
        let mut more = false;
        loop {
            if !more {
                let ready = tokio::select! {
                    biased;
                    // First: a directory in which something happens all the time must not hide it.
                    () = &mut gone => break,
                    ready = descriptor.readable() => ready,
                };
                match ready {
                    Ok(mut ready) => ready.clear_ready(),
                    Err(_) => break,
                }
            }
            let inner = Arc::clone(&self);
            more = match self.workers.run(move |_| Ok((inner.drain(), inner.state().tree.is_some()))).await {
                Ok((more, true)) => more,
                _ => break,
            };
            if !self.state().kept.is_empty() {
                self.news.notify_one();
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.end();
    }
}

impl Watch {
    /// What happened since the last question, up to now.
    ///
    /// # Errors
    /// Exhausted if events were lost. The next question is answered with those that are kept. NotFound when the container is
    /// gone.
    pub(crate) async fn events(&self) -> Result<Events, FileError> {
        let inner = Arc::clone(&self.inner);
        let drain = move |_: &Stop| {
            while inner.drain() {}
            Ok(())
        };
        self.inner.workers.run(drain).await?;
        let mut state = self.inner.state();
        // Told first: who asks once only must not take what is left for all.
        state.owes_events = !state.owes_events && state.kept.take_loss();
        if state.owes_events {
            return Err(lost());
        }
        state.take()
    }

    /// Waits until something happens, and tells it.
    ///
    /// # Errors
    /// Exhausted if events were lost after those that were told; NotFound when the container is gone.
    pub(crate) async fn next(&self) -> Result<Events, FileError> {
        loop {
            {
                let mut state = self.inner.state();
                let is_lossy = state.owes_loss || (!state.kept.has_events() && state.kept.take_loss());
                if is_lossy {
                    return Err(lost());
                }
                let events = state.take()?;
                if !events.is_empty() {
                    state.owes_loss = state.kept.take_loss();
                    return Ok(events);
                }
            }
            self.inner.news.notified().await;
        }
    }
}

impl State {
    /// Takes the events; the error that ended the watch once there is none.
    fn take(&mut self) -> Result<Events, FileError> {
        if self.kept.has_events() {
            return Ok(self.kept.take());
        }
        match (self.error.take(), &self.tree) {
            (Some(error), _) => Err(error),
            (None, None) => Err(FileError::Missing("of a container that has ended".to_owned())),
            _ => Ok(self.kept.take()),
        }
    }
}

fn lost() -> FileError {
    let why = "more happened than was asked for, or more directories were made than can be watched";
    FileError::Exhausted(format!("events were lost: {why}; list the directory to know what is there"))
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reader.abort();
        self.inner.end();
    }
}

/// All watches, and those that have an id. A clone has the same ones.
#[derive(Debug, Clone)]
pub(crate) struct Watches {
    workers: Workers,
    room: Arc<Semaphore>,
    directories: Budget,
    events: Budget,
    by_id: Arc<Mutex<HashMap<String, Asked>>>,
}

#[derive(Debug)]
struct Asked {
    watch: Arc<Watch>,
    last: Instant,
}

impl Watches {
    /// None yet.
    pub(crate) fn new(workers: Workers) -> Watches {
        let room = Arc::new(Semaphore::new(MOST_WATCHES));
        let (directories, events) = (Budget::new(MOST_DIRECTORIES), Budget::new(MOST_KEPT_BY_ALL));
        Watches { workers, room, directories, events, by_id: Arc::default() }
    }

    fn by_id(&self) -> MutexGuard<'_, HashMap<String, Asked>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a directory until `gone` says that its container is. File systems of a network are refused unless they are allowed.
    ///
    /// # Errors
    /// When the directory cannot be watched, or too much is watched already.
    pub(crate) async fn watch(
        &self,
        root: Root,
        options: Options,
        allow_network: bool,
        gone: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Watch, FileError> {
        let permit = self.permit()?;
        let budget = self.directories.clone();
        let tree = self.workers.run(move |stop| {
            let path = options.path.as_str();
            let top = match root.directory(path) {
                Err(rustix::io::Errno::NOTDIR) => {
                    return Err(FileError::Invalid(format!(
                        "path {path} not a directory: only directories can be watched"
                    )));
                }
                top => top.map_err(FileError::during("watch", path))?,
            };
            if !allow_network && network::is_network(&top).map_err(FileError::during("watch", path))? {
                return Err(FileError::Network(path.to_owned()));
            }
            Tree::new(root, top, options, budget, stop)
        });
        let kept = Kept::new(self.events.clone());
        let state =
            State { tree: Some(tree.await?), kept, owes_events: false, owes_loss: false, error: None };
        let inner =
            Arc::new(Inner { workers: self.workers.clone(), state: Mutex::new(state), news: Notify::new() });
        let reader = task::spawn(Arc::clone(&inner).read(gone));
        Ok(Watch { inner, reader, _permit: permit })
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, FileError> {
        let try_one = || Arc::clone(&self.room).try_acquire_owned();
        if let Ok(permit) = try_one() {
            return Ok(permit);
        }
        let forgotten = {
            let mut by_id = self.by_id();
            let oldest =
                by_id.iter().min_by_key(|(_, asked)| asked.last).map(|(id, asked)| (id.clone(), asked.last));
            oldest.filter(|(_, last)| last.elapsed() >= FORGOTTEN).and_then(|(id, _)| by_id.remove(&id))
        };
        drop(forgotten);
        try_one().map_err(|_| {
            FileError::Exhausted(format!(
                "there are {MOST_WATCHES} watches already: stop those that are not needed"
            ))
        })
    }

    /// Keeps a watch for a client that asks. Gives its id.
    pub(crate) fn keep(&self, watch: Watch) -> String {
        let mut by_id = self.by_id();
        loop {
            let id = format!("w{:016x}", RandomState::new().build_hasher().finish());
            if !by_id.contains_key(&id) {
                by_id.insert(id.clone(), Asked { watch: Arc::new(watch), last: Instant::now() });
                return id;
            }
        }
    }

    /// Events of a watch that was kept.
    ///
    /// # Errors
    /// NotFound for an unknown id; see [`Watch::events`].
    pub(crate) async fn events(&self, id: &str) -> Result<Events, FileError> {
        let watch = {
            let mut by_id = self.by_id();
            let asked = by_id.get_mut(id).ok_or_else(|| FileError::NoWatcher(id.to_owned()))?;
            asked.last = Instant::now();
            Arc::clone(&asked.watch)
        };
        let events = watch.events().await;
        if watch.inner.state().tree.is_none() && events.is_err() {
            drop(self.remove(id));
            return Err(FileError::NoWatcher(id.to_owned()));
        }
        events
    }

    /// Ends a watch that was kept.
    ///
    /// # Errors
    /// NotFound for an unknown id.
    pub(crate) fn remove(&self, id: &str) -> Result<(), FileError> {
        let removed = self.by_id().remove(id);
        removed.map(drop).ok_or_else(|| FileError::NoWatcher(id.to_owned()))
    }
}
