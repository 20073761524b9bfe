//! Creates a container, up to a first process that stands in its finished jail and waits.
//!
//! Every step pushes its inverse; a failure leaves no directory, mount, cgroup, process or id.

use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::{self, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Spec};
use rustjail::cgroup::{Cgroup, CgroupPath};
use rustjail::plan::{self, Bundle, InitOptions, JailPlan, Listener, NamespaceKind};
use rustjail::start;

use super::actor::{Body, Waiting};
use super::hook::{self, Hooks, Stage};
use super::shared_mount::{self, SharedMount, SharedMountError};
use super::undo::Undo;
use super::user::{self, UserNames};
use super::{ContainerError, Shared, State, label};
use crate::app::Agent;
use crate::device::cdi;
use crate::device::container::{self as device, Bound, Device, PciAddresses};
use crate::error::chain;
use crate::process::Process;
use crate::process::launch::{Launch, Launched};
use crate::process::passfd::{Claimed, Ports};
use crate::process::stdio::{self, ChildStreams, Ends, Pipes, Stdio};
use crate::sandbox::SharedNamespaces;
use crate::sandbox::registry::ContainerId;
use crate::storage::Storage;

/// How long a cgroup may take to become empty.
pub(super) const REMOVE_DEADLINE: Duration = Duration::from_secs(10);

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

/// Namespaces, held open.
type Namespaces = Vec<(NamespaceKind, Arc<OwnedFd>)>;

/// A created container.
pub(super) struct Created {
    pub(super) spec: Arc<Spec>,
    /// Its namespaces, held open: they can be joined even when its first process is gone.
    pub(super) namespaces: Namespaces,
    /// PCI addresses that the environments of its processes may name.
    pub(super) addresses: PciAddresses,
    /// What runs at its start and its end.
    pub(super) hooks: Arc<Hooks>,
    /// How all of it is taken away again.
    pub(super) undo: Undo,
}

/// Creates the container. On failure everything is taken back before this returns.
pub(super) async fn create(
    shared: &Arc<Shared>,
    agent: &Arc<Agent>,
    body: &mut Body,
    request: CreateRequest,
) -> Result<(), ContainerError> {
    shared.processes().reserve("")?;
    // First, so that any failure closes them and the host knows.
    let claimed = agent.passfd.claim(request.ports).await?;
    let mut undo = Undo::default();
    // Those of a container that got so far that they run.
    let mut hooks = Arc::default();
    let made = build(shared, agent, request, &mut undo, &mut hooks).await.and_then(|built| {
        let Built { spec, namespaces, addresses, launched, pipes, listener, has_hooks } = built;
        let Launched { pid, pidfd, exit, terminal, starting } = launched;
        let init = process("", shared, pid, pidfd, exit, ends(terminal, pipes), claimed)?;
        Ok((init, Waiting { starting, listener, has_hooks }, spec, (namespaces, addresses)))
    });
    match made {
        Ok((init, starting, spec, (namespaces, addresses))) => {
            shared.processes().insert("", Arc::new(init));
            body.starting = Some(starting);
            let spec = Arc::new(spec);
            // Nobody else fills it.
            drop(shared.spec.set(Arc::clone(&spec)));
            body.created = Some(Created { spec, namespaces, addresses, hooks, undo });
            watch_memory(shared, agent);
            shared.set_state(State::Created);
            Ok(())
        }
        Err(error) => {
            take_back(undo).await;
            hook::poststop(agent, &hooks).await;
            Err(error)
        }
    }
}

/// Kills in the pod's infrastructure container concern nobody: it is the sandbox's own.
fn watch_memory(shared: &Shared, agent: &Agent) {
    let is_infrastructure = agent.sandbox.id().is_ok_and(|sandbox| sandbox == shared.id.as_str());
    let Some(cgroup) = shared.cgroup.get().filter(|_| !is_infrastructure) else { return };
    if let Err(error) = agent.oom.add(&shared.id, cgroup) {
        tracing::warn!(container_id = %shared.id, error = %chain(&error), "memory events are not watched");
    }
}

