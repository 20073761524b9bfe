//! PCI devices that a container's program drives itself: bound to `vfio-pci` in the guest too, and reached through the node
//! of their IOMMU group (`Documentation/driver-api/vfio.rst` of the kernel).

use std::path::{Path, PathBuf};

use super::pci::{PciAddress, PciPath};
use super::watch::DeviceWatch;
use super::{DeviceError, only_entry};

const DRIVER: &str = "vfio-pci";

/// Waits for the device at a PCI path, and gives its directory in sysfs and its address.
pub(super) fn find(path: &PciPath, watch: &DeviceWatch) -> Result<(PathBuf, PciAddress), DeviceError> {
    let look = || {
        let device = path.device(watch.sys())?;
        let address = PciAddress::parse(device.file_name()?.to_str()?)?;
        Some((device, address))
    };
    watch.wait(look).map_err(|late| late.named("PCI device", format!("PCI path {path}")))
}

/// A device that was taken from its driver.
#[derive(Debug)]
pub(crate) struct Bound {
    device: PathBuf,
    address: PciAddress,
    sys: PathBuf,
}

impl Bound {
    /// Gives a device to `vfio-pci`, and waits for the node of its group. A device that has that driver stays as it is
    /// ([`Bound::give_back`] has nothing to do for it then).
    pub(super) fn take(
        device: &Path,
        address: &PciAddress,
        watch: &DeviceWatch,
    ) -> Result<(Option<Bound>, PathBuf), DeviceError> {
        let sys = watch.sys();
        let unsupported = |reason| DeviceError::Unsupported { address: address.to_string(), reason };
        if !sys.join("bus/pci/drivers").join(DRIVER).is_dir() {
            return Err(unsupported("the guest's kernel has no vfio-pci driver"));
        }
        let bound = if driver(device).as_deref() == Some(DRIVER) {
            None
        } else {
            let bound = Bound { device: device.to_owned(), address: address.clone(), sys: sys.to_owned() };
            if let Err(error) = bound.rebind(DRIVER) {
                bound.give_back();
                return Err(error);
            }
            Some(bound)
        };
        let found = watch.wait(|| group_node(device));
        if found.is_err()
            && let Some(bound) = &bound
        {
            bound.give_back();
        }
        let is_grouped = device.join("iommu_group").exists();
        let node = found.map_err(|late| match is_grouped {
            false => {
                unsupported("it is in no IOMMU group: the VM needs an IOMMU, and the kernel intel_iommu=on")
            }
            true => late.named("VFIO group", address.to_string()),
        })?;
        Ok((bound, node))
    }

    /// Gives the device to whichever driver takes it without being told to. Says in the log what fails.
    pub(crate) fn give_back(&self) {
        // A lone newline takes the override away. A device that was unplugged needs nothing.
        if self.device.is_dir()
            && let Err(error) = self.rebind("\n")
        {
            tracing::warn!(address = %self.address, error = %crate::error::chain(&error), "a device stays with vfio-pci");
        }
    }

    fn rebind(&self, driver_override: &str) -> Result<(), DeviceError> {
        let write = |path: PathBuf, text: &str| {
            std::fs::write(&path, text).map_err(DeviceError::io("write to", &path))
        };
        write(self.device.join("driver_override"), driver_override)?;
        let unbind = self.device.join("driver/unbind");
        if unbind.exists() {
            write(unbind, &self.address.to_string())?;
        }
        write(self.sys.join("bus/pci/drivers_probe"), &self.address.to_string())
    }
}

fn driver(device: &Path) -> Option<String> {
    let link = std::fs::read_link(device.join("driver")).ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}

/// The node of the device's group. Without an IOMMU, groups have another name, and the kernel must have been told that
/// such are wanted.
fn group_node(device: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::FileTypeExt as _;
    let link = std::fs::read_link(device.join("iommu_group")).ok()?;
    let group = link.file_name()?.to_str()?.to_owned();
    let nodes = [format!("/dev/vfio/{group}"), format!("/dev/vfio/noiommu-{group}")].map(PathBuf::from);
    nodes.into_iter().find(|node| node.metadata().is_ok_and(|node| node.file_type().is_char_device()))
}

/// Nodes of InfiniBand devices on a PCI device: a program reaches them beside the network link.
pub(super) fn infiniband_nodes(device: &Path) -> Vec<PathBuf> {
    ["infiniband_verbs", "infiniband_mad"]
        .iter()
        .filter_map(|class| only_entry(&device.join(class)))
        .map(|name| Path::new("/dev/infiniband").join(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Kind as _};
    use std::time::Duration;

    #[test]
    fn a_kernel_without_the_driver_says_so() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("bus/pci/devices/0000:01:00.0");
        std::fs::create_dir_all(&device).unwrap();
        let watch = DeviceWatch::deaf(sys.path(), Duration::ZERO);
        let address = PciAddress::parse("0000:01:00.0").unwrap();
        let error = Bound::take(&device, &address, &watch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(!device.join("driver_override").exists());
    }

    #[test]
    fn what_cannot_be_taken_is_given_back() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("bus/pci/devices/0000:00:01.0");
        std::fs::create_dir_all(&device).unwrap();
        std::fs::create_dir_all(sys.path().join("bus/pci/drivers/vfio-pci")).unwrap();
        let watch = DeviceWatch::deaf(sys.path(), Duration::ZERO);
        let (device, address) = find(&"01".parse().unwrap(), &watch).unwrap();
        let error = Bound::take(&device, &address, &watch).unwrap_err();
        assert!(error.to_string().contains("IOMMU"), "{error}");
        assert_eq!(std::fs::read_to_string(device.join("driver_override")).unwrap(), "\n");
        assert_eq!(
            std::fs::read_to_string(sys.path().join("bus/pci/drivers_probe")).unwrap(),
            "0000:00:01.0"
        );
    }
}
