//! One conversation with the kernel about its network.

use std::os::fd::AsFd as _;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::task::JoinHandle;

use super::error::NetworkError;
use crate::sys;

/// Brings a link up, by ioctl.
pub(super) fn bring_up(name: &str) -> Result<(), NetworkError> {
    rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(Into::into)
        .and_then(|socket| sys::link::up(socket.as_fd(), name))
        .map_err(|source| NetworkError::Kernel { operation: format!("bring link {name} up"), source })
}

/// A netlink socket and the task that serves it, for one operation. Opening one costs microseconds, and none can
/// go stale.
pub(super) struct Session {
    pub(super) handle: rtnetlink::Handle,
    task: JoinHandle<()>,
}

impl Session {
    /// Opens one.
    pub(super) fn open() -> Result<Session, NetworkError> {
        let (connection, handle, _events) = rtnetlink::new_connection().map_err(|source| {
            NetworkError::Kernel { operation: "open a netlink socket".to_owned(), source }
        })?;
        Ok(Session { handle, task: tokio::spawn(connection) })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}
