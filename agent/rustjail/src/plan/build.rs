//! Makes plans: the only place where an OCI spec is interpreted.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, LinuxSeccomp, Process, Spec};

use super::check;
use super::hook::{self, Bundle, InnerHooks};
use super::identity::{Identity, Rlimit};
use super::mount::container_path;
use super::{
    Attributes, Command, DeviceKind, DeviceNode, JailPlan, Listener, MountPlan, MountSource, NamespaceKind,
    NamespacePlan, Propagation, PropagationMode, RootSwitch, RootfsPlan, Seccomp, TerminalPlan,
};
use crate::seccomp;

/// Why no plan could be made. The text names the field of the spec.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// The spec cannot be right.
    #[error("{0}")]
    Invalid(String),
    /// The spec asks for something that is not built.
    #[error("{0} is not supported")]
    Unsupported(String),
}

impl PlanError {
    pub(super) fn nul(what: &str, text: &str) -> PlanError {
        PlanError::Invalid(format!("{what} {text:?} contains a NUL byte"))
    }
}

/// Facts about the guest that a container's plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct InitOptions<'a> {
    /// How a new root becomes `/` here.
    pub switch: RootSwitch,
    /// What its hooks are told of it.
    pub bundle: Bundle<'a>,
    /// Filters of system calls that were made for other containers.
    pub filters: Option<&'a seccomp::Filters>,
}

/// What a further process takes over from its container.
#[derive(Debug, Clone)]
pub struct ExecOptions<'a> {
    /// The container's spec.
    pub spec: &'a Spec,
}

/// Plans a container's first process.
///
/// A mount and a cgroup namespace are added where the spec names none: without them there is neither a root of its
/// own nor a view of the cgroup tree that ends at the container.
///
/// # Errors
/// [`PlanError`] when the spec is inconsistent, or asks for what is not supported.
pub fn init(spec: &Spec, options: InitOptions<'_>) -> Result<JailPlan, PlanError> {
    let process =
        spec.process().as_ref().ok_or_else(|| PlanError::Invalid("the spec has no process".into()))?;
    let linux = spec.linux().as_ref();
    check::spec(spec)?;
    refuse_what_is_not_built(spec)?;
    let mut namespaces =
        NamespacePlan::of_spec(linux.and_then(|l| l.namespaces().as_deref()).unwrap_or_default())?;
    if let Some(linux) = linux {
        namespaces.complete(linux)?;
    }
    if namespaces.join.iter().any(|(kind, _)| *kind == NamespaceKind::Mount) {
        return Err(PlanError::Unsupported("a container in an existing mount namespace".into()));
    }
    for kind in [NamespaceKind::Mount, NamespaceKind::Cgroup] {
        if !namespaces.has(kind) {
            namespaces.new.push(kind);
        }
    }
    namespaces.new.sort();
    let rootfs = rootfs(spec, linux, options.switch, &namespaces)?;
    let mut plan = of_process(process, linux, &namespaces)?;
    plan.seccomp = seccomp_of(linux, options.filters)?;
    plan.sysctls = sysctls(linux, &namespaces)?;
    plan.hostname = name(spec.hostname(), "hostname", &namespaces)?;
    plan.domainname = name(spec.domainname(), "domainname", &namespaces)?;
    plan.namespaces = namespaces;
    plan.rootfs = Some(rootfs);
    plan.terminal = plan.terminal.map(|terminal| TerminalPlan { console: true, ..terminal });
    plan.command.create_cwd = true;
    plan.hooks = InnerHooks::of_spec(spec, options.bundle)?;
    plan.stop_for_hooks = hook::stops_for_runtime(spec.hooks().as_ref());
    plan.wait_for_start = true;
    Ok(plan)
}

/// To run without what a spec asks for could be worse than not to run.
fn refuse_what_is_not_built(spec: &Spec) -> Result<(), PlanError> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let asked = [
        (linux.intel_rdt().is_some(), "linux.intelRdt: a guest has no cache of its own to divide; this"),
        (linux.memory_policy().is_some(), "linux.memoryPolicy"),
        (linux.net_devices().as_ref().is_some_and(|list| !list.is_empty()), "linux.netDevices"),
    ];
    match asked.into_iter().find(|(is_asked, _)| *is_asked) {
        Some((_, what)) => Err(PlanError::Unsupported(what.into())),
        None => Ok(()),
    }
}

