//! `virtio-fs`: a directory of the host, by the tag of its virtio-fs device.

use std::path::Path;
use std::time::Duration;

use super::{Storage, StorageDriver, StorageError};

/// See the module.
pub(super) struct VirtioFs;

impl StorageDriver for VirtioFs {
    fn name(&self) -> &'static str {
        "virtio-fs"
    }

    fn acquire(&self, storage: &Storage, _hotplug_timeout: Duration) -> Result<(), StorageError> {
        if !matches!(storage.fstype.as_str(), "virtiofs" | "") {
            return Err(storage.invalid(format!("file system {:?} is not virtiofs", storage.fstype)));
        }
        super::mount_at("virtiofs", &storage.source, &storage.options, &storage.mount_point)
    }

    fn release(&self, mount_point: &Path, _: bool) -> Result<(), StorageError> {
        super::unmount(mount_point)
    }
}
