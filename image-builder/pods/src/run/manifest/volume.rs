//! Volumes and where containers see them.

use std::path::PathBuf;

use super::document::Sources;
use super::fields::{At, Fields, Honoured, Refused, Schema};
use super::labels::label;
use super::source::is_below;
use super::{resources, source};
use crate::run::pod::{HostPathKind, Meta, Propagation, Volume, VolumeKind, VolumeMount};

const NO_CLUSTER: &str = "there is no cluster that provides it; use hostPath or emptyDir";
const NO_CLIENT: &str = "it is not mounted here; mount it on the host and use hostPath";

static VOLUME: Schema = Schema {
    name: "Volume",
    keys: &[
        ("name", Honoured("a DNS label")),
        (
            "emptyDir",
            Honoured("a directory in the guest's memory or on the pod's disk. The value may be null"),
        ),
        ("hostPath", Honoured("a file or directory of the host, by virtio-fs")),
        ("configMap", Honoured("files of a ConfigMap in the same file")),
        ("secret", Honoured("files of a Secret in the same file")),
        ("projected", Honoured("several of these sources in one directory")),
        ("downwardAPI", Honoured("files with fields of the pod")),
        ("persistentVolumeClaim", Refused(NO_CLUSTER)),
        ("ephemeral", Refused(NO_CLUSTER)),
        ("csi", Refused(NO_CLUSTER)),
        ("image", Refused("images are roots of containers only; unpack it and use hostPath")),
        ("nfs", Refused(NO_CLIENT)),
        ("iscsi", Refused(NO_CLIENT)),
        ("cephfs", Refused(NO_CLIENT)),
        ("rbd", Refused(NO_CLIENT)),
        ("glusterfs", Refused(NO_CLIENT)),
        ("fc", Refused(NO_CLIENT)),
        ("flexVolume", Refused(NO_CLIENT)),
        ("gitRepo", Refused("Kubernetes has removed it; clone the repository in an init container")),
        ("awsElasticBlockStore", Refused(NO_CLUSTER)),
        ("azureDisk", Refused(NO_CLUSTER)),
        ("azureFile", Refused(NO_CLUSTER)),
        ("cinder", Refused(NO_CLUSTER)),
        ("flocker", Refused(NO_CLUSTER)),
        ("gcePersistentDisk", Refused(NO_CLUSTER)),
        ("photonPersistentDisk", Refused(NO_CLUSTER)),
        ("portworxVolume", Refused(NO_CLUSTER)),
        ("quobyte", Refused(NO_CLUSTER)),
        ("scaleIO", Refused(NO_CLUSTER)),
        ("storageos", Refused(NO_CLUSTER)),
        ("vsphereVolume", Refused(NO_CLUSTER)),
    ],
};

static EMPTY_DIR: Schema = Schema {
    name: "EmptyDirVolumeSource",
    keys: &[
        (
            "medium",
            Honoured(
                "`Memory`, or nothing, which is the pod's disk if limits of `ephemeral-storage` or `--scratch` make one",
            ),
        ),
        ("sizeLimit", Honoured("what fits into it: a file system of that size in the guest's memory")),
        (
            "mode",
            Refused(
                "it is open to all, as in Kubernetes without this key; an init container can change that",
            ),
        ),
    ],
};

static HOST_PATH: Schema = Schema {
    name: "HostPathVolumeSource",
    keys: &[
        ("path", Honoured("relative to the manifest, if not absolute")),
        (
            "type",
            Honoured(
                "`Directory`, `DirectoryOrCreate`, `File`, `FileOrCreate`, or nothing for what is there; sockets and devices of the host have no end in the guest",
            ),
        ),
    ],
};

static MOUNT: Schema = Schema {
    name: "VolumeMount",
    keys: &[
        ("name", Honoured("the volume")),
        ("mountPath", Honoured("not /, /dev, /proc or /sys, and nothing below /proc")),
        ("readOnly", Honoured("cannot be written to")),
        ("recursiveReadOnly", Honoured("`Enabled` and `IfPossible` hold for mounts below it, too")),
        ("subPath", Honoured("a file or directory of the volume; a missing directory is made")),
        ("subPathExpr", Honoured("the same, with `$(NAME)`")),
        (
            "mountPropagation",
            Honoured("`None` and `HostToContainer`; `Bidirectional` only for privileged containers"),
        ),
    ],
};

