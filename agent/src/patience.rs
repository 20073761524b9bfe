//! Threads for work that may have to wait for long: for a device that comes late or never, for a file system that hangs, for
//! another container.
//!
//! Owns how many threads such work can hold. Promises that others find a thread for what takes a moment, however many wait: an
//! exec, a kill, statistics, a removal. Who finds no place waits for one in a task, which can be given up.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

/// Threads for what takes a moment. They belong to nobody.
const BRISK: usize = 64;
/// Creates, and calls that wait for devices, that are at work at once.
const WAITING: usize = 128;
/// Copies of files that are written at once. They wait only where the file system does.
const COPYING: usize = 16;
/// All of them: what the runtime may start.
pub(crate) const THREADS: usize = BRISK + WAITING + COPYING;

/// So many places. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Patience(Arc<Semaphore>);

/// A place. It is free again when its last clone is dropped: one goes to each thread that works for its holder.
#[derive(Debug, Clone)]
pub(crate) struct Place(#[expect(dead_code, reason = "it is there to be dropped")] Arc<OwnedSemaphorePermit>);

impl Patience {
    /// Places for what waits for devices and containers.
    pub(crate) fn for_devices() -> Patience {
        Patience(Arc::new(Semaphore::new(WAITING)))
    }

    /// Places for copies of files.
    pub(crate) fn for_copies() -> Patience {
        Patience(Arc::new(Semaphore::new(COPYING)))
    }

    /// Waits for a place. They are given in the order in which they were asked for.
    pub(crate) async fn place(&self) -> Place {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        Place(Arc::new(permit.expect("nobody closes it")))
    }

    /// Does work that may wait, on a thread. If the caller goes away the work goes on, and keeps its place until it ends.
    ///
    /// # Errors
    /// When the work panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        on_a_thread(self.place().await, work).await
    }
}

/// Does work on a thread for the holder of a place.
///
/// # Errors
/// When the work panics.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    place: Place,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let work = move || {
        let done = work();
        drop(place);
        done
    };
    tokio::task::spawn_blocking(work).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    fn runtime() -> tokio::runtime::Runtime {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(THREADS).build();
        runtime.unwrap()
    }

    #[test]
    fn however_many_wait_others_find_a_thread() {
        let runtime = runtime();
        let (devices, copies) = (Patience::for_devices(), Patience::for_copies());
        let mut stuck = Vec::new();
        runtime.block_on(async {
            // Each waits for a device that comes when the test is over.
            for (patience, count) in [(&devices, 2 * WAITING), (&copies, 2 * COPYING)] {
                for _ in 0..count {
                    let (end, wait) = mpsc::channel::<()>();
                    stuck.push(end);
                    let patience = patience.clone();
                    tokio::spawn(async move { patience.run(move || wait.recv().is_err()).await });
                }
            }
            while devices.0.available_permits() + copies.0.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            // All that is left, at the same time: none would end without the others.
            let meeting = Arc::new(std::sync::Barrier::new(BRISK));
            let others: Vec<_> = (0..BRISK)
                .map(|_| {
                    let meeting = Arc::clone(&meeting);
                    tokio::task::spawn_blocking(move || meeting.wait().is_leader())
                })
                .collect();
            for other in others {
                other.await.unwrap();
            }
            stuck.clear();
        });
        runtime.shutdown_timeout(Duration::from_secs(60));
    }

    #[test]
    fn a_place_is_kept_by_the_work_not_by_who_waits_for_it() {
        let runtime = runtime();
        let patience = Patience::for_copies();
        runtime.block_on(async {
            let (end, wait) = mpsc::channel::<()>();
            let (begin, begun) = tokio::sync::oneshot::channel();
            let work = patience.run(move || {
                assert!(begin.send(()).is_ok());
                wait.recv().is_err()
            });
            tokio::select! {
                biased;
                _ = work => panic!("nobody has ended it"),
                _ = begun => {}
            }
            assert_eq!(patience.0.available_permits(), COPYING - 1);
            drop(end);
            while patience.0.available_permits() < COPYING {
                tokio::task::yield_now().await;
            }
            let panics = || {
                if true {
                    panic!("a bug")
                }
            };
            assert!(patience.run(panics).await.is_err());
            assert_eq!(patience.0.available_permits(), COPYING);
        });
    }
}
