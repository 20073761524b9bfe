//! `hostPath` volumes: directories of the host that the pod sees as they are, by virtio-fs.
//!
//! Each has a share of its own, mounted where Kata's shims keep what they share. Neither needs root rights, as one common
//! directory with a bind mount for each volume would.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use protocols::agent::Storage;

use super::RunError;
use super::pod::{Pod, Volume, VolumeKind};
use crate::vm::Share;

/// Where shares are mounted in the guest.
const SHARED: &str = "/run/kata-containers/shared/containers";

/// Finds the directories of a pod's volumes; `base` is what relative ones are relative to.
///
/// # Errors
/// Names the volume's directory that is not there, or is none.
pub(super) fn shares(pod: &Pod, base: &Path) -> Result<Vec<Share>, RunError> {
    let mut shares = Vec::new();
    for (index, volume) in pod.volumes.iter().enumerate() {
        let VolumeKind::HostPath { path, create } = &volume.kind else { continue };
        let path = base.join(path);
        if *create {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&path);
            made.map_err(|error| RunError::io("make directory", path.display(), error))?;
        }
        let failed =
            |error| RunError::io("share", format!("{} (volume {})", path.display(), volume.name), error);
        let directory = path.canonicalize().map_err(failed)?;
        if !directory.is_dir() {
            return Err(failed(std::io::ErrorKind::NotADirectory.into()));
        }
        shares.push(Share { directory, tag: tag(index) });
    }
    Ok(shares)
}

/// What the guest mounts for the volume at an index.
pub(super) fn storage(pod: &Pod, index: usize, volume: &Volume) -> Storage {
    let mut uses = pod.containers.iter().flat_map(|container| &container.mounts);
    let is_readonly = !uses.any(|mount| mount.volume == volume.name && !mount.readonly);
    Storage {
        driver: "virtio-fs".to_owned(),
        source: tag(index),
        fstype: "virtiofs".to_owned(),
        options: is_readonly.then(|| "ro".to_owned()).into_iter().collect(),
        mount_point: point(volume),
        ..Storage::default()
    }
}

/// Where the guest has a volume.
pub(super) fn point(volume: &Volume) -> String {
    format!("{SHARED}/{}", volume.name)
}

/// A volume's name may be longer than a tag.
fn tag(index: usize) -> String {
    format!("volume{index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(path: &str, create: bool, readonly: &str) -> Pod {
        let kind = if create { "DirectoryOrCreate" } else { "Directory" };
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  volumes:\n    - {{name: e, emptyDir: {{}}}}\n    \
             - {{name: h, hostPath: {{path: {path}, type: {kind}}}}}\n  containers:\n    - {{name: a, image: i, volumeMounts: \
             [{{name: h, mountPath: /h{readonly}}}]}}\n"
        );
        Pod::parse(&text).unwrap()
    }

    #[test]
    fn a_volume_is_a_share_and_a_storage_of_one_name() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("site")).unwrap();
        let pod = pod("./site", false, "");
        let shares = shares(&pod, base.path()).unwrap();
        let storage = storage(&pod, 1, &pod.volumes[1]);
        assert_eq!((shares.len(), &shares[0].tag), (1, &storage.source));
        assert_eq!(shares[0].directory, base.path().join("site").canonicalize().unwrap());
        assert_eq!(storage.mount_point, "/run/kata-containers/shared/containers/h");
        assert!(storage.options.is_empty());
    }

    #[test]
    fn what_all_only_read_is_mounted_so() {
        let pod = pod("/", false, ", readOnly: true");
        assert_eq!(storage(&pod, 1, &pod.volumes[1]).options, ["ro"]);
    }

    #[test]
    fn a_directory_is_there_or_made() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("file"), "").unwrap();
        let error = shares(&pod("none", false, ""), base.path()).unwrap_err();
        assert!(error.to_string().contains("none (volume h)"), "{error}");
        assert!(shares(&pod("file", false, ""), base.path()).is_err());
        shares(&pod("a/b", true, ""), base.path()).unwrap();
        assert!(base.path().join("a/b").is_dir());
    }
}
