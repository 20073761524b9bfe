//! The pod that this VM is: in the words of the API, the sandbox.
//!
//! Owns what its containers share: the IPC and UTS namespaces (held open by descriptor), the pid namespace where they
//! share one, storages, DNS; the [`registry`] of container ids, and the pod's [`life`].

mod dns;
mod error;
mod life;
mod namespaces;
mod registry;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::watch;

pub(crate) use error::PodError;
pub(crate) use registry::RegistryError;

use crate::cancel::Cancel;
use crate::container::{
    ContainerError, ContainerHandle, ContainerId, CreateRequest, PodView, Tools, follow_memory,
};
use crate::device::watch::DeviceWatch;
use crate::error::{ErrorKind, Kind, chain};
use crate::guest::modules::{self, Module};
use crate::storage::Storage;
use crate::undo::Undo;
use life::{Life, Running};
use registry::Registry;

/// What CreateSandbox asks for.
#[derive(Debug, Default)]
pub(crate) struct PodRequest {
    /// Id, also that of the pod's infrastructure container.
    pub(crate) id: String,
    /// Host name of the shared UTS namespace; empty for the guest's own.
    pub(crate) hostname: String,
    /// Lines of `resolv.conf`.
    pub(crate) dns: Vec<String>,
    /// Storages that live as long as the sandbox.
    pub(crate) storages: Vec<Storage>,
    /// Kernel modules that have to be there.
    pub(crate) modules: Vec<Module>,
    /// Directory of hooks for every container.
    pub(crate) hooks: Option<PathBuf>,
}

