//! What a container sees mounted, and what the guest mounts for it.

use protocols::agent::Storage;
use protocols::oci;

use super::environment;
use super::error::SpecError;
use super::place::{COMPANION, RUN, SCRATCH, SHARED, flat, own_file, shared_part_point, shared_point};
use crate::run::facts::Surroundings;
use crate::run::pod::{Container, Pod, Propagation, Volume, VolumeKind, VolumeMount};

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

/// Where the guest has a file of a volume of files.
pub(in crate::run) fn file_point(volume: &str, path: &str) -> String {
    format!("{SHARED}/{volume}/{path}")
}

pub(super) fn mounts(
    pod: &Pod,
    container: &Container,
    around: &Surroundings<'_>,
) -> Result<Vec<oci::Mount>, SpecError> {
    let mut mounts: Vec<oci::Mount> = MOUNTS
        .into_iter()
        .map(|(destination, kind, source, options)| {
            let mut options = split(options);
            if container.security.privileged {
                options.retain(|option| option != "ro");
            }
            mount(destination, kind, source, options)
        })
        .collect();
    let is_taken = |path: &str| container.mounts.iter().any(|mount| mount.path == path);
    let mut own = vec![
        ("/etc/hosts", own_file("hosts")),
        ("/etc/hostname", own_file("hostname")),
        (container.termination_path.as_str(), own_file(&termination(container))),
    ];
    if around.resolves {
        own.push(("/etc/resolv.conf", format!("{RUN}/sandbox/resolv.conf")));
    }
    own.retain(|(destination, _)| !is_taken(destination));
    let mut binds: Vec<oci::Mount> = own
        .into_iter()
        .map(|(destination, source)| mount(destination, "bind", &source, split("rbind,rw")))
        .collect();
    for wanted in &container.mounts {
        if let Some(volume) = pod.volumes.iter().find(|volume| volume.name == wanted.volume) {
            let source = source(pod, container, wanted, volume, around)?;
            binds.push(mount(&wanted.path, "bind", &source, options(wanted, volume)));
        }
    }
    // What lies deeper comes later, or it would be hidden.
    binds.sort_by_key(|bind| bind.destination.matches('/').count());
    mounts.extend(binds);
    Ok(mounts)
}

/// The name of the file of a container's last words.
pub(in crate::run) fn termination(container: &Container) -> String {
    format!("termination-{}", container.name)
}

/// What a container with the agent's program alone sees.
pub(super) fn companion() -> Vec<oci::Mount> {
    let usual =
        MOUNTS.into_iter().filter(|(destination, ..)| ["/proc", "/dev", "/sys"].contains(destination));
    let mut mounts: Vec<oci::Mount> = usual
        .map(|(destination, kind, source, options)| mount(destination, kind, source, split(options)))
        .collect();
    mounts.push(mount(COMPANION, "bind", "/init", split("bind,ro")));
    mounts
}

/// The pod's names, for its own container.
pub(super) fn companion_hosts() -> oci::Mount {
    mount("/etc/hosts", "bind", &own_file("hosts"), split("bind,ro"))
}

/// A file or directory of the guest, with all that is mounted in it.
pub(super) fn bind(destination: &str, source: &str, readonly: bool) -> oci::Mount {
    mount(destination, "bind", source, split(if readonly { "rbind,ro" } else { "rbind,rw" }))
}

fn mount(destination: &str, kind: &str, source: &str, options: Vec<String>) -> oci::Mount {
    oci::Mount {
        destination: destination.to_owned(),
        type_: kind.to_owned(),
        source: source.to_owned(),
        options,
        ..oci::Mount::default()
    }
}

fn split(options: &str) -> Vec<String> {
    options.split(',').map(str::to_owned).collect()
}

fn options(mount: &VolumeMount, volume: &Volume) -> Vec<String> {
    let readonly = mount.readonly || matches!(volume.kind, VolumeKind::Files(_));
    let mut options = split(if readonly { "rbind,ro" } else { "rbind,rw" });
    if mount.readonly_below {
        options.push("rro".to_owned());
    }
    options.extend(match mount.propagation {
        Propagation::None => None,
        Propagation::FromGuest => Some("rslave".to_owned()),
        Propagation::Both => Some("rshared".to_owned()),
    });
    options
}

/// What a container is given of a volume.
fn source(
    pod: &Pod,
    container: &Container,
    wanted: &VolumeMount,
    volume: &Volume,
    around: &Surroundings<'_>,
) -> Result<String, SpecError> {
    let path = sub_path(pod, container, wanted, around)?;
    if path.is_empty() {
        return Ok(volume_path(volume));
    }
    Ok(match &volume.kind {
        VolumeKind::EmptyDir { .. } => part_point(&volume.name, &path),
        // Nobody writes to these, so nothing in them can lead elsewhere.
        VolumeKind::Files(_) => file_point(&volume.name, &path),
        VolumeKind::HostPath { .. } => shared_part_point(&volume.name, &path),
    })
}

