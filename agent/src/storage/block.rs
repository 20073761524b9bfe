//! `blk`, `mmioblk`, `scsi` and `nvdimm`: a file system on a disk, named by where it is plugged in or by its node.

use std::path::PathBuf;

use super::{Storage, StorageDriver, StorageError};
use crate::device::address::Address;
use crate::device::watch::DeviceWatch;

/// See the module.
pub(super) struct Block(pub(super) &'static str);

impl StorageDriver for Block {
    fn name(&self) -> &'static str {
        self.0
    }

    fn acquire(&self, storage: &Storage, devices: &DeviceWatch) -> Result<(), StorageError> {
        storage.no_driver_options()?;
        let node = wait_for(storage, self.0, devices)?;
        super::mount_at(
            &storage.fstype,
            &node.to_string_lossy(),
            &storage.mount_options(),
            &storage.mount_point,
        )
    }

    fn release(&self, storage: &Storage, _: bool) -> Result<(), StorageError> {
        super::unmount(&storage.mount_point)
    }
}

/// The node of a storage's disk, once it is there. The kind is as in [`Address::parse`].
pub(super) fn wait_for(
    storage: &Storage,
    kind: &str,
    devices: &DeviceWatch,
) -> Result<PathBuf, StorageError> {
    Address::parse(kind, &storage.source)
        .and_then(|address| devices.disk(&address))
        .map_err(|error| StorageError::Device(storage.mount_point.display().to_string(), error))
}