async fn take_back(undo: Undo) {
    if tokio::task::spawn_blocking(move || undo.run()).await.is_err() {
        tracing::error!("taking back a failed create panicked");
    }
}

struct Built {
    spec: Spec,
    namespaces: Namespaces,
    addresses: PciAddresses,
    launched: Launched,
    pipes: Pipes,
    /// Who its filter asks.
    listener: Option<Listener>,
    /// Whether it runs hooks when it is started.
    has_hooks: bool,
}

async fn build(
    shared: &Arc<Shared>,
    agent: &Arc<Agent>,
    mut request: CreateRequest,
    undo: &mut Undo,
    hooks: &mut Arc<Hooks>,
) -> Result<Built, ContainerError> {
    let id = shared.id.clone();
    let sandbox = agent.sandbox.namespaces()?;
    let pid_namespace = if request.shared_pid_namespace { agent.sandbox.pid_namespace()? } else { None };
    rewrite_namespaces(&mut request.spec, &sandbox, pid_namespace.as_ref());
    label::drop_what_is_unknown(&id, &mut request.spec, agent.facts.modules);
    let directory = agent.paths.container(&id);
    let plan_of = |spec: &Spec| {
        let bundle = Bundle { id: id.as_str(), path: &directory.to_string_lossy() };
        plan::init(spec, InitOptions { switch: agent.facts.root_switch, bundle })
            .map_err(|error| ContainerError::Plan(id.clone(), error))
    };
    // What cannot be planned is refused before anything is done for it. Devices and user names change the spec yet.
    plan_of(&request.spec)?;

    // The blocking part as one piece of work, on a thread: mounts and cgroups.
    let (blocking_agent, blocking_id) = (Arc::clone(agent), id.clone());
    let taken = std::mem::take(undo);
    let (prepared, kept) = tokio::task::spawn_blocking(move || {
        let mut undo = taken;
        // A panic must not lose the way back.
        let work = || prepare(&blocking_agent, &blocking_id, &mut request, &mut undo);
        let prepared = catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(ContainerError::Panicked(blocking_id.clone())));
        (prepared.map(|made| (made, request)), undo)
    })
    .await
    .map_err(|_| ContainerError::Panicked(id.clone()))?;
    *undo = kept;
    let ((cgroup, addresses), CreateRequest { mut spec, shared_mounts, user, .. }) = prepared?;
    let cgroup = Arc::new(cgroup);
    // From here on a removal or a kill finds it.
    drop(shared.cgroup.set(Arc::clone(&cgroup)));

    if !user.is_empty() {
        // Only now the root is there to look a name up. The spec keeps the numbers, as if it had come with them.
        let mut process = spec.process().clone().unwrap_or_default();
        name_user(shared, &spec, &mut process, user).await?;
        spec.set_process(Some(process));
    }
    let mut plan = plan_of(&spec)?;
    hook::limit(&mut plan);
    let own_hooks = Hooks::of_container(agent, &id, &spec).await?;
    plan.stop_for_hooks = own_hooks.has(Stage::Prestart) || own_hooks.has(Stage::CreateRuntime);
    let (stops, has_hooks) = (plan.stop_for_hooks, !plan.hooks.start_container.is_empty());
    let listener = plan.seccomp.as_ref().and_then(|seccomp| seccomp.listener.clone());
    let kinds = kinds_to_hold(&plan);
    let (pipes, streams) = streams(&plan, agent)?;
    let cgroup_directory = directory_of(&cgroup, &id)?;
    let launch = Launch { plan, cgroup: cgroup_directory, namespaces: Vec::new(), streams };
    let failed = |error| ContainerError::Launch(id.clone(), error);
    let mut launched = agent.launcher.launch(launch).await.map_err(failed)?;
    *hooks = Arc::new(own_hooks);
    if stops {
        for stage in [Stage::Prestart, Stage::CreateRuntime] {
            let ran = hooks.run(agent, stage, launched.pid).await;
            ran.map_err(|error| ContainerError::Hook(id.clone(), Box::new(error)))?;
        }
        launched = launched.enter().await.map_err(failed)?;
    }
    let namespaces = open_namespaces(launched.pid, &kinds)?;
    if let Some((_, pid_namespace)) = namespaces.iter().find(|(kind, _)| *kind == NamespaceKind::Pid) {
        agent.sandbox.offer_pid_namespace(pid_namespace);
    }
    for mount in shared_mounts {
        share_mount(shared, agent, mount, launched.pid).await?;
    }
    Ok(Built { spec, namespaces, addresses, launched, pipes, listener, has_hooks })
}