/// The part of a volume that is mounted, without what makes no difference; empty for all of it.
pub(in crate::run) fn sub_path(
    pod: &Pod,
    container: &Container,
    mount: &VolumeMount,
    around: &Surroundings<'_>,
) -> Result<String, SpecError> {
    if mount.sub_path.is_empty() {
        return Ok(String::new());
    }
    let path = if mount.sub_path_expands {
        environment::expand(&mount.sub_path, &environment::own(pod, container, around.facts)?)
    } else {
        mount.sub_path.clone()
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if path.starts_with('/') || parts.contains(&"..") || path.contains('\0') {
        return Err(SpecError::SubPath { container: container.name.clone(), path });
    }
    Ok(parts.join("/"))
}

/// Where the guest holds a part of an emptyDir. Pinned by a mount before any container runs: one that can write to the whole
/// volume cannot put a link in its place.
fn part_point(volume: &str, path: &str) -> String {
    format!("{RUN}/sandbox/part/{}", flat(volume, path))
}

/// Where a volume is in the guest.
fn volume_path(volume: &Volume) -> String {
    let kind = match &volume.kind {
        VolumeKind::EmptyDir { memory: false, size: None } => "local",
        VolumeKind::EmptyDir { .. } => "ephemeral",
        VolumeKind::HostPath { .. } => return shared_point(&volume.name),
        VolumeKind::Files(_) => return format!("{SHARED}/{}", volume.name),
    };
    format!("{RUN}/sandbox/{kind}/{}", volume.name)
}

/// The pod's disk for what containers write, mounted where emptyDirs are.
pub(in crate::run) fn scratch_storage(disk: &str) -> Storage {
    Storage {
        driver: "blk".to_owned(),
        source: disk.to_owned(),
        fstype: "ext4".to_owned(),
        // What is removed is given back to the host.
        options: ["noinit_itable", "discard", "nosuid", "nodev"].map(str::to_owned).to_vec(),
        mount_point: SCRATCH.to_owned(),
        ..Storage::default()
    }
}

/// What the agent mounts for a container's root: the image, and on top of it an overlay in memory, or on the pod's disk.
pub(in crate::run) fn root_storages(id: &str, disk: &str, on_disk: bool) -> Vec<Storage> {
    let base = format!("{RUN}/{id}");
    // No volume's name has a dot.
    let top = if on_disk { format!("{SCRATCH}/.root-{id}") } else { base.clone() };
    let create = |dir: &str| format!("io.katacontainers.volume.overlayfs.create_directory={top}/{dir}");
    // Goes with the container: when that is started again, its root is as the image has it.
    let own = on_disk.then(|| Storage {
        driver: "local".to_owned(),
        source: "local".to_owned(),
        fstype: "local".to_owned(),
        options: vec!["mode=0700".to_owned()],
        mount_point: top.clone(),
        ..Storage::default()
    });
    let mut storages = vec![disk_storage(disk, format!("{base}/image"))];
    storages.extend(own);
    storages.extend([Storage {
        driver: "overlayfs".to_owned(),
        source: "overlay".to_owned(),
        fstype: "overlay".to_owned(),
        options: vec![
            format!("lowerdir={base}/image"),
            format!("upperdir={top}/upper"),
            format!("workdir={top}/work"),
        ],
        driver_options: vec![create("upper"), create("work")],
        mount_point: format!("{base}/rootfs"),
        ..Storage::default()
    }]);
    storages
}

/// What the agent mounts for the whole pod: emptyDirs and the parts of them that containers see. Those of the host are
/// [`folder`]'s.
pub(in crate::run) fn volume_storages(
    pod: &Pod,
    around: &Surroundings<'_>,
) -> Result<Vec<Storage>, SpecError> {
    let mut storages: Vec<Storage> =
        pod.volumes.iter().filter_map(|volume| volume_storage(volume, pod.fs_group)).collect();
    for container in pod.all() {
        for mount in &container.mounts {
            let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume);
            let Some(volume) = volume.filter(|volume| matches!(volume.kind, VolumeKind::EmptyDir { .. }))
            else {
                continue;
            };
            let path = sub_path(pod, container, mount, around)?;
            let point = part_point(&volume.name, &path);
            if path.is_empty() || storages.iter().any(|storage| storage.mount_point == point) {
                continue;
            }
            let directory = format!("{}/{path}", volume_path(volume));
            storages.push(local(&directory, pod.fs_group));
            storages.push(Storage {
                driver: "bind".to_owned(),
                source: directory,
                fstype: "bind".to_owned(),
                options: vec!["rbind".to_owned()],
                mount_point: point,
                ..Storage::default()
            });
        }
    }
    Ok(storages)
}

fn volume_storage(volume: &Volume, fs_group: Option<u32>) -> Option<Storage> {
    match &volume.kind {
        VolumeKind::EmptyDir { memory: false, size: None } => Some(local(&volume_path(volume), fs_group)),
        VolumeKind::EmptyDir { size, .. } => Some(Storage {
            driver: "ephemeral".to_owned(),
            source: "tmpfs".to_owned(),
            fstype: "tmpfs".to_owned(),
            options: size
                .map(|bytes| format!("size={bytes}"))
                .into_iter()
                .chain(["mode=1777".to_owned()])
                .chain(fs_group.map(|group| format!("fsgid={group}")))
                .collect(),
            mount_point: volume_path(volume),
            ..Storage::default()
        }),
        _ => None,
    }
}

fn local(directory: &str, fs_group: Option<u32>) -> Storage {
    Storage {
        driver: "local".to_owned(),
        source: "local".to_owned(),
        fstype: "local".to_owned(),
        options: ["mode=0777".to_owned()]
            .into_iter()
            .chain(fs_group.map(|group| format!("fsgid={group}")))
            .collect(),
        mount_point: directory.to_owned(),
        ..Storage::default()
    }
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
