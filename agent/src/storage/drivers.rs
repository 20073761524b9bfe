//! The kinds of storages that there are.

use super::driver::StorageDriver;
use super::{bind, block, ephemeral, local, overlay, shared_folder, stack, verity, watchable};

/// All of them, sorted.
pub(super) static DRIVERS: [&dyn StorageDriver; 13] = [
    &bind::Bind,
    &block::Block("blk"),
    &block::Block("mmioblk"),
    &block::Block("nvdimm"),
    &block::Block("scsi"),
    &ephemeral::Ephemeral,
    &local::Local,
    &overlay::Overlay,
    &shared_folder::PLAN9,
    &shared_folder::VIRTIO_FS,
    &stack::Stack,
    &verity::Verified,
    &watchable::WatchableBind,
];

/// Names of all drivers, sorted.
pub(crate) fn driver_names() -> Vec<&'static str> {
    let mut names: Vec<_> = DRIVERS.iter().map(|driver| driver.name()).collect();
    names.sort_unstable();
    names
}
