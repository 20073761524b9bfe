//! `blk` and `mmioblk`: a file system on a block device, named by its PCI path or by its node.

use std::path::Path;
use std::time::Duration;

use super::{Storage, StorageDriver, StorageError};
use crate::device::block;

/// See the module. The field is the driver's name: on PCI, or on virtio-mmio.
pub(super) struct Block(pub(super) &'static str);

impl StorageDriver for Block {
    fn name(&self) -> &'static str {
        self.0
    }

    fn acquire(&self, storage: &Storage, hotplug_timeout: Duration) -> Result<(), StorageError> {
        if let Some(option) = storage.driver_options.first() {
            return Err(storage.invalid(format!("driver option {option:?} is not supported")));
        }
        let node = block::wait_for(&storage.source, hotplug_timeout)
            .map_err(|error| StorageError::Device(storage.mount_point.display().to_string(), error))?;
        super::mount_at(&storage.fstype, &node.to_string_lossy(), &storage.options, &storage.mount_point)
    }

    fn release(&self, mount_point: &Path, _: bool) -> Result<(), StorageError> {
        super::unmount(mount_point)
    }
}
