//! What all work on files shares: its threads, and room for what takes memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sandbox_api::http::{Body, BodyError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::filesystem::Watches;
use super::rooted::{FileError, Workers};

/// Files that are on their way in at the same time. More wait until one has passed, or stands still.
pub(crate) const MOST_UPLOADS: usize = 64;
/// Files that are on their way out in large pieces at the same time. More go in small ones.
pub(crate) const MOST_LARGE_DOWNLOADS: usize = 64;
/// Bytes of a large piece: four whole writes to a vsock, and less than what the heap would map anew each time.
pub(crate) const LARGE_PIECE: usize = 4 * crate::listen::LARGEST_WRITE;
/// Bytes of a small piece.
pub(crate) const SMALL_PIECE: usize = 8 << 10;
/// Trees that are under way at the same time; each has a thread.
pub(crate) const MOST_TREES: usize = 4;
/// What has not moved for so long gives its place to what waits for one.
pub(crate) const STALLED: Duration = Duration::from_secs(20);
/// Lists of directories that are made at the same time, for their memory.
pub(crate) const MOST_LISTS: usize = 2;
/// Large lists that clients have not read to their end.
pub(crate) const MOST_UNREAD_LISTS: usize = 4;
/// How long another one waits for that.
const READING: Duration = Duration::from_secs(10);
/// How long a client may take nothing of a large list, or of many events.
pub(crate) const LISTENING: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Storage {
    /// Threads.
    pub(super) workers: Workers,
    /// Directories that are watched.
    pub(super) watches: Watches,
    /// For files on their way in.
    pub(super) uploads: Places,
    /// For trees.
    pub(super) trees: Places,
    downloads: Arc<AtomicUsize>,
    lists: Arc<Semaphore>,
    unread_lists: Arc<Semaphore>,
}

impl Default for Storage {
    fn default() -> Storage {
        let room = |count| Arc::new(Semaphore::new(count));
        let workers = Workers::default();
        Storage {
            watches: Watches::new(workers.clone()),
            workers,
            uploads: Places::new(MOST_UPLOADS),
            trees: Places::new(MOST_TREES),
            downloads: Arc::default(),
            lists: room(MOST_LISTS),
            unread_lists: room(MOST_UNREAD_LISTS),
        }
    }
}

impl Storage {
    /// Counts a file on its way out. It never waits, since its client may never read: it has smaller pieces where there are
    /// many.
    pub(super) fn download(&self) -> Download {
        let count = self.downloads.fetch_add(1, Ordering::Relaxed);
        let piece = if count < MOST_LARGE_DOWNLOADS { LARGE_PIECE } else { SMALL_PIECE };
        Download { piece, count: Arc::clone(&self.downloads) }
    }

    /// Waits until a list may be made.
    pub(super) async fn list(&self) -> Result<OwnedSemaphorePermit, FileError> {
        wait(&self.lists).await
    }

    /// Waits until a large list may be sent; not for ever, since clients may not read.
    pub(super) async fn unread_list(&self) -> Result<OwnedSemaphorePermit, FileError> {
        tokio::time::timeout(READING, wait(&self.unread_lists)).await.unwrap_or_else(|_| {
            let text = format!("{MOST_UNREAD_LISTS} large lists are not read to their end yet");
            Err(FileError::Exhausted(text))
        })
    }
}

/// A file on its way out.
#[derive(Debug)]
pub(super) struct Download {
    /// Bytes that it may hold.
    pub(super) piece: usize,
    count: Arc<AtomicUsize>,
}

impl Drop for Download {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Places for what clients send or take, and may stop to. A clone has the same places.
#[derive(Debug, Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// Those who wait for a place.
    waiting: Arc<AtomicUsize>,
    /// A permit for each of them, for whom nobody has made room yet.
    wanted: Arc<Semaphore>,
}

impl Places {
    fn new(count: usize) -> Places {
        let wanted = Arc::new(Semaphore::new(0));
        Places { free: Arc::new(Semaphore::new(count)), waiting: Arc::default(), wanted }
    }

    /// Waits for a place.
    pub(super) async fn take(&self) -> Result<OwnedSemaphorePermit, FileError> {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(place);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.wanted.add_permits(1);
        let _waiting = Waiting(self);
        wait(&self.free).await
    }

