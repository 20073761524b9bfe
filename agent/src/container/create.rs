//! Creates a container, up to a first process that stands in its finished jail and waits.
//!
//! ```text
//! on a thread: bundle ─ devices ─ CDI ─ storages ─ users ─ spec (pure) ─ plan (pure) ─ cgroup
//! then:        process ─ hooks of its root ─ jail stands ─ namespaces held ─ mounts of others ─ streams
//! ```
//!
//! Every step pushes its inverse onto the actor's list, and the actor runs that list when this fails, panics or is dropped;
//! no directory, mount, cgroup, process or id stays.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use oci_spec::runtime::Spec;
use rustjail::cgroup::{Cgroup, CgroupPath};
use rustjail::plan::{self, Bundle, InitOptions, JailPlan, NamespaceKind};
use rustjail::start;
use tokio::sync::oneshot;

use super::body::{Body, Created, Namespaces, Waiting};
use super::error::ContainerError;
use super::hook::{self, Hooks, Stage};
use super::id::ContainerId;
use super::launch::{REMOVE_DEADLINE, directory_of, process, streams};
use super::shared::Shared;
use super::shared_mount::{self, SharedMount, SharedMountError};
use super::spec::{self, Found};
use super::state::State;
use super::tools::{Tools, follow_memory};
use super::user::{Tables, UserNames};
use super::view::PodView;
use crate::device::cdi;
use crate::device::container::{self as device, Bound, Device, PciAddresses};
use crate::device::watch::DeviceWatch;
use crate::error::chain;
use crate::files::remove_tree;
use crate::patience::{self, Place};
use crate::process::launch::Launch;
use crate::process::passfd::Ports;
use crate::storage::{Storage, StorageRegistry};
use crate::undo::Undo;

/// What CreateContainer asks for.
#[derive(Debug)]
pub(crate) struct CreateRequest {
    /// The OCI configuration.
    pub(crate) spec: Spec,
    /// Devices it is given.
    pub(crate) devices: Vec<Device>,
    /// Storages it needs.
    pub(crate) storages: Vec<Storage>,
    /// Mounts of other containers that it is given, once it exists.
    pub(crate) shared_mounts: Vec<SharedMount>,
    /// Whether it shares the first container's pid namespace.
    pub(crate) shared_pid_namespace: bool,
    /// The user of its first process by name; overrides the spec's numbers.
    pub(crate) user: UserNames,
    /// Connections that the host made for the first process's streams.
    pub(crate) ports: Ports,
}

/// What is there before the first process.
struct Prepared {
    spec: Spec,
    plan: JailPlan,
    cgroup: Arc<Cgroup>,
    addresses: PciAddresses,
    hooks: Hooks,
}

/// Creates the container. What it did until it fails or is dropped is in the body's list.
pub(super) async fn create(
    shared: &Arc<Shared>,
    tools: &Arc<Tools>,
    body: &mut Body,
    mut request: CreateRequest,
    pod: PodView,
) -> Result<(), ContainerError> {
    shared.processes().reserve("")?;
    // First, so that any failure closes them and the host knows.
    let claimed = tools.streams.claim(std::mem::take(&mut request.ports)).await?;
    // All of it may have to wait, for devices most of all. It needs one thread at a time.
    let place = tools.patience.place().await;
    let id = &shared.id;
    let shared_mounts = std::mem::take(&mut request.shared_mounts);
    let (busy, preparing) = oneshot::channel();
    body.preparing = Some(preparing);
    let Prepared { spec, plan, cgroup, addresses, hooks } =
        prepared(shared, tools, (body.undo.clone(), busy), request, &pod, place.clone()).await?;
    let cgroup_directory = directory_of(&cgroup, id)?;
    // From here on a removal or a kill finds it.
    drop(shared.cgroup.set(Arc::clone(&cgroup)));

    let (stops, has_hooks) = (plan.stop_for_hooks, !plan.hooks.start_container.is_empty());
    let seccomp = plan.seccomp.clone();
    let listener = seccomp.as_ref().and_then(|seccomp| seccomp.listener.clone());
    let kinds = kinds_to_hold(&plan);
    let (pipes, streams) = streams(&plan, tools.settings.pipe_size)?;
    let launch = Launch {
        plan,
        cgroup: cgroup_directory,
        namespaces: Vec::new(),
        streams,
        wants_inner_pid: false,
        place: Some(place.clone()),
    };
    let failed = |error| ContainerError::Launch(id.clone(), error);
    let mut newborn = tools.jailer.launch(launch).await.map_err(failed)?;
    body.hooks = Arc::new(hooks);
    if stops {
        for stage in [Stage::Prestart, Stage::CreateRuntime] {
            let ran = body.hooks.run(&tools.commands, stage, newborn.pid).await;
            ran.map_err(|error| ContainerError::Hook(id.clone(), Box::new(error)))?;
        }
        newborn = newborn.enter().await.map_err(failed)?;
    }
    let pid = newborn.pid;
    let opened = patience::on_a_thread(place.clone(), move || open_namespaces(pid, &kinds)).await;
    let namespaces = opened.map_err(|_| ContainerError::Panicked(id.clone()))??;
    if let Some((_, pids)) = namespaces.iter().find(|(kind, _)| *kind == NamespaceKind::Pid) {
        // Of the first container; later ones change nothing.
        drop(pod.namespaces.pid.set(Arc::clone(pids)));
    }
    for mount in shared_mounts {
        share_mount(shared, &pod, mount, pid, place.clone()).await?;
    }
    let (init, handshake) = process("", shared, newborn, pipes, claimed, None)?;
    shared.processes().insert("", Arc::new(init));
    body.starting = Some(Waiting { pid, handshake, listener, has_hooks });
    let spec = Arc::new(spec);
    // Nobody else fills it.
    drop(shared.spec.set(Arc::clone(&spec)));
    body.created = Some(Created { spec, seccomp, namespaces, addresses });
    // Kills in the pod's infrastructure container concern nobody: it is the pod's own.
    if pod.id != id.as_str()
        && let Err(error) = tools.memory_events.add(id, &cgroup)
    {
        tracing::warn!(container_id = %id, error = %chain(&error), "memory events are not watched");
    }
    shared.set_state(State::Created);
    Ok(())
}

