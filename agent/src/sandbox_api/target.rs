//! Which container a request is for.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use sandbox_api::http::Head;

use crate::container::{ContainerHandle, State};
use crate::pod::Pod;

/// How long a request waits for a container to run.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// The container that a pod of `image-builder run` has for itself. A name of Kubernetes has no dot.
const COMPANION: &str = ".pod";

/// No container runs.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no container of this pod runs{0}")]
pub(super) struct NoContainer(String);

/// A container that requests work in.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The container.
    pub(super) container: ContainerHandle,
}

impl Target {
    /// Its root, with all that is mounted there. Blocks for moments only.
    ///
    /// # Errors
    /// Where its first process has ended.
    pub(super) fn root(&self) -> io::Result<OwnedFd> {
        self.container.root()
    }

    /// Its id.
    pub(super) fn id(&self) -> &str {
        self.container.id().as_str()
    }
}

/// Whether requests can work in a container.
fn is_there(container: &ContainerHandle) -> bool {
    matches!(container.state(), State::Running | State::Paused)
}

/// The pod's containers that are not its own.
pub(super) fn workloads(pod: &Pod) -> Vec<ContainerHandle> {
    let own = pod.id();
    let mut all = pod.containers();
    all.retain(|container| {
        let id = container.id().as_str();
        own.as_deref() != Some(id) && !id.ends_with(COMPANION)
    });
    all
}

/// The container that a request is for, as things are now: the one that its header names, else the one of the option, else the
/// first that runs, else the first.
pub(super) fn now(pod: &Pod, head: &Head, chosen: Option<&str>) -> Option<Target> {
    let named = head.headers.get("e2b-sandbox-id").and_then(|id| pod.container(id).ok());
    let container = named.or_else(|| match chosen {
        Some(id) => pod.container(id).ok(),
        None => {
            let all = workloads(pod).into_iter();
            all.min_by_key(|container| (!is_there(container), container.began()))
        }
    });
    container.map(|container| Target { container })
}

/// As [`now`], once it runs.
///
/// # Errors
/// [`NoContainer`] when none does in time.
pub(super) async fn running(pod: &Pod, head: &Head, chosen: Option<&str>) -> Result<Target, NoContainer> {
    let wait = async {
        loop {
            if let Some(target) = now(pod, head, chosen).filter(|target| is_there(&target.container)) {
                return target;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let named = || {
        chosen.map(|id| format!(" as {id:?}, which agent.sandbox_api_container names")).unwrap_or_default()
    };
    tokio::time::timeout(PATIENCE, wait).await.map_err(|_| NoContainer(named()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_a_container_but_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let pod = Pod::new(crate::container::fake::tools(dir.path(), &[]).0);
        let began = tokio::time::Instant::now();
        let head = Head::of("POST", "/process.Process/Start");
        let refused = running(&pod, &head, None).await.unwrap_err();
        assert_eq!(refused.to_string(), "no container of this pod runs");
        assert_eq!(began.elapsed(), PATIENCE);
        let refused = running(&pod, &head, Some("c9")).await.unwrap_err();
        assert!(refused.to_string().contains("\"c9\", which agent.sandbox_api_container names"), "{refused}");
    }
}
