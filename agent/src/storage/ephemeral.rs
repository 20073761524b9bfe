//! `ephemeral`: a tmpfs, with all its options (`size=`, `mode=`, …) in force from the start.

use std::path::Path;
use std::time::Duration;

use rustjail::plan::MountPlan;

use super::local::Access;
use super::{Storage, StorageDriver, StorageError};

/// Name of the driver.
pub(super) const NAME: &str = "ephemeral";

/// See the module.
pub(super) struct Ephemeral;

impl StorageDriver for Ephemeral {
    fn name(&self) -> &'static str {
        NAME
    }

    fn acquire(&self, storage: &Storage, _hotplug_timeout: Duration) -> Result<(), StorageError> {
        check_type(storage)?;
        let access = Access::parse(storage)?;
        let (group, options) = split(storage);
        super::mount_at("tmpfs", &storage.source, &options, &storage.mount_point)?;
        if group.is_empty() {
            return Ok(());
        }
        access.apply(&storage.mount_point, 0o1777).inspect_err(|_| {
            if let Err(error) = super::unmount(&storage.mount_point) {
                tracing::error!(%error, "a tmpfs stays mounted");
            }
        })
    }

    fn release(&self, mount_point: &Path, _: bool) -> Result<(), StorageError> {
        super::unmount(mount_point)
    }
}

fn check_type(storage: &Storage) -> Result<(), StorageError> {
    match storage.fstype.as_str() {
        "tmpfs" | "" => Ok(()),
        other => Err(storage.invalid(format!("file system {other:?} is not supported, only tmpfs is"))),
    }
}

/// The option that is ours, and those of tmpfs.
fn split(storage: &Storage) -> (Vec<String>, Vec<String>) {
    storage.options.iter().cloned().partition(|option| option.starts_with("fsgid="))
}

/// What a mounted tmpfs is to become. The group of its root stays.
pub(super) fn change(storage: &Storage) -> Result<MountPlan, StorageError> {
    check_type(storage)?;
    super::plan("tmpfs", &storage.source, &split(storage).1, &storage.mount_point)
}
