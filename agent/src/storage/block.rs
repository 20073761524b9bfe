//! `blk`, `mmioblk`, `scsi` and `nvdimm`: a file system on a disk, named by where it is plugged in or by its node.

use std::path::PathBuf;

use super::{Storage, StorageDriver, StorageError};
use crate::device::DeviceError;
use crate::device::address::Address;
use crate::device::watch::DeviceWatch;

/// See the module.
pub(super) struct Block {
    pub(super) name: &'static str,
    /// What its sources look like.
    pub(super) address: Parse,
}

/// Understands a source.
pub(super) type Parse = fn(&str) -> Result<Address, DeviceError>;

impl StorageDriver for Block {
    fn name(&self) -> &'static str {
        self.name
    }

    fn acquire(&self, storage: &Storage, devices: &DeviceWatch) -> Result<(), StorageError> {
        storage.no_driver_options()?;
        let node = wait_for(storage, self.address, devices)?;
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

/// The node of a storage's disk, once it is there.
pub(super) fn wait_for(
    storage: &Storage,
    address: Parse,
    devices: &DeviceWatch,
) -> Result<PathBuf, StorageError> {
    address(&storage.source)
        .and_then(|address| devices.disk(&address))
        .map_err(|error| StorageError::Device(storage.mount_point.display().to_string(), error))
}

/// The drivers that name a disk, for those who do something with one.
pub(super) fn address_of(driver: &str) -> Option<Parse> {
    match driver {
        "blk" => Some(Address::disk),
        "mmioblk" => Some(Address::node),
        "nvdimm" => Some(Address::pmem),
        "scsi" => Some(Address::scsi),
        _ => None,
    }
}