#[cfg(test)]
pub(super) static SCHEMAS: &[&Schema] = &[&VOLUME, &EMPTY_DIR, &HOST_PATH, &MOUNT];

/// Places of the kernel's that a volume would hide.
const TAKEN: [&str; 4] = ["/", "/dev", "/proc", "/sys"];

pub(super) fn volumes(spec: &Fields<'_>, sources: &Sources, meta: &Meta) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = Vec::new();
    spec.each("volumes", |at| {
        let fields = at.fields(&VOLUME)?;
        let name = fields.at("name");
        let kind = kind(&fields, sources, meta);
        let Some(name) = name else {
            fields.wrong("name is missing");
            return None;
        };
        let text = name.text()?;
        let label = name.checked(label(text))?;
        if volumes.iter().any(|volume| volume.name == label) {
            name.wrong(format!("{label:?} is taken"));
            return None;
        }
        // A volume that cannot be had keeps its name, so that its mounts are no further problems.
        let kind = kind.unwrap_or(VolumeKind::EmptyDir { memory: false, size: None });
        volumes.push(Volume { name: label, kind });
        Some(())
    });
    volumes
}

fn kind(fields: &Fields<'_>, sources: &Sources, meta: &Meta) -> Option<VolumeKind> {
    const KINDS: [&str; 6] = ["emptyDir", "hostPath", "configMap", "secret", "projected", "downwardAPI"];
    let is_empty = KINDS.iter().all(|key| fields.at(key).is_none());
    if is_empty && fields.at_even_null("emptyDir").is_some() {
        return Some(VolumeKind::EmptyDir { memory: false, size: None });
    }
    let key = fields.exactly_one(&KINDS)?;
    let at = fields.at(key)?;
    match key {
        "emptyDir" => empty_dir(&at),
        "hostPath" => host_path(&at),
        "configMap" => source::config_map(&at, sources).map(VolumeKind::Files),
        "secret" => source::secret(&at, sources).map(VolumeKind::Files),
        "projected" => source::projected(&at, sources, meta).map(VolumeKind::Files),
        _ => source::downward(&at, meta).map(VolumeKind::Files),
    }
}

fn empty_dir(at: &At<'_>) -> Option<VolumeKind> {
    let fields = at.fields(&EMPTY_DIR)?;
    let size = fields.at("sizeLimit").and_then(|at| resources::quantity(&at, false)).filter(|&size| size > 0);
    if let Some(at) = fields.at("medium")
        && at.text().is_some_and(|medium| medium.starts_with("HugePages"))
    {
        at.wrong("huge pages are not set aside in a guest of `run`; use Memory");
        return None;
    }
    let memory = fields.choice("medium", &[("", false), ("Memory", true)]).unwrap_or(false);
    Some(VolumeKind::EmptyDir { memory, size })
}

fn host_path(at: &At<'_>) -> Option<VolumeKind> {
    let fields = at.fields(&HOST_PATH)?;
    if let Some(at) = fields.at("type")
        && let Some(kind @ ("Socket" | "CharDevice" | "BlockDevice")) = at.node.text()
    {
        at.wrong(format!("{kind}: it has no end in the guest, which has a kernel of its own"));
        fields.needed("path");
        return None;
    }
    let kinds = [
        ("", HostPathKind::Any),
        ("Directory", HostPathKind::Directory),
        ("DirectoryOrCreate", HostPathKind::DirectoryOrCreate),
        ("File", HostPathKind::File),
        ("FileOrCreate", HostPathKind::FileOrCreate),
    ];
    let kind = fields.choice("type", &kinds).unwrap_or(HostPathKind::Any);
    let path = fields.needed("path")?;
    if path.is_empty() {
        fields.wrong("path is empty");
        return None;
    }
    Some(VolumeKind::HostPath { path: PathBuf::from(path), kind })
}

