//! `virtio-fs` and `9p`: a directory of the host, by the tag of its device.

use super::{Storage, StorageDriver, StorageError};
use crate::device::watch::DeviceWatch;

/// See the module.
pub(super) struct SharedFolder {
    name: &'static str,
    fstype: &'static str,
    /// Options that the file system needs here, unless the request says otherwise.
    defaults: &'static [&'static str],
}

pub(super) const VIRTIO_FS: SharedFolder =
    SharedFolder { name: "virtio-fs", fstype: "virtiofs", defaults: &[] };

/// The version is the one that QEMU speaks to Linux.
pub(super) const PLAN9: SharedFolder =
    SharedFolder { name: "9p", fstype: "9p", defaults: &["trans=virtio", "version=9p2000.L"] };

impl SharedFolder {
    fn options(&self, storage: &Storage) -> Vec<String> {
        let name = |option: &str| option.split('=').next().map(str::to_owned);
        let said = storage.mount_options();
        let is_said = |default: &&&str| said.iter().any(|option| name(option) == name(default));
        let missing = self.defaults.iter().filter(|default| !is_said(default));
        missing.map(|default| (*default).to_owned()).chain(said.iter().cloned()).collect()
    }
}

impl StorageDriver for SharedFolder {
    fn name(&self) -> &'static str {
        self.name
    }

    fn acquire(&self, storage: &Storage, _devices: &DeviceWatch) -> Result<(), StorageError> {
        storage.no_driver_options()?;
        if !storage.fstype.is_empty() && storage.fstype != self.fstype {
            return Err(storage.invalid(format!("file system {:?} is not {}", storage.fstype, self.fstype)));
        }
        super::mount_at(self.fstype, &storage.source, &self.options(storage), &storage.mount_point)
    }

    fn release(&self, storage: &Storage, _: bool) -> Result<(), StorageError> {
        super::unmount(&storage.mount_point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_request_says_counts() {
        let options = |said: &[&str]| {
            let options = said.iter().map(|&option| option.to_owned()).collect();
            PLAN9.options(&Storage { options, ..Storage::default() })
        };
        assert_eq!(options(&["msize=8192"]), ["trans=virtio", "version=9p2000.L", "msize=8192"]);
        assert_eq!(options(&["version=9p2000.u,ro"]), ["trans=virtio", "version=9p2000.u", "ro"]);
    }
}
