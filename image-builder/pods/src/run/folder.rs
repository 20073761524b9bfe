//! `hostPath` volumes: directories and files of the host, shared with the pod by virtio-fs.
//!
//! Each volume is a share of its own, mounted at the path where Kata's shims mount theirs. This needs no root rights. One
//! common directory with a bind mount for each volume would need them. virtio-fs shares only directories. For a file, the guest
//! mounts the directory of the file, and the container sees only the file.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use protocols::agent::Storage;

use super::error::RunError;
use super::facts::Surroundings;
use super::pod::{HostPathKind, Pod, VolumeKind};
use super::spec::{shared_part_point, shared_point, sub_path};
use machine::vm::Share;

/// What the host shares for a pod.
#[derive(Debug, Default)]
pub(super) struct Folders {
    pub(super) shares: Vec<Share>,
    /// What the guest mounts, and for files what it shows at a second place.
    pub(super) storages: Vec<Storage>,
}

/// Finds what a pod's volumes are on the host.
///
/// # Errors
/// Names what is not there, or is something else than the volume says.
pub(super) fn of(pod: &Pod, around: &Surroundings<'_>) -> Result<Folders, RunError> {
    let mut folders = Folders::default();
    for volume in &pod.volumes {
        let VolumeKind::HostPath { path, kind } = &volume.kind else { continue };
        let whole = find(&around.base.join(path), *kind, &volume.name)?;
        let mounts =
            pod.all().flat_map(|container| container.mounts.iter().map(move |mount| (container, mount)));
        // One share for each part that is mounted, which can be written to if anybody may.
        let mut parts: Vec<(String, bool)> = Vec::new();
        for (container, mount) in mounts.filter(|(_, mount)| mount.volume == volume.name) {
            let path = sub_path(pod, container, mount, around)?;
            match parts.iter_mut().find(|(known, _)| *known == path) {
                Some((_, readonly)) => *readonly &= mount.readonly,
                None => parts.push((path, mount.readonly)),
            }
        }
        if parts.is_empty() {
            // Nobody mounts it; it is checked all the same.
            parts.push((String::new(), true));
        }
        for (path, readonly) in parts {
            let (place, point) = if path.is_empty() {
                (whole.clone(), shared_point(&volume.name))
            } else {
                (part(&whole, &path, &volume.name)?, shared_part_point(&volume.name, &path))
            };
            folders.add(&place, point, readonly);
        }
    }
    Ok(folders)
}

impl Folders {
    fn add(&mut self, place: &Path, point: String, readonly: bool) {
        // A volume's name may be longer than a tag.
        let tag = format!("volume{}", self.shares.len());
        let (directory, name) = match (place.is_dir(), place.parent(), place.file_name()) {
            (false, Some(parent), Some(name)) => {
                (parent.to_path_buf(), Some(name.to_string_lossy().into_owned()))
            }
            _ => (place.to_path_buf(), None),
        };
        let mount_point = if name.is_some() { format!("{point}.dir") } else { point.clone() };
        self.storages.push(Storage {
            driver: "virtio-fs".to_owned(),
            source: tag.clone(),
            fstype: "virtiofs".to_owned(),
            options: readonly.then(|| "ro".to_owned()).into_iter().collect(),
            mount_point: mount_point.clone(),
            ..Storage::default()
        });
        if let Some(name) = name {
            self.storages.push(Storage {
                driver: "bind".to_owned(),
                source: format!("{mount_point}/{name}"),
                fstype: "bind".to_owned(),
                options: vec![if readonly { "ro" } else { "rw" }.to_owned()],
                mount_point: point,
                ..Storage::default()
            });
        }
        self.shares.push(Share { directory, tag });
    }
}

/// What a volume is, made where it may be.
fn find(path: &Path, kind: HostPathKind, volume: &str) -> Result<PathBuf, RunError> {
    match kind {
        HostPathKind::DirectoryOrCreate => make_directory(path)?,
        HostPathKind::FileOrCreate => {
            let made = File::options().create(true).append(true).mode(0o644).open(path);
            made.map_err(|error| RunError::io("make file", path.display(), error))?;
        }
        _ => {}
    }
    let failed = |error| RunError::io("share", format!("{} (volume {volume})", path.display()), error);
    let found = path.canonicalize().map_err(failed)?;
    let kinds = std::fs::metadata(&found).map_err(failed)?;
    let (wants_directory, wants_file) = match kind {
        HostPathKind::Any => (true, true),
        HostPathKind::Directory | HostPathKind::DirectoryOrCreate => (true, false),
        HostPathKind::File | HostPathKind::FileOrCreate => (false, true),
    };
    if (kinds.is_dir() && wants_directory) || (kinds.is_file() && wants_file) {
        return Ok(found);
    }
    Err(failed(match (wants_directory, wants_file) {
        (true, false) => std::io::ErrorKind::NotADirectory.into(),
        (false, true) => std::io::Error::other("not a file"),
        _ => std::io::Error::other("neither a file nor a directory"),
    }))
}

