//! What all work on files shares: its threads, and room for what takes memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::filesystem::Watches;
use super::rooted::{FileError, Workers};

/// Files that are under way at the same time. More wait until one has passed.
pub(crate) const MOST_TRANSFERS: usize = 64;
/// Trees that are under way at the same time; each has a thread.
pub(crate) const MOST_TREES: usize = 4;
/// Lists of directories that are made at the same time, for their memory.
pub(crate) const MOST_LISTS: usize = 2;
/// Large lists that clients have not read to their end.
pub(crate) const MOST_UNREAD_LISTS: usize = 4;
/// How long another one waits for that.
const READING: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Storage {
    /// Threads.
    pub(super) workers: Workers,
    /// Directories that are watched.
    pub(super) watches: Watches,
    transfers: Arc<Semaphore>,
    trees: Arc<Semaphore>,
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
            transfers: room(MOST_TRANSFERS),
            trees: room(MOST_TREES),
            lists: room(MOST_LISTS),
            unread_lists: room(MOST_UNREAD_LISTS),
        }
    }
}

impl Storage {
    /// Waits until a file may pass.
    pub(super) async fn transfer(&self) -> Result<OwnedSemaphorePermit, FileError> {
        wait(&self.transfers).await
    }

    /// Waits until a tree may pass.
    pub(super) async fn tree(&self) -> Result<OwnedSemaphorePermit, FileError> {
        wait(&self.trees).await
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
        while let Some(permit) = storage.transfer().now_or_never() {
            files.push(permit.unwrap());
        }
        while let Some(permit) = storage.tree().now_or_never() {
            trees.push(permit.unwrap());
        }
        while let Some(permit) = storage.list().now_or_never() {
            lists.push(permit.unwrap());
        }
        assert_eq!((files.len(), trees.len(), lists.len()), (MOST_TRANSFERS, MOST_TREES, MOST_LISTS));
        drop(files);
        assert!(storage.transfer().now_or_never().is_some());
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
