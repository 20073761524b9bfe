//! `bind`: a file or directory of the guest, shown at a second place.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{Storage, StorageDriver, StorageError};
use crate::device::watch::DeviceWatch;

/// See the module.
pub(super) struct Bind;

impl StorageDriver for Bind {
    fn name(&self) -> &'static str {
        "bind"
    }

    fn acquire(&self, storage: &Storage, _devices: &DeviceWatch) -> Result<(), StorageError> {
        let source = Path::new(&storage.source);
        if !source.is_absolute() {
            return Err(storage.invalid(format!("source {:?} is not an absolute path", storage.source)));
        }
        let mut options = storage.options.clone();
        if !options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind")) {
            options.push("bind".to_owned());
        }
        attach(source, &storage.mount_point, &options)
    }

    fn release(&self, storage: &Storage, is_ours: bool) -> Result<(), StorageError> {
        let mount_point = &storage.mount_point;
        super::detach(mount_point)?;
        if is_ours {
            remove(mount_point);
        }
        Ok(())
    }
}

/// Binds a file or directory to a mount point, which is made where it is missing.
pub(super) fn attach(source: &Path, point: &Path, options: &[String]) -> Result<(), StorageError> {
    let is_directory = source.metadata().map_err(io("look at", source))?.is_dir();
    let made = if is_directory { super::make_directory(point)? } else { make_file(point)? };
    super::mount_on("bind", &source.to_string_lossy(), options, point).inspect_err(|_| {
        if made {
            remove(point);
        }
    })
}

/// Makes an empty file and the directories above it; tells whether it is new.
fn make_file(path: &Path) -> Result<bool, StorageError> {
    if path.exists() {
        return Ok(false);
    }
    if let Some(parent) = path.parent() {
        super::make_directory(parent)?;
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    made.map(|_| true).map_err(io("make file", path))
}

/// Removes an empty mount point. One that was somebody's before has something in it, and stays.
pub(super) fn remove(point: &Path) {
    match point.symlink_metadata() {
        Ok(found) if found.is_file() && found.len() == 0 => {
            if let Err(error) = std::fs::remove_file(point) {
                tracing::debug!(path = %point.display(), %error, "a mount point stays");
            }
        }
        _ => super::remove_mount_point(point),
    }
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StorageError {
    move |source| StorageError::Io { operation, path: path.display().to_string(), source }
}