/// Why a container could not be created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// See [`PodError`].
    #[error(transparent)]
    Pod(#[from] PodError),
    /// See [`RegistryError`].
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// See [`ContainerError`].
    #[error(transparent)]
    Container(#[from] ContainerError),
}

impl Kind for CreateError {
    fn kind(&self) -> ErrorKind {
        match self {
            CreateError::Pod(error) => error.kind(),
            CreateError::Registry(error) => error.kind(),
            CreateError::Container(error) => error.kind(),
        }
    }
}

/// How long all containers together may take to be removed when the pod is destroyed.
const CONTAINERS: Duration = Duration::from_secs(30);
/// How long its storages may take then.
const STORAGES: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Pod {
    tools: Arc<Tools>,
    /// Its lock is held for look-ups only.
    life: Mutex<Life>,
    registry: Arc<Registry>,
    /// Ends all that waits, in the pod and in its containers.
    cancel: Cancel,
    ended: watch::Sender<bool>,
}

impl Pod {
    /// One that has not been created.
    pub(crate) fn new(tools: Arc<Tools>) -> Pod {
        Pod {
            tools,
            life: Mutex::default(),
            registry: Arc::default(),
            cancel: Cancel::default(),
            ended: watch::channel(false).0,
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the pod. A failure leaves nothing behind, and another call may follow.
    pub(crate) async fn create(&self, request: PodRequest) -> Result<(), PodError> {
        self.life().begin()?;
        tracing::info!(sandbox_id = %request.id, hostname = %request.hostname, "creating the sandbox");
        let undo = Undo::default();
        // A panic must not leave the pod half made for ever.
        let made = AssertUnwindSafe(self.make(request, &undo)).catch_unwind().await;
        let made = made.unwrap_or_else(|_| Err(PodError::panicked()));
        let error = match made.and_then(|running| self.life().made(running)) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if tokio::task::spawn_blocking(move || undo.run()).await.is_err() {
            tracing::error!("taking back a failed sandbox panicked");
        }
        self.life().failed();
        Err(error)
    }

    async fn make(&self, request: PodRequest, undo: &Undo) -> Result<Running, PodError> {
        let modules = &request.modules;
        let loaded = modules::load(&self.tools.commands, Path::new("/sys"), modules, &self.cancel).await?;
        let (commands, runtime) = (Arc::clone(&self.tools.commands), tokio::runtime::Handle::current());
        undo.push("unload kernel modules", move || {
            runtime.block_on(loaded.take_back(&commands));
            Ok(())
        });
        let (tools, undo) = (Arc::clone(&self.tools), undo.clone());
        let waits = tools.devices.until(&self.cancel);
        let work = move || {
            let namespaces = namespaces::shared_namespaces(&request.hostname)?;
            tools.reserve.begin();
            if let Some(allocatable) = tools.reserve.now() {
                tools.storages.resize(allocatable.file_system());
            }
            let storages = with_shared(request.storages, &tools.paths.shared());
            let storages = acquire(&tools, &waits, &storages, &undo)?;
            // Some may be put aside for huge pages now.
            follow_memory(&tools.reserve, &tools.storages);
            dns::write_resolv_conf(&request.dns, &tools.paths.sandbox())?;
            Ok(Running { id: request.id, namespaces, storages, hooks: request.hooks })
        };
        self.tools.patience.run(work).await.unwrap_or_else(|_| Err(PodError::panicked()))
    }

    /// Makes a container. Its id is reserved first, so of two creates with one id one is refused.
    pub(crate) async fn create_container(
        &self,
        id: ContainerId,
        request: Box<CreateRequest>,
    ) -> Result<(), CreateError> {
        let Running { id: pod, namespaces, hooks, .. } = self.life().running()?.clone();
        tracing::info!(sandbox_id = %pod, container_id = %id, "creating a container");
        let handle = self.registry.reserve(&id, || {
            let (registry, id) = (Arc::downgrade(&self.registry), id.clone());
            let forget = {
                let id = id.clone();
                move || registry.upgrade().iter().for_each(|registry| registry.remove(&id))
            };
            ContainerHandle::spawn(id, &self.tools, self.cancel.child(), forget)
        })?;
        let neighbours = Arc::clone(&self.registry) as _;
        Ok(handle.create(request, PodView { id: pod, namespaces, hooks, neighbours }).await?)
    }

    /// Finds a container.
    pub(crate) fn container(&self, id: &str) -> Result<ContainerHandle, RegistryError> {
        self.registry.get(id)
    }

    /// All containers.
    pub(crate) fn containers(&self) -> Vec<ContainerHandle> {
        self.registry.all()
    }

    /// Its id, once it is created.
    #[cfg(feature = "sandbox-api")]
    pub(crate) fn id(&self) -> Option<String> {
        self.life().running().ok().map(|running| running.id.clone())
    }

    /// Gives up all that waits, removes all containers at once and the storages, and asks the agent to end. The answer leaves
    /// before the guest does.
    ///
    /// Ends within [`CONTAINERS`] and [`STORAGES`], whatever a container does. What could not be cleaned is logged, and the
    /// VM ends all the same.
    pub(crate) async fn destroy(&self) -> Result<(), PodError> {
        let storages = self.life().destroy()?;
        tracing::info!("destroying the sandbox");
        self.cancel.cancel();
        self.tools.devices.look_again();
        let containers = self.containers();
        let removals = join_all(containers.iter().map(|container| async {
            match container.remove(0).await {
                // A create that was given up has taken all of it back.
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::error!(error = %chain(&error), "a container is not removed");
                }
                _ => {}
            }
        }));
        if tokio::time::timeout(CONTAINERS, removals).await.is_err() {
            tracing::error!(seconds = CONTAINERS.as_secs(), "containers are not removed in time");
        }
        let tools = Arc::clone(&self.tools);
        let releases = tokio::task::spawn_blocking(move || {
            for point in storages.iter().rev() {
                release(&tools, point);
            }
            tools.storages.release_pinned();
        });
        if tokio::time::timeout(STORAGES, releases).await.is_err() {
            tracing::error!(seconds = STORAGES.as_secs(), "storages are not released in time");
        }
        self.ended.send_replace(true);
        Ok(())
    }

    /// Waits until DestroySandbox is called: what still waits then is given up.
    pub(crate) async fn is_going(&self) {
        self.cancel.cancelled().await;
    }

    /// Whether the pod was destroyed.
    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits until the pod is destroyed.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender is the pod's own, so the channel does not close.
        drop(ended.wait_for(|ended| *ended).await.map(drop));
    }
}

/// The pod's storages, and before them the tree of files that the host copies, unless the host shares one of its own there.
/// Containers have its files mounted, and can make them longer.
fn with_shared(asked: Vec<Storage>, shared: &Path) -> Vec<Storage> {
    let is_there = asked.iter().any(|storage| shared.starts_with(&storage.mount_point));
    let own = (!is_there).then(|| Storage::in_memory(shared));
    own.into_iter().chain(asked).collect()
}

/// Mounts the pod's storages; gives their mount points.
fn acquire(
    tools: &Arc<Tools>,
    waits: &DeviceWatch,
    storages: &[Storage],
    undo: &Undo,
) -> Result<Vec<PathBuf>, PodError> {
    let mut points = Vec::new();
    for storage in storages {
        tools.storages.acquire(storage, waits)?;
        points.push(storage.mount_point.clone());
        let (tools, point) = (Arc::clone(tools), storage.mount_point.clone());
        undo.push("release a storage", move || tools.storages.release(&point).map_err(|error| chain(&error)));
    }
    Ok(points)
}

fn release(tools: &Tools, point: &Path) {
    if let Err(error) = tools.storages.release(point) {
        tracing::error!(path = %point.display(), error = %chain(&error), "a storage is not released");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::fake::{Course, namespaces, request, tools, waiting_request};
    use std::time::Instant;

    /// A pod that was created.
    fn running(dir: &Path, courses: &[Course]) -> Arc<Pod> {
        let pod = Pod::new(tools(dir, courses).0);
        let running =
            Running { id: "pod".into(), namespaces: namespaces(), storages: Vec::new(), hooks: None };
        pod.life().begin().unwrap();
        pod.life().made(running).unwrap();
        Arc::new(pod)
    }

    fn id(text: &str) -> ContainerId {
        ContainerId::parse(text).unwrap()
    }

    #[test]
    fn copied_files_have_a_file_system_of_their_own_unless_the_host_shares_one() {
        let shared = Path::new("/run/kata-containers/shared/containers");
        let of_host = |point: &str| Storage { mount_point: point.into(), ..Storage::default() };
        let points = |asked: Vec<Storage>| -> Vec<String> {
            let all = with_shared(asked, shared);
            all.iter().map(|storage| storage.mount_point.display().to_string()).collect()
        };
        assert_eq!(points(vec![]), ["/run/kata-containers/shared/containers"]);
        let shm = "/run/kata-containers/sandbox/shm";
        assert_eq!(points(vec![of_host(shm)]), ["/run/kata-containers/shared/containers", shm]);
        for point in ["/run/kata-containers/shared/containers", "/run/kata-containers/shared"] {
            assert_eq!(points(vec![of_host(point)]), [point]);
        }
    }

    #[tokio::test]
    async fn all_containers_are_removed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        // Each takes two seconds to be removed.
        let pod = running(dir.path(), &[Course::EndsUnheard; 5]);
        for name in ["c1", "c2", "c3", "c4", "c5"] {
            pod.create_container(id(name), request()).await.unwrap();
        }
        let began = Instant::now();
        pod.destroy().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        assert!(pod.has_ended() && pod.containers().is_empty());
        assert!(matches!(pod.destroy().await, Err(PodError::Destroyed)));
        let late = pod.create_container(id("c6"), request()).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Busy);
    }

    #[tokio::test]
    async fn the_end_of_the_pod_gives_up_creates_and_frees_their_ids() {
        let dir = tempfile::tempdir().unwrap();
        let pod = running(dir.path(), &[Course::Hangs]);
        let create = |name: &'static str, request: Box<CreateRequest>| {
            let pod = Arc::clone(&pod);
            tokio::spawn(async move { pod.create_container(id(name), request).await })
        };
        let creates = [create("c1", request()), create("c2", waiting_request(dir.path()))];
        while pod.containers().len() < 2 {
            tokio::task::yield_now().await;
        }
        pod.destroy().await.unwrap();
        for create in creates {
            assert_eq!(create.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        }
        assert!(pod.containers().is_empty());
        let left = |name: &str| std::fs::read_dir(dir.path().join(name)).into_iter().flatten().count();
        assert_eq!((left("cgroup"), left("state")), (0, 0));
    }
}