/// Plans a further process of a running container. It joins the container's namespaces, which the caller passes as
/// descriptors when it starts the plan.
///
/// A process without capabilities takes the container's, as shims send it.
///
/// # Errors
/// [`PlanError`] when the process is inconsistent.
pub fn exec(process: &Process, options: &ExecOptions<'_>) -> Result<JailPlan, PlanError> {
    let seccomp = seccomp_of(options.spec.linux().as_ref(), None)?;
    exec_with(process, options, seccomp.as_ref())
}

/// As [`exec`], with the filter of the container's own plan ([`JailPlan::seccomp`]): a profile is compiled once for all
/// processes of a container.
///
/// # Errors
/// [`PlanError`] when the process is inconsistent.
pub fn exec_with(
    process: &Process,
    options: &ExecOptions<'_>,
    seccomp: Option<&Seccomp>,
) -> Result<JailPlan, PlanError> {
    // What holds for the whole container holds here, but its namespaces exist.
    let mut plan = of_process(process, options.spec.linux().as_ref(), &NamespacePlan::default())?;
    plan.seccomp = seccomp.cloned();
    plan.attributes.of_exec(process.exec_cpu_affinity().as_ref())?;
    if process.capabilities().is_none()
        && let Some(init) = options.spec.process()
    {
        plan.identity.capabilities = super::Capabilities::of_spec(init.capabilities().as_ref());
    }
    Ok(plan)
}

fn of_process(
    process: &Process,
    linux: Option<&Linux>,
    namespaces: &NamespacePlan,
) -> Result<JailPlan, PlanError> {
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(PlanError::Invalid("process.args is empty".into()));
    }
    let env = without_duplicates(process.env().as_deref().unwrap_or_default());
    for (what, list) in [("process.args entry", &args), ("process.env entry", &env)] {
        if let Some(bad) = list.iter().find(|text| text.contains('\0')) {
            return Err(PlanError::nul(what, bad));
        }
    }
    if !process.cwd().is_absolute() {
        return Err(PlanError::Invalid(format!("process.cwd {:?} is not an absolute path", process.cwd())));
    }
    check::process(process)?;
    // Never the agent's own, which protects it.
    let adjust = process.oom_score_adj().unwrap_or(0);
    if !(-1000..=1000).contains(&adjust) {
        return Err(PlanError::Invalid(format!("process.oomScoreAdj {adjust} is not within -1000 to 1000")));
    }
    let size = process.console_size().map(|size| {
        let cells = |count: u64| u16::try_from(count).unwrap_or(u16::MAX);
        (cells(size.height()), cells(size.width()))
    });
    Ok(JailPlan {
        oom_score_adj: Some(adjust),
        namespaces: namespaces.clone(),
        hostname: None,
        domainname: None,
        rootfs: None,
        sysctls: Vec::new(),
        terminal: process.terminal().unwrap_or(false).then_some(TerminalPlan { size, console: false }),
        rlimits: Rlimit::all_of_spec(process.rlimits().as_deref().unwrap_or_default())?,
        attributes: Attributes::of_spec(process, linux.and_then(|l| l.personality().as_ref()))?,
        identity: Identity::of_spec(
            process.user(),
            process.capabilities().as_ref(),
            process.no_new_privileges(),
        )?,
        seccomp: None,
        hooks: InnerHooks::default(),
        stop_for_hooks: false,
        command: Command { args, env, cwd: process.cwd().clone(), create_cwd: false },
        wait_for_start: false,
    })
}

/// Each variable once, at its first place with its last value: `getenv(3)` finds the first of several, and engines put
/// what a user sets behind what the image sets. An entry without a name stays as it is.
fn without_duplicates(entries: &[String]) -> Vec<String> {
    let mut env: Vec<String> = Vec::with_capacity(entries.len());
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries {
        match entry.split_once('=').filter(|(name, _)| !name.is_empty()) {
            Some((name, _)) => match places.entry(name) {
                Entry::Occupied(place) => env[*place.get()].clone_from(entry),
                Entry::Vacant(place) => {
                    place.insert(env.len());
                    env.push(entry.clone());
                }
            },
            None => env.push(entry.clone()),
        }
    }
    env
}

fn seccomp_of(
    linux: Option<&Linux>,
    filters: Option<&seccomp::Filters>,
) -> Result<Option<Seccomp>, PlanError> {
    let profile = linux.and_then(|l| l.seccomp().as_ref());
    profile.map(|profile| filter(profile, filters)).transpose()
}

