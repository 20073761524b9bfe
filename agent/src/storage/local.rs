//! `local`: a directory in the guest's own memory, as Kubernetes' emptyDir wants it.
//!
//! Options: `mode=` (octal), `fsgid=` (group that owns it, with the set-group-id bit), `size=` and `nr_inodes=` as
//! `tmpfs(5)` has them. The agent gives a size where the request has none, so the directory is a file system of its own: what
//! containers write to it cannot fill what others, and the agent, keep in memory. A directory that was there before stays one,
//! and so does one on a disk or on what the host shares.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustjail::plan::MountPlan;

use super::request::LOCAL;
use super::{Storage, StorageDriver, StorageError};
use crate::device::watch::DeviceWatch;
use crate::error::chain;
use crate::files::remove_tree;

/// See the module.
pub(super) struct Local;

impl StorageDriver for Local {
    fn name(&self) -> &'static str {
        LOCAL
    }

    fn acquire(&self, storage: &Storage, _devices: &DeviceWatch) -> Result<(), StorageError> {
        let access = Access::parse(storage)?;
        let mount_point = &storage.mount_point;
        let is_new = super::make_directory(mount_point)?;
        let bounds = bounds(storage);
        // What a shim puts into a container's root, on a disk or the host's share, is to be stored there.
        let is_mounted = is_new && !bounds.is_empty() && is_in_memory(mount_point);
        let prepared = if is_mounted {
            super::mount_on("tmpfs", "tmpfs", &bounds, mount_point)
                .and_then(|()| access.apply(mount_point, 0o755))
        } else {
            access.apply(mount_point, 0o755)
        };
        prepared.inspect_err(|_| {
            if is_mounted && let Err(error) = super::detach(mount_point) {
                tracing::error!(error = %chain(&error), "a local storage stays mounted");
            }
            if is_new {
                super::remove_mount_point(mount_point);
            }
        })
    }

    fn release(&self, storage: &Storage, is_ours: bool) -> Result<(), StorageError> {
        let mount_point = &storage.mount_point;
        if !is_ours {
            return Ok(());
        }
        if is_mounted(mount_point) {
            return super::unmount(mount_point);
        }
        remove_tree(mount_point).map_err(|source| StorageError::Io {
            operation: "remove directory",
            path: mount_point.display().to_string(),
            source,
        })
    }
}

/// Whether a directory is in the guest's memory.
fn is_in_memory(directory: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    rustix::fs::statfs(directory).is_ok_and(|stat| matches!(stat.f_type as u64, TMPFS | RAMFS))
}

/// Whether something is mounted on a directory.
pub(super) fn is_mounted(directory: &Path) -> bool {
    rustix::fs::statx(CWD, directory, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
        .is_ok_and(|facts| facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// What bounds it: options of the file system that it is then.
fn bounds(storage: &Storage) -> Vec<String> {
    let is_bound = |option: &String| option.starts_with("size=") || option.starts_with("nr_inodes=");
    let mut options: Vec<String> = storage.mount_options().into_iter().filter(is_bound).collect();
    if !options.is_empty() {
        options.extend(["nosuid".to_owned(), "nodev".to_owned()]);
    }
    options
}

/// What a mounted one is to become.
pub(super) fn plan(storage: &Storage) -> Result<MountPlan, StorageError> {
    super::plan("tmpfs", "tmpfs", &bounds(storage), &storage.mount_point)
}

/// Mode and group from the options that the kernel does not know.
pub(super) struct Access {
    mode: Option<u32>,
    group: Option<u32>,
}

impl Access {
    /// Reads `mode=` and `fsgid=`; other options are for others.
    pub(super) fn parse(storage: &Storage) -> Result<Access, StorageError> {
        let mut access = Access { mode: None, group: None };
        let bad = |option: &str, reason: &str| StorageError::Invalid {
            driver: storage.driver.clone(),
            mount_point: storage.mount_point.display().to_string(),
            reason: format!("option {option:?} {reason}"),
        };
        for option in &storage.options {
            if let Some(text) = option.strip_prefix("mode=") {
                let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
                access.mode = Some(mode.ok_or_else(|| bad(option, "is not an octal mode"))?);
            } else if let Some(text) = option.strip_prefix("fsgid=") {
                access.group = Some(text.parse().map_err(|_| bad(option, "is not a group id"))?);
            }
        }
        Ok(access)
    }

    /// Sets both on a path; `default` is the mode where none is named.
    pub(super) fn apply(&self, path: &Path, default: u32) -> Result<(), StorageError> {
        let failed =
            |operation, source| StorageError::Io { operation, path: path.display().to_string(), source };
        let mut mode = self.mode.unwrap_or(default);
        if let Some(group) = self.group {
            std::os::unix::fs::chown(path, None, Some(group))
                .map_err(|error| failed("change the group of", error))?;
            // What is made below belongs to the group too, and the group may make it.
            mode |= 0o2070;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(|error| failed("change the mode of", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_and_group_are_applied() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().metadata().unwrap().gid();
        let storage = Storage {
            driver: "local".into(),
            options: vec!["mode=0701".into(), format!("fsgid={own}")],
            mount_point: dir.path().join("v"),
            ..Storage::default()
        };
        Local.acquire(&storage, &DeviceWatch::deaf(Path::new("/sys"), std::time::Duration::ZERO)).unwrap();
        assert_eq!(storage.mount_point.metadata().unwrap().mode() & 0o7777, 0o2771);
        Local.release(&storage, true).unwrap();
        assert!(!storage.mount_point.exists());
    }

    #[test]
    fn a_bad_mode_is_named() {
        for option in ["mode=9", "mode=77777", "fsgid=x"] {
            let storage = Storage { options: vec![option.into()], ..Storage::default() };
            assert!(Access::parse(&storage).err().unwrap().to_string().contains(option));
        }
    }
}
