//! What a kind of storage has to do.

use super::error::StorageError;
use super::request::Storage;
use crate::device::watch::DeviceWatch;

/// One kind of storage.
pub(super) trait StorageDriver: Send + Sync {
    /// Name in a request.
    fn name(&self) -> &'static str;
    /// Makes the storage usable at its mount point. Leaves nothing behind on failure.
    fn acquire(&self, storage: &Storage, devices: &DeviceWatch) -> Result<(), StorageError>;
    /// What works on the storage as long as it is there, and ends when it is dropped.
    fn keep(&self, _storage: &Storage) -> Option<Keeper> {
        None
    }
    /// Undoes `acquire`. `is_ours` says whether the mount point was not there before: what was, stays.
    fn release(&self, storage: &Storage, is_ours: bool) -> Result<(), StorageError>;
}

/// Something that works on a storage.
pub(super) type Keeper = Box<dyn Send>;
