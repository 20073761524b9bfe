//! Storages: what a request wants mounted in the guest before a container can use it.
//!
//! [`StorageRegistry`] counts users per mount point: the second one only counts, the last one unmounts. What kinds
//! there are is a list of [`StorageDriver`]s. All calls block (devices are waited for).

mod bind;
mod block;
mod driver;
mod drivers;
mod ephemeral;
mod error;
mod group;
mod hugepages;
mod local;
mod mounting;
mod overlay;
mod registry;
mod request;
mod shared_folder;
mod stack;
mod verity;
mod watchable;

use std::io;
use std::path::Path;

use driver::{Keeper, StorageDriver};
pub(crate) use drivers::driver_names;
pub(crate) use error::StorageError;
use error::VerityError;
pub(crate) use group::{ChangePolicy, Group};
use mounting::{detach, make_directory, mount_at, mount_on, plan, remove_mount_point, unmount};
pub(crate) use registry::StorageRegistry;
pub(crate) use request::Storage;
pub(crate) use stack::combine;

/// Asks every file system below a directory for the status of its root.
///
/// The host's virtio-fs daemon keeps what it has open for a path until the guest asks for that path again and it is gone:
/// after a container's share was removed on the host, this lets go of it. Whether a path is there is no matter.
pub(crate) fn touch_mounts(below: &Path) -> io::Result<usize> {
    let mounts = mountinfo::mounts()?;
    let points: Vec<_> =
        mounts.iter().map(|mount| &mount.point).filter(|point| point.starts_with(below)).collect();
    let gone = points.iter().filter(|point| point.metadata().is_err()).count();
    tracing::debug!(mounts = points.len(), gone, "asked for the shared mounts");
    Ok(points.len())
}
