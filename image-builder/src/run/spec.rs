//! What the agent is told about a container, decided without doing anything.
//!
//! Turns a pod's container and its image's configuration into the OCI spec that travels to the agent, with the
//! defaults that Docker and containerd give: mounts, capabilities, masked paths. Names no pid and no network
//! namespace, as shims do not: the agent decides, and all containers of a pod share the guest's network.

use std::collections::HashMap;

use protobuf::MessageField;
use protocols::agent::Storage;
use protocols::oci;

use super::capabilities;
use super::folder;
use super::pod::{Container, Pod, Volume, VolumeKind};
use crate::image::{ImageConfig, UserError};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the agent keeps what belongs to containers and to the pod.
const RUN: &str = "/run/kata-containers";

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Destination, type, source, options.
const MOUNTS: [(&str, &str, &str, &str); 7] = [
    ("/proc", "proc", "proc", "nosuid,noexec,nodev"),
    ("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
    ("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
];

/// Why no spec can be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Neither the pod nor the image says what to run.
    #[error("container {0}: neither the pod nor the image names a command")]
    NoCommand(String),
    /// The image's user does not exist.
    #[error("container {container}: {source}")]
    User {
        /// The container.
        container: String,
        /// Which user.
        source: UserError,
    },
    /// No such capability.
    #[error("container {container}: there is no capability {name:?}")]
    Capability {
        /// The container.
        container: String,
        /// As the pod names it.
        name: String,
    },
}

/// The id of a container in its guest.
pub(super) fn container_id(pod: &Pod, container: &Container) -> String {
    format!("{}-{}", pod.name, container.name)
}

/// The OCI spec of a container.
pub(super) fn spec(pod: &Pod, container: &Container, image: &ImageConfig) -> Result<oci::Spec, SpecError> {
    let id = container_id(pod, container);
    let mut spec = oci::Spec::new();
    spec.Version = "1.2.0".to_owned();
    spec.Hostname = pod.hostname.clone();
    spec.Process = MessageField::some(process(pod, container, image)?);
    spec.Root = MessageField::some(oci::Root {
        Path: format!("{RUN}/{id}/rootfs"),
        Readonly: container.readonly_root,
        ..oci::Root::default()
    });
    spec.Mounts = mounts(pod, container);
    spec.Annotations = HashMap::from([
        ("io.kubernetes.cri.container-type".to_owned(), "container".to_owned()),
        ("io.kubernetes.container.name".to_owned(), container.name.clone()),
    ]);
    let strings = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let namespace =
        |kind: &str| oci::LinuxNamespace { Type: kind.to_owned(), ..oci::LinuxNamespace::default() };
    let mut linux = oci::Linux::new();
    linux.CgroupsPath = format!("/pith/{}/{}", pod.name, container.name);
    linux.Namespaces = ["ipc", "uts", "mount"].map(namespace).to_vec();
    linux.Resources = MessageField::some(resources(container));
    if !container.privileged {
        linux.MaskedPaths = strings(&MASKED);
        linux.ReadonlyPaths = strings(&READONLY);
    }
    spec.Linux = MessageField::some(linux);
    Ok(spec)
}

fn process(pod: &Pod, container: &Container, image: &ImageConfig) -> Result<oci::Process, SpecError> {
    let of_user = |source| SpecError::User { container: container.name.clone(), source };
    let wanted = container.user.map_or_else(|| image.user.clone(), |uid| uid.to_string());
    let account = image.account(&wanted).map_err(of_user)?;
    let mut groups = account.groups.clone();
    groups.extend(&container.groups);
    groups.sort_unstable();
    groups.dedup();

    let mut process = oci::Process::new();
    process.Terminal = container.tty;
    process.User = MessageField::some(oci::User {
        UID: account.uid,
        GID: container.group.unwrap_or(account.gid),
        AdditionalGids: groups,
        ..oci::User::default()
    });
    let env = environment(pod, container, image, account.home.as_deref());
    process.Args = arguments(container, image, &env)?;
    process.Env = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let from_image = Some(image.working_dir.clone()).filter(|dir| !dir.is_empty());
    process.Cwd = container.working_dir.clone().or(from_image).unwrap_or_else(|| "/".to_owned());
    process.NoNewPrivileges = !container.may_gain_privileges;
    let names = capabilities::of(container)?;
    process.Capabilities = MessageField::some(oci::LinuxCapabilities {
        Bounding: names.clone(),
        Effective: names.clone(),
        Permitted: names,
        ..oci::LinuxCapabilities::default()
    });
    process.Rlimits = vec![oci::POSIXRlimit {
        Type: "RLIMIT_NOFILE".to_owned(),
        Soft: 1024,
        Hard: 524_288,
        ..oci::POSIXRlimit::default()
    }];
    Ok(process)
}

/// The program and its arguments: a command replaces all that the image says, arguments only its arguments.
fn arguments(
    container: &Container,
    image: &ImageConfig,
    env: &[(String, String)],
) -> Result<Vec<String>, SpecError> {
    let expanded = |words: &Vec<String>| words.iter().map(|word| expand(word, env)).collect::<Vec<_>>();
    let program = container.command.as_ref().map_or_else(|| image.entrypoint.clone(), expanded);
    let rest = match (&container.args, &container.command) {
        (Some(args), _) => expanded(args),
        (None, Some(_)) => Vec::new(),
        (None, None) => image.cmd.clone(),
    };
    let all: Vec<String> = program.into_iter().chain(rest).collect();
    if all.is_empty() { Err(SpecError::NoCommand(container.name.clone())) } else { Ok(all) }
}

/// The image's environment, the pod's on top of it, and what programs expect to find.
fn environment(
    pod: &Pod,
    container: &Container,
    image: &ImageConfig,
    home: Option<&str>,
) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: String| match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => env.push((name.to_owned(), value)),
    };
    set("PATH", PATH.to_owned());
    set("HOSTNAME", pod.hostname.clone());
    set("HOME", home.unwrap_or("/").to_owned());
    if container.tty {
        set("TERM", "xterm".to_owned());
    }
    for variable in &image.env {
        if let Some((name, value)) = variable.split_once('=') {
            set(name, value.to_owned());
        }
    }
    for (name, value) in &container.env {
        // Kubernetes lets a value refer to what is set before it.
        let value = expand(value, &env);
        match env.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => env.push((name.clone(), value)),
        }
    }
    env
}

