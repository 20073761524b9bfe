//! Tasks and work on threads, through one function each: for every type of its own, the runtime would be compiled again, which is
//! some kilobytes of code.

use std::any::Any;

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::task::{JoinError, JoinHandle};

/// What work on a thread has come to, whatever its type.
pub(super) type Outcome = Box<dyn Any + Send>;

/// Starts a task.
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task.boxed())
}

/// Works on a thread. The work goes on if the future is dropped.
///
/// # Errors
/// When it panicked.
pub(super) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> BoxFuture<'static, Result<T, JoinError>> {
    let thread = start(Box::new(move || Box::new(work())));
    thread.map(|done| done.map(of)).boxed()
}

/// Starts work on a thread.
pub(super) fn start(work: Box<dyn FnOnce() -> Outcome + Send>) -> JoinHandle<Outcome> {
    tokio::task::spawn_blocking(work)
}

/// What work of this type has come to.
pub(super) fn of<T: 'static>(outcome: Outcome) -> T {
    // Its type is that of the work that was started.
    *outcome.downcast().expect("work gives what it was started for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_gives_what_it_has_come_to_or_its_panic() {
        assert_eq!(blocking(|| "done".to_owned()).await.unwrap(), "done");
        assert!(blocking(|| -> u8 { panic!("of a test") }).await.unwrap_err().is_panic());
        let (told, hears) = tokio::sync::oneshot::channel();
        spawn(async move { told.send(7).unwrap() }).await.unwrap();
        assert_eq!(hears.await, Ok(7));
    }
}