/// A part of a volume, made as a directory where it is missing. Links in it do not lead out of the volume.
fn part(whole: &Path, path: &str, volume: &str) -> Result<PathBuf, RunError> {
    let wanted = whole.join(path);
    let failed = |error| RunError::io("share", format!("{} (volume {volume})", wanted.display()), error);
    let leads_out = || failed(std::io::Error::other("a link leads out of the volume"));
    // Nothing is made behind a link that leads elsewhere.
    let there = wanted.ancestors().find_map(|place| place.canonicalize().ok()).unwrap_or_default();
    if !there.starts_with(whole) {
        return Err(leads_out());
    }
    if !wanted.exists() {
        make_directory(&wanted)?;
    }
    let found = wanted.canonicalize().map_err(failed)?;
    if found.starts_with(whole) { Ok(found) } else { Err(leads_out()) }
}

fn make_directory(path: &Path) -> Result<(), RunError> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(|error| RunError::io("make directory", path.display(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::facts::Facts;

    fn folders(volume: &str, mount: &str, base: &Path) -> Result<Folders, RunError> {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  volumes:\n    - {{name: e, emptyDir: {{}}}}\n    \
             - {{name: h, hostPath: {volume}}}\n  containers:\n    - {{name: a, image: i, volumeMounts: [{{name: h, \
             mountPath: /h{mount}}}]}}\n"
        );
        let pod = Pod::parse(&text).unwrap();
        of(&pod, &Surroundings { facts: &Facts::default(), base, resolves: false })
    }

    #[test]
    fn a_volume_is_a_share_and_a_storage_of_one_name() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("site")).unwrap();
        let Folders { shares, storages } = folders("{path: ./site}", "", base.path()).unwrap();
        assert_eq!((shares.len(), storages.len(), &shares[0].tag), (1, 1, &storages[0].source));
        assert_eq!(shares[0].directory, base.path().join("site").canonicalize().unwrap());
        assert_eq!(storages[0].mount_point, "/run/kata-containers/shared/containers/h");
        assert!(storages[0].options.is_empty());
        let read = folders("{path: /}", ", readOnly: true", base.path()).unwrap();
        assert_eq!(read.storages[0].options, ["ro"], "what all only read is mounted so");
    }

    #[test]
    fn a_file_is_shown_alone() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("file"), "").unwrap();
        for kind in ["", ", type: File", ", type: ''"] {
            let Folders { shares, storages } =
                folders(&format!("{{path: file{kind}}}"), ", readOnly: true", base.path()).unwrap();
            assert_eq!(shares[0].directory, base.path().canonicalize().unwrap());
            assert_eq!(storages[1].source, format!("{}/file", storages[0].mount_point));
            assert_eq!(storages[1].mount_point, shared_point("h"));
            assert_eq!(storages[1].options, ["ro"]);
        }
        folders("{path: new, type: FileOrCreate}", "", base.path()).unwrap();
        assert!(base.path().join("new").is_file());
    }

    #[test]
    fn what_a_volume_says_is_there_or_made() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("file"), "").unwrap();
        let error = folders("{path: none}", "", base.path()).unwrap_err();
        assert!(error.to_string().contains("none (volume h)"), "{error}");
        for wrong in ["{path: file, type: Directory}", "{path: ., type: File}", "{path: /dev/null}"] {
            assert!(folders(wrong, "", base.path()).is_err(), "{wrong}");
        }
        folders("{path: a/b, type: DirectoryOrCreate}", "", base.path()).unwrap();
        assert!(base.path().join("a/b").is_dir());
    }

    #[test]
    fn a_part_is_a_share_of_its_own_and_stays_in_the_volume() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("v/there")).unwrap();
        std::os::unix::fs::symlink("/", base.path().join("v/out")).unwrap();
        let made = folders("{path: v}", ", subPath: new/deep", base.path()).unwrap();
        assert!(base.path().join("v/new/deep").is_dir());
        assert_eq!(made.shares[0].directory, base.path().join("v/new/deep").canonicalize().unwrap());
        assert_eq!(made.storages[0].mount_point, shared_part_point("h", "new/deep"));
        for out in ["out", "out/etc", "out/not/there"] {
            let error = folders("{path: v}", &format!(", subPath: {out}"), base.path()).unwrap_err();
            assert!(format!("{:#}", anyhow::Error::from(error)).contains("leads out"), "{out}");
        }
    }
}
