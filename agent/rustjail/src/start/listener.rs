//! Hands the descriptor of a filter that asks to the program that answers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::message;
use crate::plan::Listener;

/// Connects to the listener's socket and sends the container process's state with the descriptor (runtime-spec, "The
/// Container Process State"). `state` is the container's own; `pid` the process's id in the guest.
///
/// # Errors
/// The kernel's, when nobody listens.
pub fn hand_over(listener: &Listener, state: &Value, pid: i32, fd: OwnedFd) -> io::Result<()> {
    let socket = UnixStream::connect(&listener.path)?;
    let told = json!({
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": listener.metadata,
        "state": state,
    });
    message::send(&socket, &told, &[fd.as_fd()])
}
