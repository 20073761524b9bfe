//! `ephemeral`: a tmpfs, with all its options (`size=`, `mode=`, …) in force from the start.

use std::path::Path;
use std::time::Duration;

use super::local::Access;
use super::{Storage, StorageDriver, StorageError};

/// See the module.
pub(super) struct Ephemeral;

impl StorageDriver for Ephemeral {
    fn name(&self) -> &'static str {
        "ephemeral"
    }

    fn acquire(&self, storage: &Storage, _hotplug_timeout: Duration) -> Result<(), StorageError> {
        if !matches!(storage.fstype.as_str(), "tmpfs" | "") {
            return Err(StorageError::Invalid {
                driver: storage.driver.clone(),
                mount_point: storage.mount_point.display().to_string(),
                reason: format!("file system {:?} is not supported, only tmpfs is", storage.fstype),
            });
        }
        let access = Access::parse(storage)?;
        let (group, options): (Vec<String>, Vec<String>) =
            storage.options.iter().cloned().partition(|option| option.starts_with("fsgid="));
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

    fn release(&self, mount_point: &Path) -> Result<(), StorageError> {
        super::unmount(mount_point)
    }
}
