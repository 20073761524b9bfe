//! `ephemeral`: a tmpfs, with all its options (`size=`, `mode=`, …) in force from the start, or huge pages.

use rustjail::plan::MountPlan;

use super::local::Access;
use super::{Storage, StorageDriver, StorageError, hugepages};
use crate::device::watch::DeviceWatch;
use crate::error::chain;

/// Name of the driver.
pub(super) const NAME: &str = "ephemeral";

const HUGE: &str = "hugetlbfs";

/// See the module.
pub(super) struct Ephemeral;

impl StorageDriver for Ephemeral {
    fn name(&self) -> &'static str {
        NAME
    }

    fn acquire(&self, storage: &Storage, _devices: &DeviceWatch) -> Result<(), StorageError> {
        storage.no_driver_options()?;
        let access = Access::parse(storage)?;
        let (group, options) = split(storage);
        if storage.fstype == HUGE {
            hugepages::mount(storage)?;
        } else {
            check_type(storage)?;
            super::mount_at("tmpfs", &storage.source, &options, &storage.mount_point)?;
        }
        if group.is_empty() {
            return Ok(());
        }
        access.apply(&storage.mount_point, 0o1777).inspect_err(|_| {
            if let Err(error) = self.release(storage, true) {
                tracing::error!(error = %chain(&error), "an ephemeral storage stays mounted");
            }
        })
    }

    fn release(&self, storage: &Storage, _: bool) -> Result<(), StorageError> {
        if storage.fstype == HUGE {
            hugepages::unmount(storage)
        } else {
            super::unmount(&storage.mount_point)
        }
    }
}

fn check_type(storage: &Storage) -> Result<(), StorageError> {
    match storage.fstype.as_str() {
        "tmpfs" | "" => Ok(()),
        other => {
            Err(storage.invalid(format!("file system {other:?} is not supported, only tmpfs and {HUGE} are")))
        }
    }
}

/// Whether it is of ordinary memory, not of huge pages.
pub(super) fn is_tmpfs(storage: &Storage) -> bool {
    storage.fstype != HUGE
}

/// The option that is ours, and those of tmpfs.
fn split(storage: &Storage) -> (Vec<String>, Vec<String>) {
    storage.options.iter().cloned().partition(|option| option.starts_with("fsgid="))
}

/// What a mounted tmpfs is to become. The group of its root stays.
pub(super) fn change(storage: &Storage) -> Result<MountPlan, StorageError> {
    if storage.fstype == HUGE {
        return Err(storage.invalid("a volume of huge pages keeps its size".to_owned()));
    }
    check_type(storage)?;
    super::plan("tmpfs", &storage.source, &split(storage).1, &storage.mount_point)
}
