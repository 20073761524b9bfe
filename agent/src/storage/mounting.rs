//! Mounts of the guest, and the directories they go to.

use std::path::Path;

use oci_spec::runtime::{Mount, MountBuilder};
use rustjail::mount::{self, MountError};
use rustjail::plan::{MountPlan, PlanError};

use super::error::StorageError;

/// Mounts a file system at a directory that is made where it is missing.
pub(super) fn mount_at(
    fstype: &str,
    source: &str,
    options: &[String],
    point: &Path,
) -> Result<(), StorageError> {
    let made = make_directory(point)?;
    mount_on(fstype, source, options, point).inspect_err(|_| {
        if made {
            remove_mount_point(point);
        }
    })
}

/// What a mount with these options is, as in a container's spec.
pub(super) fn plan(
    fstype: &str,
    source: &str,
    options: &[String],
    point: &Path,
) -> Result<MountPlan, StorageError> {
    let name = point.display().to_string();
    let spec: Mount = MountBuilder::default()
        .destination(point)
        .typ(fstype)
        .source(source)
        .options(options.to_vec())
        .build()
        .map_err(|error| StorageError::Options(name.clone(), PlanError::Invalid(error.to_string())))?;
    MountPlan::of_spec(&spec).map_err(|error| StorageError::Options(name.clone(), error))
}

/// Mounts on what is there.
pub(super) fn mount_on(
    fstype: &str,
    source: &str,
    options: &[String],
    point: &Path,
) -> Result<(), StorageError> {
    use std::os::fd::AsFd as _;
    let plan = plan(fstype, source, options, point)?;
    let attached = || -> Result<(), MountError> {
        let mount = mount::detached(&plan)?;
        let place = mount::place(point)?;
        mount::attach(mount.as_fd(), place.as_fd()).map_err(|errno| MountError {
            operation: format!("attach a {fstype}"),
            log: None,
            source: errno.into(),
        })?;
        mount::propagate(mount.as_fd(), &plan)
    };
    attached().map_err(|error| StorageError::Mount(point.display().to_string(), error))
}

/// Makes a directory and its parents; tells whether the last one is new.
pub(super) fn make_directory(path: &Path) -> Result<bool, StorageError> {
    let is_new = !path.exists();
    std::fs::create_dir_all(path).map_err(|source| StorageError::Io {
        operation: "make directory",
        path: path.display().to_string(),
        source,
    })?;
    Ok(is_new)
}

/// Unmounts and removes a mount point.
pub(super) fn unmount(point: &Path) -> Result<(), StorageError> {
    detach(point)?;
    remove_mount_point(point);
    Ok(())
}

/// Unmounts, and leaves the mount point.
pub(super) fn detach(point: &Path) -> Result<(), StorageError> {
    mount::detach(point).map_err(|error| StorageError::Mount(point.display().to_string(), error))
}

/// Removes an empty directory. One that is not empty was somebody's before, and stays.
pub(super) fn remove_mount_point(point: &Path) {
    if let Err(error) = std::fs::remove_dir(point) {
        tracing::debug!(path = %point.display(), %error, "a mount point stays");
    }
}
