//! Waiting until a descriptor is readable.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime, so that a task can wait until there is something to read.
///
/// # Errors
/// When it is not one that can be waited for, such as a regular file.
pub(crate) fn readable(descriptor: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: the descriptor is open, and stays so and the same, since the registration keeps what owns it.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(registered?)
}
