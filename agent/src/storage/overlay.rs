//! `overlayfs`: a writable layer over read-only ones.
//!
//! The driver option `io.katacontainers.volume.overlayfs.create_directory=PATH` names a directory to make first, as
//! the upper and work directories need it.

use std::path::Path;

use super::{Storage, StorageDriver, StorageError};
use crate::device::watch::DeviceWatch;

const CREATE_DIRECTORY: &str = "io.katacontainers.volume.overlayfs.create_directory=";

/// See the module.
pub(super) struct Overlay;

impl StorageDriver for Overlay {
    fn name(&self) -> &'static str {
        "overlayfs"
    }

    fn acquire(&self, storage: &Storage, _devices: &DeviceWatch) -> Result<(), StorageError> {
        for option in &storage.driver_options {
            match option.strip_prefix(CREATE_DIRECTORY).map(Path::new) {
                Some(path) if path.is_absolute() => {
                    super::make_directory(path)?;
                }
                _ => {
                    return Err(StorageError::Invalid {
                        driver: storage.driver.clone(),
                        mount_point: storage.mount_point.display().to_string(),
                        reason: format!("driver option {option:?} is not supported"),
                    });
                }
            }
        }
        super::mount_at("overlay", "overlay", &storage.options, &storage.mount_point)
    }

    fn release(&self, storage: &Storage, _: bool) -> Result<(), StorageError> {
        super::unmount(&storage.mount_point)
    }
}