/// Where a container sees volumes.
pub(super) fn mounts(container: &Fields<'_>, volumes: &[Volume], privileged: bool) -> Vec<VolumeMount> {
    let mut mounts: Vec<VolumeMount> = Vec::new();
    container.each("volumeMounts", |at| {
        let mount = mount(&at, volumes, privileged)?;
        if mounts.iter().any(|known| known.path == mount.path) {
            at.wrong(format!("something is mounted on {} already", mount.path));
            return None;
        }
        mounts.push(mount);
        Some(())
    });
    mounts
}

fn mount(at: &At<'_>, volumes: &[Volume], privileged: bool) -> Option<VolumeMount> {
    let fields = at.fields(&MOUNT)?;
    let readonly = fields.flag("readOnly");
    let below = fields
        .choice("recursiveReadOnly", &[("Disabled", false), ("IfPossible", true), ("Enabled", true)])
        .unwrap_or(false);
    if below && !readonly {
        fields.wrong("recursiveReadOnly goes with readOnly: true");
    }
    let propagations = [
        ("None", Propagation::None),
        ("HostToContainer", Propagation::FromGuest),
        ("Bidirectional", Propagation::Both),
    ];
    let propagation = fields.choice("mountPropagation", &propagations).unwrap_or_default();
    if propagation == Propagation::Both && !privileged {
        fields.wrong("mountPropagation Bidirectional is for privileged containers");
    }
    let (plain, expr) =
        (fields.text("subPath").unwrap_or_default(), fields.text("subPathExpr").unwrap_or_default());
    if !plain.is_empty() && !expr.is_empty() {
        fields.wrong("has both subPath and subPathExpr");
    }
    let sub_path = if plain.is_empty() { expr } else { plain };
    if !sub_path.is_empty() && !is_below(sub_path) {
        fields.wrong(format!("subPath {sub_path:?} is not one below the volume, without \"..\""));
        return None;
    }
    let path = fields.at("mountPath");
    let name = fields.needed("name")?;
    if !volumes.iter().any(|volume| volume.name == name) {
        fields.wrong(format!("there is no volume {name:?}"));
    }
    let Some(path) = path else {
        fields.wrong("mountPath is missing");
        return None;
    };
    let text = path.text()?;
    let path = path.checked(mount_path(text))?;
    Some(VolumeMount {
        volume: name.to_owned(),
        path,
        readonly,
        readonly_below: below,
        sub_path: sub_path.to_owned(),
        sub_path_expands: plain.is_empty() && !expr.is_empty(),
        propagation,
    })
}

/// A path in a container at which something can be mounted, without what makes no difference.
///
/// # Errors
/// Says what is wrong with it.
pub fn mount_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("{text:?} is not an absolute path"));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") || text.contains([':', '\0']) {
        return Err(format!("{text:?} has \"..\", a colon or a NUL byte"));
    }
    let path = format!("/{}", parts.join("/"));
    if TAKEN.contains(&path.as_str()) || path.starts_with("/proc/") {
        return Err(format!(
            "{path} is the container's own view of the kernel, or its root; mount it elsewhere"
        ));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_places_cannot_be_mounted_over() {
        let taken = [
            "/",
            "/proc",
            "/proc/",
            "//sys",
            "/dev/.",
            "/./dev",
            "/proc/sys/net",
            "relative",
            "/a/../b",
            "/a:b",
            "",
        ];
        for path in taken {
            assert!(mount_path(path).is_err(), "{path:?}");
        }
        let free = [
            ("/srv/", "/srv"),
            ("/a//b/./c", "/a/b/c"),
            ("/dev/shm", "/dev/shm"),
            ("/sys/fs/cgroup", "/sys/fs/cgroup"),
            ("/process", "/process"),
        ];
        for (path, clean) in free {
            assert_eq!(mount_path(path).as_deref(), Ok(clean));
        }
    }

    #[test]
    fn what_lies_in_a_volume_stays_in_it() {
        for path in ["a", "a/b", "..a", "a/.../b"] {
            assert!(is_below(path), "{path}");
        }
        for path in ["", "/a", "..", "a/..", "../a", "a/../b"] {
            assert!(!is_below(path), "{path}");
        }
    }
}
