//! A storage of a request.

use std::path::{Path, PathBuf};

use super::error::StorageError;
use super::group::Group;

/// Name of the driver of directories in memory.
pub(super) const LOCAL: &str = "local";

/// A storage of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Storage {
    /// Which driver.
    pub(crate) driver: String,
    /// Settings of the driver.
    pub(crate) driver_options: Vec<String>,
    /// Device, tag or other source.
    pub(crate) source: String,
    /// File system type.
    pub(crate) fstype: String,
    /// Mount options.
    pub(crate) options: Vec<String>,
    /// Where it goes: absolute, without `..`.
    pub(crate) mount_point: PathBuf,
    /// The group that is to own the files.
    pub(crate) fs_group: Option<Group>,
    /// Whether it stays until the sandbox ends.
    pub(crate) shared: bool,
    /// What it is made of, where it is a stack of layers.
    pub(crate) layers: Vec<Storage>,
}

impl Storage {
    /// A directory of the agent's own that containers write to, of a size that the agent chooses.
    pub(crate) fn in_memory(directory: &Path) -> Storage {
        let (driver, source) = (LOCAL.to_owned(), "tmpfs".to_owned());
        Storage { driver, source, mount_point: directory.to_owned(), ..Storage::default() }
    }

    /// Whether nothing can be written to it.
    pub(super) fn is_readonly(&self) -> bool {
        self.mount_options().iter().any(|option| option == "ro")
    }

    /// Its mount options, one by one: shims join some with commas, as mount(8) does.
    pub(super) fn mount_options(&self) -> Vec<String> {
        let words = self.options.iter().flat_map(|option| option.split(','));
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// Refuses driver options, of which most drivers have none.
    pub(super) fn no_driver_options(&self) -> Result<(), StorageError> {
        match self.driver_options.first() {
            Some(option) => Err(self.invalid(format!("driver option {option:?} is not supported"))),
            None => Ok(()),
        }
    }

    /// The error for a request that cannot be right.
    pub(super) fn invalid(&self, reason: String) -> StorageError {
        StorageError::Invalid {
            driver: self.driver.clone(),
            mount_point: self.mount_point.display().to_string(),
            reason,
        }
    }
}