fn filter(profile: &LinuxSeccomp, filters: Option<&seccomp::Filters>) -> Result<Seccomp, PlanError> {
    let filter = match filters {
        Some(filters) => filters.of(profile)?,
        None => seccomp::compile(profile)?,
    };
    let listener = filter.listener.then(|| Listener {
        path: profile
            .listener_path()
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default(),
        metadata: profile.listener_metadata().clone().unwrap_or_default(),
    });
    Ok(Seccomp { filter, listener })
}

fn rootfs(
    spec: &Spec,
    linux: Option<&Linux>,
    switch: RootSwitch,
    namespaces: &NamespacePlan,
) -> Result<RootfsPlan, PlanError> {
    let root = spec.root().as_ref().ok_or_else(|| PlanError::Invalid("the spec has no root".into()))?;
    if !root.path().is_absolute() || root.path() == Path::new("/") {
        return Err(PlanError::Invalid(format!(
            "root.path {:?} is not the absolute path of a container's root",
            root.path()
        )));
    }
    let mounts = spec
        .mounts()
        .as_deref()
        .unwrap_or_default()
        .iter()
        .map(|mount| labelled(MountPlan::of_spec(mount)?.within(namespaces), linux))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(mount) = mounts.iter().find(|mount| {
        mount.owners.as_ref().is_some_and(|owners| owners.mappings.is_none())
            && !namespaces.has(NamespaceKind::User)
    }) {
        return Err(PlanError::Invalid(format!(
            "mount on {} has neither uidMappings and gidMappings nor a user namespace to take them from",
            mount.destination.display()
        )));
    }
    // A bound /dev is the guest's own, or another container's: its nodes are not ours to make.
    let own_dev = !mounts.iter().any(|mount| {
        mount.destination == Path::new("/dev") && matches!(mount.source, MountSource::Bind { .. })
    });
    let (propagation, propagation_is_final) = match linux.and_then(|l| l.rootfs_propagation().as_deref()) {
        None | Some("") => (Propagation { mode: PropagationMode::Slave, recursive: true }, false),
        Some(word) => {
            let unknown = || PlanError::Invalid(format!("linux.rootfsPropagation {word:?} is unknown"));
            (Propagation::parse(word).ok_or_else(unknown)?, true)
        }
    };
    let paths = |list: Option<&Vec<String>>| -> Result<Vec<String>, PlanError> {
        list.into_iter()
            .flatten()
            .map(|path| Ok(container_path(Path::new(path))?.to_string_lossy().into_owned()))
            .collect()
    };
    Ok(RootfsPlan {
        path: root.path().clone(),
        propagation,
        propagation_is_final,
        mounts,
        devices: if own_dev { devices(linux)? } else { Vec::new() },
        // A node cannot be made in a user namespace (user_namespaces(7)): the guest's own is shown.
        bind_devices: namespaces.has(NamespaceKind::User),
        links: if own_dev { default_links() } else { Vec::new() },
        masked: paths(linux.and_then(|l| l.masked_paths().as_ref()))?,
        readonly_paths: paths(linux.and_then(|l| l.readonly_paths().as_ref()))?,
        readonly: root.readonly().unwrap_or(false),
        switch,
    })
}

/// The mount's label for files (`mount(8)`, `context`): on file systems that keep labels of their own it is refused by
/// the kernel, so it goes to those in memory only, as it always did.
fn labelled(mut mount: MountPlan, linux: Option<&Linux>) -> Result<MountPlan, PlanError> {
    let label = linux.and_then(|l| l.mount_label().as_deref()).filter(|label| !label.is_empty());
    if let (Some(label), MountSource::Filesystem { fstype, options, .. }) = (label, &mut mount.source)
        && matches!(fstype.as_str(), "tmpfs" | "mqueue" | "devpts")
    {
        if label.contains(['\0', '"']) {
            return Err(PlanError::Invalid(format!("linux.mountLabel {label:?} is no label")));
        }
        // A mount may have one of its own.
        if options.iter().all(|(name, _)| name != "context") {
            options.push(("context".into(), Some(label.to_owned())));
        }
    }
    Ok(mount)
}

/// Nodes every container has (runtime-spec, "Default Devices"); `/dev/console` and `/dev/ptmx` are made otherwise.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

