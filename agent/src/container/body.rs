//! What a container's actor owns, and nobody else sees.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use oci_spec::runtime::Spec;
use rustjail::plan::{Listener, NamespaceKind, Seccomp};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::hook::Hooks;
use super::launch::Handshake;
use super::state::State;
use crate::device::container::PciAddresses;
use crate::undo::Undo;

/// Namespaces, held open.
pub(super) type Namespaces = Vec<(NamespaceKind, Arc<OwnedFd>)>;

/// See the module.
#[derive(Default)]
pub(super) struct Body {
    /// Present once created, until removed.
    pub(super) created: Option<Created>,
    /// The first process's handshake, until it is started.
    pub(super) starting: Option<Waiting>,
    /// The hooks that run after its start.
    pub(super) poststart: Option<AbortHandle>,
    /// The state to return to when a paused container is resumed.
    pub(super) before_pause: Option<State>,
    /// Hooks of a container that got so far that they run.
    pub(super) hooks: Arc<Hooks>,
    /// Ends with the thread that prepares the container.
    pub(super) preparing: Option<oneshot::Receiver<()>>,
    /// How all that was done for it is taken back.
    pub(super) undo: Undo,
}

/// A created container.
pub(super) struct Created {
    pub(super) spec: Arc<Spec>,
    /// Its filter of system calls, compiled once for all of its processes.
    pub(super) seccomp: Option<Seccomp>,
    /// Its namespaces, held open: they can be joined even when its first process is gone.
    pub(super) namespaces: Namespaces,
    /// PCI addresses that the environments of its processes may name.
    pub(super) addresses: PciAddresses,
}

/// A first process that waits for its start.
pub(super) struct Waiting {
    pub(super) pid: i32,
    /// Its handshake.
    pub(super) handshake: Box<dyn Handshake>,
    /// Who its filter asks.
    pub(super) listener: Option<Listener>,
    /// Whether its start can fail yet, and so is waited for: it runs hooks.
    pub(super) has_hooks: bool,
}