/// Gives a process the user that is asked for by name.
pub(super) async fn name_user(
    shared: &Shared,
    spec: &Spec,
    process: &mut runtime::Process,
    names: UserNames,
) -> Result<(), ContainerError> {
    let root = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
    let mut user = process.user().clone();
    let looked_up =
        tokio::task::spawn_blocking(move || user::resolve(&names, &root, &mut user).map(|()| user));
    let user = looked_up.await.map_err(|_| ContainerError::Panicked(shared.id.clone()))?;
    process.set_user(user.map_err(|error| ContainerError::User(shared.id.clone(), error))?);
    Ok(())
}

/// Shows a mount of another container in this one, whose first process is `pid`.
async fn share_mount(
    shared: &Shared,
    agent: &Agent,
    mount: SharedMount,
    pid: i32,
) -> Result<(), ContainerError> {
    let failed = |error| ContainerError::SharedMount(shared.id.clone(), error);
    let source = agent.registry.all().into_iter().find_map(|container| {
        let is_it = container.name().is_some_and(|name| name == mount.source_container);
        let init = is_it.then(|| container.process("").ok())??;
        init.exited().is_none().then(|| init.pid())
    });
    let source = source.ok_or_else(|| {
        let (mount, container) = (mount.name.clone(), mount.source_container.clone());
        failed(SharedMountError::NoContainer { mount, container })
    })?;
    let work = tokio::task::spawn_blocking(move || shared_mount::share(&mount, source, pid)).await;
    work.map_err(|_| ContainerError::Panicked(shared.id.clone()))?.map_err(failed)
}

/// Directories, devices, storages, cgroup.
fn prepare(
    agent: &Arc<Agent>,
    id: &ContainerId,
    request: &mut CreateRequest,
    undo: &mut Undo,
) -> Result<(Cgroup, PciAddresses), ContainerError> {
    let bundle = agent.paths.container(id);
    std::fs::create_dir_all(&bundle).map_err(|source| ContainerError::Io {
        operation: "make directory",
        path: bundle.display().to_string(),
        source,
    })?;
    undo.push("remove the bundle", move || remove_bundle(&bundle));
    let attached = device::attach(&request.devices, &mut request.spec, &agent.devices)
        .map_err(|error| ContainerError::Device(id.clone(), error))?;
    let (addresses, bound) = (attached.addresses, attached.bound);
    undo.push("give devices back", move || {
        bound.iter().rev().for_each(Bound::give_back);
        Ok(())
    });
    let (timeout, by_variable) = (agent.config.cdi_timeout, agent.config.visible_cdi_devices);
    cdi::inject(&mut request.spec, &agent.devices, timeout, by_variable)
        .map_err(|error| ContainerError::Cdi(id.clone(), error))?;
    for storage in &request.storages {
        agent.storages.acquire(storage, &agent.devices)?;
        let (agent, point) = (Arc::clone(agent), storage.mount_point.clone());
        undo.push("release a storage", move || agent.storages.release(&point).map_err(|error| chain(&error)));
    }
    let failed = |error| ContainerError::Cgroup(id.clone(), error);
    let linux = request.spec.linux().as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path().as_ref()).map(|path| path.to_string_lossy());
    let path = CgroupPath::parse(path.as_deref().unwrap_or_default(), id.as_str()).map_err(failed)?;
    let cgroup = Cgroup::create(&agent.paths.cgroup, &path).map_err(failed)?;
    let root = agent.paths.cgroup.clone();
    undo.push("remove the cgroup", move || {
        let removed = Cgroup::open(&root, &path);
        match removed.and_then(|cgroup| cgroup.remove(REMOVE_DEADLINE)) {
            Err(error) if error.class() != rustjail::cgroup::ErrorClass::NotFound => Err(chain(&error)),
            _ => Ok(()),
        }
    });
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    if let Some(resources) = resources {
        for warning in cgroup.apply(resources).map_err(failed)? {
            tracing::warn!(container_id = %id, %warning, "a resource limit was changed");
        }
    }
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    cgroup.apply_devices(rules).map_err(failed)?;
    Ok((cgroup, addresses))
}