fn devices(linux: Option<&Linux>) -> Result<Vec<DeviceNode>, PlanError> {
    let mut nodes: Vec<DeviceNode> = DEFAULT_DEVICES
        .iter()
        .map(|(path, major, minor)| DeviceNode {
            path: path.into(),
            kind: DeviceKind::Char,
            major: *major,
            minor: *minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    for device in linux.and_then(|l| l.devices().as_deref()).unwrap_or_default() {
        let node = device_node(device)?;
        nodes.retain(|other| other.path != node.path);
        nodes.push(node);
    }
    Ok(nodes)
}

fn device_node(device: &LinuxDevice) -> Result<DeviceNode, PlanError> {
    let path = container_path(device.path())?;
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
        LinuxDeviceType::B => DeviceKind::Block,
        LinuxDeviceType::P => DeviceKind::Fifo,
        LinuxDeviceType::A => {
            return Err(PlanError::Invalid(format!("device {} has the type \"a\"", path.display())));
        }
    };
    let number = |value: i64, what: &str| {
        u32::try_from(value).map_err(|_| {
            PlanError::Invalid(format!("device {} has the {what} number {value}", path.display()))
        })
    };
    let (major, minor) = match kind {
        DeviceKind::Fifo => (0, 0),
        DeviceKind::Char | DeviceKind::Block => {
            (number(device.major(), "major")?, number(device.minor(), "minor")?)
        }
    };
    Ok(DeviceNode {
        kind,
        major,
        minor,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        path,
    })
}

/// Links every container has (runtime-spec, "Dev symbolic links").
fn default_links() -> Vec<(String, String)> {
    [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ]
    .map(|(link, target)| (link.to_owned(), target.to_owned()))
    .to_vec()
}

/// What a new uts namespace is called; one that is joined has its names.
fn name(text: &Option<String>, what: &str, namespaces: &NamespacePlan) -> Result<Option<String>, PlanError> {
    match text.as_deref() {
        None | Some("") => Ok(None),
        // HOST_NAME_MAX (gethostname(2)).
        Some(text) if text.len() > 64 || text.contains('\0') => {
            Err(PlanError::Invalid(format!("{what} {text:?} is longer than 64 bytes or contains a NUL byte")))
        }
        // It would be the guest's own.
        Some(_) if !namespaces.has(NamespaceKind::Uts) => {
            Err(PlanError::Invalid(format!("{what}: the spec has no uts namespace to set it in")))
        }
        Some(text) => Ok(namespaces.is_new(NamespaceKind::Uts).then(|| text.to_owned())),
    }
}

/// Keys of the IPC namespace, and so a container's own to set where it has one of its own or the pod's.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

fn sysctls(linux: Option<&Linux>, namespaces: &NamespacePlan) -> Result<Vec<(String, String)>, PlanError> {
    let mut list = Vec::new();
    // In order, so that of several wrong ones the same is named each time.
    let keys: BTreeMap<_, _> = linux.and_then(|l| l.sysctl().as_ref()).into_iter().flatten().collect();
    for (key, value) in keys {
        let path = sysctl_path(key);
        let allowed = if IPC_SYSCTLS.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
            namespaces.has(NamespaceKind::Ipc)
        } else if path == "kernel/domainname" {
            namespaces.has(NamespaceKind::Uts)
        } else {
            // The whole VM is the pod: its network is the pod's own, with or without a namespace.
            path.starts_with("net/")
        };
        if !allowed || path.split('/').any(|part| part.is_empty() || part == "..") || path.contains('\0') {
            return Err(PlanError::Invalid(format!(
                "linux.sysctl {key:?} belongs to no namespace of the container"
            )));
        }
        if value.contains('\0') {
            return Err(PlanError::nul(&format!("linux.sysctl {key:?}"), value));
        }
        list.push((path, value.clone()));
    }
    list.sort();
    if let Some(pair) = list.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(PlanError::Invalid(format!("linux.sysctl names /proc/sys/{} twice", pair[0].0)));
    }
    Ok(list)
}

/// `net.ipv4.conf.eth0/1.x` and `net/ipv4/conf/eth0.1/x` name the same file (`sysctl(8)`): whichever separator comes
/// first separates, and the other one stands for itself.
fn sysctl_path(key: &str) -> String {
    let slash_first = match (key.find('/'), key.find('.')) {
        (Some(slash), Some(dot)) => slash < dot,
        (slash, _) => slash.is_some(),
    };
    if slash_first {
        return key.to_owned();
    }
    key.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

#[cfg(test)]
#[path = "build_test.rs"]
mod tests;