    /// Ends when whoever calls has not moved for [`STALLED`], and somebody waits for the place.
    pub(super) async fn wanted_back(&self) {
        tokio::time::sleep(STALLED).await;
        // It is never closed.
        if let Ok(permit) = self.wanted.acquire().await {
            permit.forget();
        }
    }

    /// The next piece of a body whose request has a place.
    ///
    /// # Errors
    /// Those of the body; Idle if it stands still and somebody waits for the place.
    pub(super) async fn piece(&self, body: &mut Body) -> Result<Option<Bytes>, BodyError> {
        tokio::select! {
            biased;
            piece = body.chunk() => piece,
            () = self.wanted_back() => Err(BodyError::Idle(STALLED)),
        }
    }
}

/// Somebody who waits for a place.
struct Waiting<'a>(&'a Places);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waiting = self.0.waiting.fetch_sub(1, Ordering::Relaxed) - 1;
        // Not for nobody.
        if self.0.wanted.available_permits() > waiting {
            drop(self.0.wanted.try_acquire().map(tokio::sync::SemaphorePermit::forget));
        }
    }
}

async fn wait(room: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, FileError> {
    // It is never closed.
    Arc::clone(room).acquire_owned().await.map_err(|_| FileError::Abandoned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn so_much_passes_at_once_and_no_more() {
        let storage = Storage::default();
        let (mut files, mut trees, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(permit) = storage.uploads.take().now_or_never() {
            files.push(permit.unwrap());
        }
        while let Some(permit) = storage.trees.take().now_or_never() {
            trees.push(permit.unwrap());
        }
        while let Some(permit) = storage.list().now_or_never() {
            lists.push(permit.unwrap());
        }
        assert_eq!((files.len(), trees.len(), lists.len()), (MOST_UPLOADS, MOST_TREES, MOST_LISTS));
        // Who has given up leaves no wish behind.
        assert_eq!(storage.uploads.wanted.available_permits(), 0);
        drop(files);
        assert!(storage.uploads.take().now_or_never().is_some());
    }

    #[test]
    fn downloads_never_wait_and_many_have_small_pieces() {
        let storage = Storage::default();
        let all: Vec<_> = (0..1024).map(|_| storage.download()).collect();
        let together: usize = all.iter().map(|one| one.piece).sum();
        assert!(together < 16 << 20 && all[0].piece == LARGE_PIECE, "{together}");
        drop(all);
        assert_eq!(storage.download().piece, LARGE_PIECE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_stands_still_makes_room_only_when_that_is_wanted() {
        let places = Places::new(2);
        let (first, second) = (places.take().await.unwrap(), places.take().await.unwrap());
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, places.wanted_back()).await.is_err());
        // Of two that stand still, one makes room for one that waits.
        let begun = tokio::time::Instant::now();
        let stand = async |place| {
            places.wanted_back().await;
            drop(place);
        };
        let (mut one, mut other) = (Box::pin(stand(first)).fuse(), Box::pin(stand(second)).fuse());
        let third = tokio::select! {
            biased;
            place = places.take() => place.unwrap(),
            () = async { tokio::join!(&mut one, &mut other); } => panic!("both made room for one"),
        };
        assert_eq!(begun.elapsed(), STALLED);
        // For another one the other does, at once; and a third finds nobody who stands still.
        let fourth = tokio::select! {
            biased;
            place = places.take() => place.unwrap(),
            () = async { tokio::select! { biased; () = &mut one => {}, () = &mut other => {} } } => places.take().await.unwrap(),
        };
        assert_eq!(begun.elapsed(), STALLED);
        assert!(tokio::time::timeout(hour, places.take()).await.is_err());
        assert_eq!((places.waiting.load(Ordering::Relaxed), places.wanted.available_permits()), (0, 0));
        drop((third, fourth));
    }

    #[tokio::test(start_paused = true)]
    async fn large_lists_that_nobody_reads_have_a_bound() {
        let storage = Storage::default();
        let mut held = Vec::new();
        for _ in 0..MOST_UNREAD_LISTS {
            held.push(storage.unread_list().await.unwrap());
        }
        assert!(matches!(storage.unread_list().await, Err(FileError::Exhausted(_))));
        held.pop();
        assert!(storage.unread_list().await.is_ok());
    }
}