/// Replaces `$(NAME)` by the variable's value; `$$` stands for `$`, and unknown names stay as they are.
fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix("$(").and_then(|after| after.split_once(')'));
        match name.and_then(|(name, after)| Some((env.iter().find(|(known, _)| known == name)?, after))) {
            Some(((_, value), after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn resources(container: &Container) -> oci::LinuxResources {
    let mut resources = oci::LinuxResources::new();
    if let Some(bytes) = container.memory {
        resources.Memory = MessageField::some(oci::LinuxMemory {
            Limit: i64::try_from(bytes).unwrap_or(i64::MAX),
            ..oci::LinuxMemory::default()
        });
    }
    if let Some(millis) = container.cpu_millis {
        resources.CPU = MessageField::some(oci::LinuxCPU {
            Period: 100_000,
            Quota: i64::try_from(millis.saturating_mul(100)).unwrap_or(i64::MAX),
            Shares: (millis.saturating_mul(1024) / 1000).max(2),
            ..oci::LinuxCPU::default()
        });
    }
    if container.privileged {
        resources.Devices = vec![oci::LinuxDeviceCgroup {
            Allow: true,
            Access: "rwm".to_owned(),
            ..oci::LinuxDeviceCgroup::default()
        }];
    }
    resources
}

fn mounts(pod: &Pod, container: &Container) -> Vec<oci::Mount> {
    let mount = |destination: &str, kind: &str, source: &str, options: Vec<String>| oci::Mount {
        destination: destination.to_owned(),
        type_: kind.to_owned(),
        source: source.to_owned(),
        options,
        ..oci::Mount::default()
    };
    let split = |options: &str| options.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut mounts: Vec<oci::Mount> = MOUNTS
        .into_iter()
        .map(|(destination, kind, source, options)| {
            let mut options = split(options);
            if container.privileged {
                options.retain(|option| option != "ro");
            }
            mount(destination, kind, source, options)
        })
        .collect();
    if !pod.dns.is_empty() {
        let source = format!("{RUN}/sandbox/resolv.conf");
        mounts.push(mount("/etc/resolv.conf", "bind", &source, split("rbind,ro")));
    }
    for wanted in &container.mounts {
        if let Some(volume) = pod.volumes.iter().find(|volume| volume.name == wanted.volume) {
            let options = if wanted.readonly { "rbind,ro" } else { "rbind,rw" };
            mounts.push(mount(&wanted.path, "bind", &volume_path(volume), split(options)));
        }
    }
    mounts
}

/// Where a volume is in the guest.
fn volume_path(volume: &Volume) -> String {
    let kind = match &volume.kind {
        VolumeKind::EmptyDir { memory: false, .. } => "local",
        VolumeKind::EmptyDir { memory: true, .. } => "ephemeral",
        VolumeKind::HostPath { .. } => return folder::point(volume),
    };
    format!("{RUN}/sandbox/{kind}/{}", volume.name)
}

/// What the agent mounts for a container's root: the image, and a tmpfs-backed overlay on top of it.
pub(super) fn root_storages(id: &str, disk: &str) -> Vec<Storage> {
    let base = format!("{RUN}/{id}");
    let option = |name: &str, dir: &str| format!("{name}={base}/{dir}");
    let create = |dir: &str| format!("io.katacontainers.volume.overlayfs.create_directory={base}/{dir}");
    vec![
        disk_storage(disk, format!("{base}/image")),
        Storage {
            driver: "overlayfs".to_owned(),
            source: "overlay".to_owned(),
            fstype: "overlay".to_owned(),
            options: vec![
                option("lowerdir", "image"),
                option("upperdir", "upper"),
                option("workdir", "work"),
            ],
            driver_options: vec![create("upper"), create("work")],
            mount_point: format!("{base}/rootfs"),
            ..Storage::default()
        },
    ]
}

/// What the agent mounts for the whole pod.
pub(super) fn volume_storages(pod: &Pod) -> Vec<Storage> {
    let storage = |(index, volume): (usize, &Volume)| match &volume.kind {
        VolumeKind::EmptyDir { memory: false, .. } => Storage {
            driver: "local".to_owned(),
            source: "local".to_owned(),
            fstype: "local".to_owned(),
            options: vec!["mode=0777".to_owned()],
            mount_point: volume_path(volume),
            ..Storage::default()
        },
        VolumeKind::EmptyDir { memory: true, size } => Storage {
            driver: "ephemeral".to_owned(),
            source: "tmpfs".to_owned(),
            fstype: "tmpfs".to_owned(),
            options: size
                .map(|bytes| format!("size={bytes}"))
                .into_iter()
                .chain(["mode=1777".to_owned()])
                .collect(),
            mount_point: volume_path(volume),
            ..Storage::default()
        },
        VolumeKind::HostPath { .. } => folder::storage(pod, index, volume),
    };
    pod.volumes.iter().enumerate().map(storage).collect()
}

fn disk_storage(disk: &str, mount_point: String) -> Storage {
    Storage {
        driver: "blk".to_owned(),
        source: disk.to_owned(),
        fstype: "erofs".to_owned(),
        options: vec!["ro".to_owned()],
        mount_point,
        ..Storage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod_of(container: Container) -> Pod {
        Pod {
            name: "web".into(),
            hostname: "host".into(),
            grace: std::time::Duration::from_secs(1),
            containers: vec![container],
            volumes: Vec::new(),
            dns: Vec::new(),
            main: Vec::new(),
        }
    }

    fn container() -> Container {
        Container { name: "a".into(), may_gain_privileges: true, ..Container::default() }
    }

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["cmd".into()],
            env: vec!["A=image".into(), "PATH=/bin".into()],
            working_dir: "/srv".into(),
            user: "7:8".into(),
            ..ImageConfig::default()
        }
    }

    fn process_of(container: Container) -> oci::Process {
        let pod = pod_of(container.clone());
        spec(&pod, &container, &image()).unwrap().Process.unwrap()
    }

    fn words(text: &[&str]) -> Vec<String> {
        text.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn commands_merge_as_in_kubernetes() {
        let args = |command: Option<&[&str]>, args: Option<&[&str]>| {
            process_of(Container { command: command.map(words), args: args.map(words), ..container() }).Args
        };
        assert_eq!(args(None, None), ["/entry", "cmd"]);
        assert_eq!(args(None, Some(&["x"])), ["/entry", "x"]);
        assert_eq!(args(Some(&["/c"]), None), ["/c"]);
        assert_eq!(args(Some(&["/c"]), Some(&["x"])), ["/c", "x"]);
        let nothing = spec(&pod_of(container()), &container(), &ImageConfig::default());
        assert_eq!(nothing.unwrap_err(), SpecError::NoCommand("a".into()));
    }

    #[test]
    fn environments_merge_and_expand() {
        let env = [("A", "pod"), ("B", "$(A)/b"), ("C", "$$(A) $(NOPE) $")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let process = process_of(Container { env, args: Some(words(&["$(B)"])), ..container() });
        assert_eq!(
            process.Env,
            ["PATH=/bin", "HOSTNAME=host", "HOME=/", "A=pod", "B=pod/b", "C=$(A) $(NOPE) $"]
        );
        assert_eq!(process.Args[1], "pod/b");
    }

    #[test]
    fn users_and_directories() {
        let process = process_of(container());
        let user = process.User.unwrap();
        assert_eq!((user.UID, user.GID, process.Cwd.as_str()), (7, 8, "/srv"));
        let process = process_of(Container {
            user: Some(1000),
            group: Some(5),
            groups: vec![9, 9, 3],
            working_dir: Some("/w".into()),
            ..container()
        });
        let user = process.User.unwrap();
        assert_eq!(
            (user.UID, user.GID, user.AdditionalGids, process.Cwd.as_str()),
            (1000, 5, vec![3, 9], "/w")
        );
    }

    #[test]
    fn the_spec_leaves_pid_and_network_to_the_agent() {
        let container = Container { cpu_millis: Some(500), memory: Some(1 << 20), ..container() };
        let spec = spec(&pod_of(container.clone()), &container, &image()).unwrap();
        let linux = spec.Linux.unwrap();
        let kinds: Vec<&str> = linux.Namespaces.iter().map(|namespace| namespace.Type.as_str()).collect();
        assert_eq!(kinds, ["ipc", "uts", "mount"]);
        assert_eq!(linux.CgroupsPath, "/pith/web/a");
        let resources = linux.Resources.unwrap();
        assert_eq!((resources.CPU.Quota, resources.CPU.Period, resources.CPU.Shares), (50_000, 100_000, 512));
        assert_eq!(resources.Memory.Limit, 1 << 20);
        assert!(resources.Devices.is_empty());
        assert_eq!(spec.Root.Path, "/run/kata-containers/web-a/rootfs");
        assert!(linux.MaskedPaths.contains(&"/proc/kcore".to_owned()));
    }

    #[test]
    fn privileged_means_nothing_hidden() {
        let container = Container { privileged: true, ..container() };
        let spec = spec(&pod_of(container.clone()), &container, &image()).unwrap();
        let linux = spec.Linux.unwrap();
        assert!(linux.MaskedPaths.is_empty() && linux.ReadonlyPaths.is_empty());
        assert!(linux.Resources.Devices[0].Allow);
        let sys = spec.Mounts.iter().find(|mount| mount.destination == "/sys").unwrap();
        assert!(!sys.options.contains(&"ro".to_owned()));
    }

    #[test]
    fn volumes_are_mounted_where_the_agent_puts_them() {
        use crate::run::pod::VolumeMount;
        let mount = |volume: &str| VolumeMount {
            volume: volume.into(),
            path: format!("/{volume}"),
            readonly: volume == "h",
        };
        let container = Container { mounts: ["l", "m", "h"].map(mount).to_vec(), ..container() };
        let mut pod = pod_of(container.clone());
        let volume = |name: &str, kind| Volume { name: name.into(), kind };
        pod.volumes = vec![
            volume("l", VolumeKind::EmptyDir { memory: false, size: None }),
            volume("m", VolumeKind::EmptyDir { memory: true, size: Some(4096) }),
            volume("h", VolumeKind::HostPath { path: "/srv".into(), create: false }),
        ];
        let spec = spec(&pod, &container, &image()).unwrap();
        let storages = volume_storages(&pod);
        assert_eq!(storages[1].options, ["size=4096", "mode=1777"]);
        assert_eq!((storages[2].driver.as_str(), storages[2].source.as_str()), ("virtio-fs", "volume2"));
        let binds: Vec<&oci::Mount> = spec.Mounts.iter().filter(|mount| mount.type_ == "bind").collect();
        for (bind, storage) in binds.iter().zip(&storages) {
            assert_eq!(bind.source, storage.mount_point);
        }
        assert_eq!(binds[2].options, ["rbind", "ro"]);
    }

    #[test]
    fn a_root_is_an_overlay_over_the_image() {
        let storages = root_storages("web-a", "/dev/vdb");
        assert_eq!((storages[0].source.as_str(), storages[0].fstype.as_str()), ("/dev/vdb", "erofs"));
        assert_eq!(storages[1].options[0], format!("lowerdir={}", storages[0].mount_point));
        assert_eq!(storages[1].mount_point, "/run/kata-containers/web-a/rootfs");
    }
}
