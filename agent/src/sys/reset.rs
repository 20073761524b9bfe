//! Readiness of a descriptor for its error condition alone (epoll_ctl(2): EPOLLERR is always reported).

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits until an error is pending on the socket, or the runtime ends. The descriptor is registered for priority data only, so
/// that ordinary bytes wake nobody.
///
/// # Errors
/// The kernel's, if the descriptor cannot be watched.
pub(crate) fn error_pending(socket: OwnedFd) -> io::Result<impl Future<Output = ()> + Send + Sync> {
    // SAFETY: the wrapper owns the descriptor, so it stays open and the same as long as it is registered.
    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::PRIORITY) }?;
    Ok(async move { drop(socket.ready(Interest::ERROR).await.map(drop)) })
}
