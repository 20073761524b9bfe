//! Work on files that nobody waits for any more is not finished.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

use super::FileError;
use crate::sandbox_api::task::{self, Outcome};

/// Threads that work on files at the same time. The agent's other work has threads left, whatever a file system does.
pub(crate) const WORKERS: usize = 16;

/// Tells a thread that nobody waits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// # Errors
    /// [`FileError::Abandoned`] if nobody waits.
    pub(crate) fn check(&self) -> Result<(), FileError> {
        if self.0.load(Ordering::Relaxed) { Err(FileError::Abandoned) } else { Ok(()) }
    }

    /// Stops the work when it is dropped.
    pub(crate) fn on_drop(&self) -> StopOnDrop {
        StopOnDrop(self.clone())
    }
}

/// See [`Stop::on_drop`].
#[derive(Debug)]
pub(crate) struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Work on files, whatever it comes to.
type Work = Box<dyn FnOnce(&Stop) -> Outcome + Send>;

/// Threads for work on files. A clone has the same ones.
#[derive(Debug, Clone)]
pub(crate) struct Workers(Arc<Semaphore>);

impl Default for Workers {
    fn default() -> Workers {
        Workers(Arc::new(Semaphore::new(WORKERS)))
    }
}

impl Workers {
    /// Works on a thread of its own. If this future is dropped, the work is told to stop, and its thread is free when it has.
    ///
    /// # Errors
    /// Those of the work; a panic of it is one, too.
    pub(crate) async fn run<T, W>(&self, work: W) -> Result<T, FileError>
    where
        T: Send + 'static,
        W: FnOnce(&Stop) -> Result<T, FileError> + Send + 'static,
    {
        self.run_boxed(Box::new(move |stop| Box::new(stop.check().and_then(|()| work(stop)))))
            .await
            .and_then(task::of)
    }

    /// Works on a thread. One function for all kinds of work: for each, a task would be some kilobytes of code.
    fn run_boxed(&self, work: Work) -> BoxFuture<'static, Result<Outcome, FileError>> {
        let workers = self.clone();
        let done = async move {
            let permit = workers.permit().await?;
            let stop = Stop::default();
            let _guard = stop.on_drop();
            let thread = task::start(Box::new(move || {
                let outcome = work(&stop);
                drop(permit);
                outcome
            }));
            let failed = |error: JoinError| std::io::Error::other(error.to_string());
            thread.await.map_err(|error| FileError::io("work on", "a file", failed(error)))
        };
        done.boxed()
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, FileError> {
        // It is never closed.
        Arc::clone(&self.0).acquire_owned().await.map_err(|_| FileError::Abandoned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    #[tokio::test]
    async fn so_many_threads_work_at_once_and_no_more() {
        let (workers, busy, most) =
            (Workers::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs = (0..WORKERS * 2).map(|_| {
            let (busy, most) = (Arc::clone(&busy), Arc::clone(&most));
            workers.run(move |_| {
                most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
                busy.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            })
        });
        futures_util::future::try_join_all(jobs).await.unwrap();
        assert_eq!(most.load(Ordering::SeqCst), WORKERS);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_told_to_stop() {
        let workers = Workers::default();
        let (tell, told) = tokio::sync::oneshot::channel();
        let work = workers.run(move |stop| -> Result<(), FileError> {
            while stop.check().is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
            tell.send(()).unwrap();
            stop.check()
        });
        assert!(tokio::time::timeout(Duration::from_millis(30), work).await.is_err());
        tokio::time::timeout(Duration::from_secs(10), told).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let panicked = Workers::default().run(|_| -> Result<(), FileError> { panic!("of a test") }).await;
        assert_eq!(panicked.unwrap_err().status(), 500);
    }
}