/// Removes a container's directory, unless something is still mounted below it: that would be emptied, not removed.
fn remove_bundle(bundle: &Path) -> Result<(), String> {
    let mounts = init::mountinfo::mounts().map_err(|error| error.to_string())?;
    if let Some(mount) = mounts.iter().find(|mount| mount.point.starts_with(bundle)) {
        return Err(format!(
            "{} is still in use: {} on {}",
            bundle.display(),
            mount.source,
            mount.point.display()
        ));
    }
    match std::fs::remove_dir_all(bundle) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Gives the container the sandbox's IPC and UTS namespaces, whatever path its spec names, and a pid namespace: the
/// one its spec names by path, the shared one if asked for, else a new one.
// COMPAT(kata): `ipc_and_uts_are_the_sandboxes_and_others_stay`. Shims leave this to the agent.
// COMPAT(kata): `a_pid_namespace_is_given_where_the_shim_sent_none_and_kept_where_it_is_named`. They strip it.
fn rewrite_namespaces(spec: &mut Spec, sandbox: &SharedNamespaces, shared_pid: Option<&Arc<OwnedFd>>) {
    use std::os::fd::AsRawFd as _;
    let Some(linux) = spec.linux_mut() else { return };
    let mut list: Vec<LinuxNamespace> = linux.namespaces().clone().unwrap_or_default();
    // A link of the agent's own descriptor table; the agent itself opens it, moments later.
    let link = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    for entry in &mut list {
        match entry.typ() {
            LinuxNamespaceType::Ipc => entry.set_path(Some(link(&sandbox.ipc))),
            LinuxNamespaceType::Uts => entry.set_path(Some(link(&sandbox.uts))),
            _ => entry,
        };
    }
    let named = |entry: &LinuxNamespace| {
        entry.typ() == LinuxNamespaceType::Pid
            && entry.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty())
    };
    if !list.iter().any(named) {
        list.retain(|entry| entry.typ() != LinuxNamespaceType::Pid);
        let mut entry = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Pid);
        if let Some(shared) = shared_pid {
            entry = entry.path(link(shared));
        }
        list.extend(entry.build());
    }
    linux.set_namespaces(Some(list));
}

/// A descriptor of the cgroup's directory that the launch can own.
pub(super) fn directory_of(cgroup: &Cgroup, id: &ContainerId) -> Result<OwnedFd, ContainerError> {
    cgroup.dir().try_clone_to_owned().map_err(|source| ContainerError::Io {
        operation: "open cgroup of",
        path: id.to_string(),
        source,
    })
}

/// Pipes for a process without a terminal; nothing for one that has its own.
pub(super) fn streams(plan: &JailPlan, agent: &Agent) -> Result<(Pipes, ChildStreams), ContainerError> {
    match plan.terminal {
        Some(_) => Ok(Default::default()),
        None => Ok(stdio::pipes(agent.config.container_pipe_size as usize)?),
    }
}

/// The agent's ends of what a launched process reads and writes.
pub(super) fn ends(terminal: Option<OwnedFd>, pipes: Pipes) -> Ends {
    terminal.map_or(Ends::Pipes(pipes), Ends::Terminal)
}

