//! What a pod shows to a container that is created.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// See the module.
pub(crate) struct PodView {
    /// Id of the pod, also that of its infrastructure container.
    pub(crate) id: String,
    /// Namespaces that its containers share.
    pub(crate) namespaces: SharedNamespaces,
    /// Directory of hooks for every container.
    pub(crate) hooks: Option<PathBuf>,
    /// The other containers.
    pub(crate) neighbours: Arc<dyn Neighbours>,
}

/// Namespaces that the containers of a pod share, held open.
#[derive(Debug, Clone)]
pub(crate) struct SharedNamespaces {
    /// System V IPC and POSIX message queues.
    pub(crate) ipc: Arc<OwnedFd>,
    /// Host name.
    pub(crate) uts: Arc<OwnedFd>,
    /// The pid namespace of the first container, once there is one.
    pub(crate) pid: Arc<OnceLock<Arc<OwnedFd>>>,
}

/// What a container may know of the others.
pub(crate) trait Neighbours: Send + Sync {
    /// The first process of the running container that Kubernetes calls `name`.
    fn init_of(&self, name: &str) -> Option<i32>;
}