/// The blocking part as one piece of work, on a thread: mounts and cgroups.
async fn prepared(
    shared: &Arc<Shared>,
    tools: &Arc<Tools>,
    (undo, busy): (Undo, oneshot::Sender<()>),
    request: CreateRequest,
    pod: &PodView,
    place: Place,
) -> Result<Prepared, ContainerError> {
    let (tools, id) = (Arc::clone(tools), shared.id.clone());
    let waits = tools.devices.until(&shared.cancel);
    let (namespaces, hooks) = (pod.namespaces.clone(), pod.hooks.clone());
    let work = move || {
        let _busy = busy;
        let work = Work { tools: &tools, waits: &waits, id: &id, undo: &undo };
        let bundle = tools.paths.container(&id);
        let CreateRequest { spec, devices, storages, shared_pid_namespace, user, .. } = request;
        work.make_bundle(&bundle)?;
        let devices = work.attach(&devices)?;
        let (timeout, by_variable) = (tools.settings.cdi_timeout, tools.settings.visible_cdi_devices);
        let cdi = cdi::find(&spec, &waits, timeout, by_variable)
            .map_err(|error| ContainerError::Cdi(id.clone(), error))?;
        work.acquire(&storages)?;
        // Memory may have come, by a way that tells nothing, and some may be put aside for huge pages.
        follow_memory(&tools.reserve, &tools.storages);
        let tables = work.tables(&spec, &user)?;
        let found = Found {
            devices: &devices,
            cdi: &cdi,
            user: tables.as_ref().map(|tables| (&user, tables)),
            namespaces: &namespaces,
            shares_pids: shared_pid_namespace,
            modules: tools.facts.modules,
        };
        let spec = spec::prepare(&id, spec, &found)?;
        let hooks = Hooks::of_container(&id, &spec, bundle.clone(), hooks.as_deref());
        let plan = work.plan(&spec, &bundle, &hooks)?;
        let cgroup = work.cgroup(&spec)?;
        Ok(Prepared { spec, plan, cgroup, addresses: devices.addresses, hooks })
    };
    let prepared = patience::on_a_thread(place, work).await;
    prepared.unwrap_or_else(|_| Err(ContainerError::Panicked(shared.id.clone())))
}

/// The steps of [`prepared`]. All of them block.
struct Work<'a> {
    tools: &'a Arc<Tools>,
    /// Waits for devices, as long as the create is not given up.
    waits: &'a DeviceWatch,
    id: &'a ContainerId,
    undo: &'a Undo,
}