/// Starts to move the bytes of a launched process.
pub(super) fn process(
    exec_id: &str,
    shared: &Shared,
    pid: i32,
    pidfd: OwnedFd,
    exit: tokio::sync::watch::Receiver<Option<i32>>,
    ends: Ends,
    mut claimed: Claimed,
) -> Result<Process, ContainerError> {
    claimed.is_init = exec_id.is_empty();
    let stdio = Stdio::start(ends, claimed, &exit, &shared.unread).inspect_err(|_| {
        // Nobody could ever read it, or learn of its end: it must not run on.
        if let Err(error) = rustjail::pidfd_signal(pidfd.as_fd(), nix::libc::SIGKILL) {
            tracing::error!(container_id = %shared.id, pid, %error, "a process without streams is not killed");
        }
    })?;
    let name = if exec_id.is_empty() { shared.id.as_str() } else { exec_id };
    Ok(Process::new(name.to_owned(), pid, pidfd, exit, stdio))
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
    use oci_spec::runtime::LinuxBuilder;

    fn rewritten(kinds: &[(LinuxNamespaceType, Option<&str>)], shared: bool) -> Vec<LinuxNamespace> {
        let fd = || Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
        let sandbox = SharedNamespaces { ipc: fd(), uts: fd() };
        let list: Vec<_> = kinds
            .iter()
            .map(|(kind, path)| {
                let mut entry = LinuxNamespaceBuilder::default().typ(*kind);
                if let Some(path) = path {
                    entry = entry.path(*path);
                }
                entry.build().unwrap()
            })
            .collect();
        let mut spec = Spec::default();
        spec.set_linux(Some(LinuxBuilder::default().namespaces(list).build().unwrap()));
        rewrite_namespaces(&mut spec, &sandbox, shared.then(fd).as_ref());
        spec.linux().as_ref().unwrap().namespaces().clone().unwrap()
    }

    fn pid_path(list: &[LinuxNamespace]) -> Option<PathBuf> {
        let entries: Vec<_> = list.iter().filter(|entry| entry.typ() == LinuxNamespaceType::Pid).collect();
        assert_eq!(entries.len(), 1, "{list:?}");
        entries[0].path().clone()
    }

    #[test]
    fn a_pid_namespace_is_given_where_the_shim_sent_none_and_kept_where_it_is_named() {
        assert_eq!(pid_path(&rewritten(&[(LinuxNamespaceType::Mount, None)], false)), None);
        assert_eq!(pid_path(&rewritten(&[(LinuxNamespaceType::Pid, None)], false)), None);
        assert_eq!(pid_path(&rewritten(&[(LinuxNamespaceType::Pid, Some(""))], false)), None);
        let named = rewritten(&[(LinuxNamespaceType::Pid, Some("/run/ns/pid"))], false);
        assert_eq!(pid_path(&named), Some("/run/ns/pid".into()));
        let shared = pid_path(&rewritten(&[], true)).unwrap();
        assert!(shared.starts_with("/proc/self/fd"));
    }

    #[test]
    fn ipc_and_uts_are_the_sandboxes_and_others_stay() {
        let list = rewritten(
            &[
                (LinuxNamespaceType::Ipc, None),
                (LinuxNamespaceType::Uts, Some("/proc/1/ns/uts")),
                (LinuxNamespaceType::Network, None),
            ],
            false,
        );
        assert!(list[0].path().as_ref().unwrap().starts_with("/proc/self/fd"));
        assert!(list[1].path().as_ref().unwrap().starts_with("/proc/self/fd"));
        assert_eq!(list[2].path(), &None);
    }

    #[test]
    fn a_bundle_is_removed_once_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("c");
        std::fs::create_dir_all(bundle.join("upper/x")).unwrap();
        remove_bundle(&bundle).unwrap();
        assert!(!bundle.exists());
        remove_bundle(&bundle).unwrap();
    }
}
