//! The namespaces that the pod's containers share.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sched::CloneFlags;

use super::error::PodError;
use crate::container::SharedNamespaces;

/// Makes the IPC and UTS namespaces on a thread of its own, which leaves the agent's for good and ends.
pub(super) fn shared_namespaces(hostname: &str) -> Result<SharedNamespaces, PodError> {
    let hostname = hostname.to_owned();
    let failed = |operation: &str, source: std::io::Error| PodError::Namespaces {
        operation: operation.to_owned(),
        source,
    };
    let thread = std::thread::Builder::new().name("namespaces".into()).spawn(move || {
        nix::sched::unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)
            .map_err(|errno| failed("make the sandbox's namespaces", errno.into()))?;
        if !hostname.is_empty() {
            nix::unistd::sethostname(&hostname).map_err(|errno| {
                failed(&format!("set the sandbox's hostname to {hostname:?}"), errno.into())
            })?;
        }
        let open = |name: &str| -> Result<Arc<OwnedFd>, PodError> {
            let path = format!("/proc/thread-self/ns/{name}");
            let file = std::fs::File::open(&path).map_err(|error| failed(&format!("open {path}"), error))?;
            Ok(Arc::new(file.into()))
        };
        Ok(SharedNamespaces { ipc: open("ipc")?, uts: open("uts")?, pid: Arc::default() })
    });
    let joined = thread.map_err(|error| failed("start a thread", error))?.join();
    joined.unwrap_or_else(|_| Err(failed("make the sandbox's namespaces", std::io::Error::other("panicked"))))
}