impl Work<'_> {
    /// The container's own directory. Its writable layer is in it, and it is a file system with a size: the layer is full when
    /// the container has filled it, and nobody else's is.
    fn make_bundle(&self, bundle: &Path) -> Result<(), ContainerError> {
        self.tools.storages.acquire(&Storage::in_memory(bundle), self.waits)?;
        let (tools, bundle) = (Arc::clone(self.tools), bundle.to_owned());
        self.undo.push("remove the bundle", move || remove_bundle(&tools.storages, &bundle));
        Ok(())
    }

    fn attach(&self, devices: &[Device]) -> Result<device::Attached, ContainerError> {
        let mut attached = device::attach(devices, self.waits)
            .map_err(|error| ContainerError::Device(self.id.clone(), error))?;
        let bound = std::mem::take(&mut attached.bound);
        self.undo.push("give devices back", move || {
            bound.iter().rev().for_each(Bound::give_back);
            Ok(())
        });
        Ok(attached)
    }

    fn acquire(&self, storages: &[Storage]) -> Result<(), ContainerError> {
        for storage in storages {
            self.tools.storages.acquire(storage, self.waits)?;
            let (tools, point) = (Arc::clone(self.tools), storage.mount_point.clone());
            self.undo.push("release a storage", move || {
                tools.storages.release(&point).map_err(|error| chain(&error))
            });
        }
        Ok(())
    }

    /// The tables of users in the container's root, where a user is asked for by name. Only now the root is there.
    fn tables(&self, spec: &Spec, user: &UserNames) -> Result<Option<Tables>, ContainerError> {
        if user.is_empty() {
            return Ok(None);
        }
        let root = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
        let read = Tables::read(&root);
        read.map(Some).map_err(|error| ContainerError::User(self.id.clone(), error))
    }

    fn plan(&self, spec: &Spec, bundle: &Path, hooks: &Hooks) -> Result<JailPlan, ContainerError> {
        let bundle = Bundle { id: self.id.as_str(), path: &bundle.to_string_lossy() };
        let (switch, filters) = (self.tools.facts.root_switch, Some(&self.tools.filters));
        let mut plan = plan::init(spec, InitOptions { switch, bundle, filters })
            .map_err(|error| ContainerError::Plan(self.id.clone(), error))?;
        hook::limit(&mut plan);
        plan.stop_for_hooks = hooks.has(Stage::Prestart) || hooks.has(Stage::CreateRuntime);
        Ok(plan)
    }

    fn cgroup(&self, spec: &Spec) -> Result<Arc<Cgroup>, ContainerError> {
        let failed = |error| ContainerError::Cgroup(self.id.clone(), error);
        let linux = spec.linux().as_ref();
        let path = linux.and_then(|linux| linux.cgroups_path().as_ref()).map(|path| path.to_string_lossy());
        let path =
            CgroupPath::parse(path.as_deref().unwrap_or_default(), self.id.as_str()).map_err(failed)?;
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        let (cgroup, warnings) = self.tools.jailer.cgroup(&path, resources).map_err(failed)?;
        for warning in warnings {
            tracing::warn!(container_id = %self.id, %warning, "a resource limit was changed");
        }
        let cgroup = Arc::new(cgroup);
        let removed = Arc::clone(&cgroup);
        self.undo.push("remove the cgroup", move || {
            removed.remove(REMOVE_DEADLINE).map_err(|error| chain(&error))
        });
        Ok(cgroup)
    }
}

/// Shows a mount of another container in this one, whose first process is `pid`.
async fn share_mount(
    shared: &Shared,
    pod: &PodView,
    mount: SharedMount,
    pid: i32,
    place: Place,
) -> Result<(), ContainerError> {
    let failed = |error| ContainerError::SharedMount(shared.id.clone(), error);
    let source = pod.neighbours.init_of(&mount.source_container).ok_or_else(|| {
        let (mount, container) = (mount.name.clone(), mount.source_container.clone());
        failed(SharedMountError::NoContainer { mount, container })
    })?;
    let cancel = shared.cancel.clone();
    let work = move || shared_mount::share(&mount, source, pid, &cancel);
    let work = patience::on_a_thread(place, work).await;
    work.map_err(|_| ContainerError::Panicked(shared.id.clone()))?.map_err(failed)
}

/// Removes a container's directory, unless something is still mounted below it: that would be emptied, not removed.
fn remove_bundle(storages: &StorageRegistry, bundle: &Path) -> Result<(), String> {
    let mounts = mountinfo::mounts().map_err(|error| error.to_string())?;
    if let Some(mount) = mounts.iter().find(|mount| mount.point != bundle && mount.point.starts_with(bundle))
    {
        return Err(format!(
            "{} is still in use: {} on {}",
            bundle.display(),
            mount.source,
            mount.point.display()
        ));
    }
    storages.release(bundle).map_err(|error| chain(&error))?;
    match remove_tree(bundle) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// The namespaces of a container that others join later. Its user and time namespace only if they are its own: nobody can
/// join the one that it is in already, and not every kernel has the other.
fn kinds_to_hold(plan: &JailPlan) -> Vec<NamespaceKind> {
    let seldom = |kind: &NamespaceKind| matches!(kind, NamespaceKind::User | NamespaceKind::Time);
    NamespaceKind::ALL.into_iter().filter(|kind| !seldom(kind) || plan.namespaces.has(*kind)).collect()
}

/// Opens the namespaces of a process that stands in its jail.
fn open_namespaces(pid: i32, kinds: &[NamespaceKind]) -> Result<Namespaces, ContainerError> {
    kinds
        .iter()
        .map(|&kind| {
            let link = start::namespace_link(pid, kind);
            std::fs::File::open(&link).map(|file| (kind, Arc::new(OwnedFd::from(file)))).map_err(|source| {
                ContainerError::Io { operation: "open namespace", path: link.display().to_string(), source }
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_removed_once_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("c");
        std::fs::create_dir_all(bundle.join("upper/x")).unwrap();
        let storages = StorageRegistry::default();
        remove_bundle(&storages, &bundle).unwrap();
        assert!(!bundle.exists());
        remove_bundle(&storages, &bundle).unwrap();
    }
}
