//! Devices that a container is given: found in the guest, and put into its spec under the guest's numbers.
//!
//! A shim describes a device as the host has it: a node in `linux.devices` with the host's major and minor number, and a
//! place where the guest finds it. Both numbers are replaced by the guest's, in the node and in the rules of the device
//! cgroup, and a rule that allows the device is added: shims send none.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::address::Address;
use super::pci::{PciAddress, PciPath};
pub(crate) use super::spec::{PciAddresses, rewrite_environment};
use super::spec::{Placed, place};
pub(crate) use super::vfio::Bound;
use super::watch::DeviceWatch;
use super::{DeviceError, number_of, vfio};

/// A device of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Device {
    /// Address in the guest, as the kind wants it.
    pub(crate) id: String,
    /// Kind.
    pub(crate) kind: String,
    /// Node in the guest.
    pub(crate) vm_path: String,
    /// Node in the container.
    pub(crate) container_path: String,
    /// Settings of the kind.
    pub(crate) options: Vec<String>,
}

/// Kinds that can be given to a container, sorted.
pub(crate) const KINDS: [&str; 6] = ["blk", "mmioblk", "nvdimm", "scsi", VFIO, VFIO_GUEST_KERNEL];
/// For a program of the container to drive.
const VFIO: &str = "vfio-pci";
/// For a driver of the guest's kernel.
const VFIO_GUEST_KERNEL: &str = "vfio-pci-gk";
/// Through which the groups are opened; every program that uses one needs it.
const VFIO_CONTROL: &str = "/dev/vfio/vfio";

/// Where a device is, as its kind says it.
enum DeviceAddress {
    Disk(Address),
    /// Addresses of the host's, and where the guest has the same devices.
    Pci(Vec<(PciAddress, PciPath)>),
}

impl Device {
    /// Refuses what cannot be found in any guest.
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        self.place().map(drop)
    }

    fn invalid(&self, reason: &str) -> DeviceError {
        let (kind, path) = (self.kind.clone(), self.container_path.clone());
        DeviceError::Invalid { kind, path, reason: reason.to_owned() }
    }

    fn place(&self) -> Result<DeviceAddress, DeviceError> {
        if self.kind.is_empty() {
            return Err(self.invalid("it has no type"));
        }
        if !KINDS.contains(&self.kind.as_str()) {
            return Err(DeviceError::UnknownKind(self.kind.clone(), KINDS.join(", ")));
        }
        if self.kind == VFIO || self.kind == VFIO_GUEST_KERNEL {
            return self.pci_devices().map(DeviceAddress::Pci);
        }
        if self.id.is_empty() && self.vm_path.is_empty() {
            return Err(self.invalid("it has neither an id nor a vm_path"));
        }
        if !Path::new(&self.container_path).is_absolute() {
            return Err(self.invalid("its container_path is not absolute"));
        }
        if let Some(option) = self.options.first() {
            return Err(self.invalid(&format!("option {option:?} is not supported")));
        }
        let place = match self.kind.as_str() {
            "mmioblk" | "nvdimm" => &self.vm_path,
            "blk" if self.id.is_empty() => &self.vm_path,
            // On PCI the address is the id; the node is the one of another machine then.
            _ => &self.id,
        };
        Address::parse(&self.kind, place).map(DeviceAddress::Disk)
    }

    /// Options are `ADDRESS=PATH`: the address on the host, the PCI path in the guest.
    fn pci_devices(&self) -> Result<Vec<(PciAddress, PciPath)>, DeviceError> {
        if self.options.is_empty() {
            return Err(self.invalid("no option says which PCI devices are meant"));
        }
        if self.kind == VFIO && !Path::new(&self.container_path).is_absolute() {
            return Err(self.invalid("its container_path is not absolute"));
        }
        let parse = |option: &String| {
            let (host, path) = option.split_once('=')?;
            Some((PciAddress::parse(host)?, path.parse().ok()?))
        };
        let device = |option| {
            parse(option).ok_or_else(|| {
                self.invalid(&format!("option {option:?} is not like 0000:3b:02.0=02/00 (host=guest)"))
            })
        };
        self.options.iter().map(device).collect()
    }
}

/// What was found of the devices of a container.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// Addresses that its environment may name.
    pub(crate) addresses: PciAddresses,
    /// What is to be given back when it is gone.
    pub(crate) bound: Vec<Bound>,
    placed: Vec<Placed>,
}

impl Attached {
    /// Puts the devices into the container's spec.
    pub(crate) fn put_into(&self, spec: &mut Spec) {
        place(&self.placed, spec);
        if let Some(process) = spec.process_mut() {
            rewrite_environment(process, &self.addresses);
        }
    }
}

/// Finds the devices. Blocks, for each device the watch's timeout at most. A failure leaves the devices as they were.
pub(crate) fn attach(devices: &[Device], watch: &DeviceWatch) -> Result<Attached, DeviceError> {
    let mut attached = Attached::default();
    attached.placed = find(devices, watch, &mut attached)
        .inspect_err(|_| attached.bound.iter().rev().for_each(Bound::give_back))?;
    Ok(attached)
}

fn find(
    devices: &[Device],
    watch: &DeviceWatch,
    attached: &mut Attached,
) -> Result<Vec<Placed>, DeviceError> {
    let mut placed = Vec::new();
    for device in devices {
        match device.place()? {
            DeviceAddress::Disk(address) => {
                placed.push(node(Path::new(&device.container_path), &watch.disk(&address)?)?);
            }
            DeviceAddress::Pci(pci) => pci_devices(device, &pci, watch, attached, &mut placed)?,
        }
    }
    if devices.iter().any(|device| device.kind == VFIO) {
        placed.push(node(Path::new(VFIO_CONTROL), Path::new(VFIO_CONTROL))?);
    }
    Ok(placed)
}

fn pci_devices(
    device: &Device,
    pci: &[(PciAddress, PciPath)],
    watch: &DeviceWatch,
    attached: &mut Attached,
    placed: &mut Vec<Placed>,
) -> Result<(), DeviceError> {
    let mut group: Option<PathBuf> = None;
    for (host, path) in pci {
        let (directory, guest) = vfio::find(path, watch)?;
        attached.addresses.insert(host.clone(), guest.clone());
        if device.kind == VFIO_GUEST_KERNEL {
            for found in vfio::infiniband_nodes(&directory) {
                placed.push(node(&found, &found)?);
            }
            continue;
        }
        let (bound, found) = Bound::take(&directory, &guest, watch)?;
        attached.bound.extend(bound);
        if group.as_ref().is_some_and(|group| *group != found) {
            return Err(device.invalid(&format!("{guest} is not in the IOMMU group of the device before it")));
        }
        group = Some(found);
    }
    if let Some(group) = group {
        let mut found = node(Path::new(&device.container_path), &group)?;
        // The group has another number than on the host, and programs find it by that.
        found.path = group;
        placed.push(found);
    }
    Ok(())
}

/// A node of the guest for a place of the container.
fn node(asked: &Path, found: &Path) -> Result<Placed, DeviceError> {
    let (kind, major, minor) = number_of(found).map_err(DeviceError::io("look at", found))?;
    Ok(Placed { asked: asked.into(), path: asked.into(), kind, major, minor })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Kind as _};
    use std::time::Duration;

    fn device(kind: &str, id: &str, vm_path: &str) -> Device {
        Device {
            id: id.into(),
            kind: kind.into(),
            vm_path: vm_path.into(),
            container_path: "/dev/data".into(),
            options: Vec::new(),
        }
    }

    fn address(device: &Device) -> Address {
        let Ok(DeviceAddress::Disk(address)) = device.place() else { panic!("no disk") };
        address
    }

    #[test]
    fn a_device_has_a_kind_an_address_and_a_place() {
        assert_eq!(address(&device("blk", "02/01", "/dev/sda")), Address::disk("02/01").unwrap());
        assert_eq!(address(&device("mmioblk", "7", "/dev/vdb")), Address::node("/dev/vdb").unwrap());
        assert_eq!(address(&device("scsi", "0:3", "")), Address::Scsi { target: 0, lun: 3 });
        assert_eq!(address(&device("nvdimm", "x", "/dev/pmem1")), Address::node("/dev/pmem1").unwrap());
        let refused = |device: Device| device.check().unwrap_err().kind();
        assert_eq!(refused(device("", "02", "")), ErrorKind::Invalid);
        assert_eq!(refused(device("blk", "", "")), ErrorKind::Invalid);
        assert_eq!(refused(device("scsi", "02/01", "")), ErrorKind::Invalid);
        assert_eq!(refused(device("nvdimm", "x", "/dev/vda")), ErrorKind::Invalid);
        assert_eq!(refused(device("vfio-ap", "02", "")), ErrorKind::Unsupported);
        let relative = Device { container_path: "data".into(), ..device("blk", "02", "") };
        assert_eq!(refused(relative), ErrorKind::Invalid);
        let odd = Device { options: vec!["x".into()], ..device("blk", "02", "") };
        assert_eq!(refused(odd), ErrorKind::Invalid);
    }

    #[test]
    fn passed_through_devices_are_named_by_both_addresses() {
        let vfio = |options: &[&str]| Device {
            options: options.iter().map(|&option| option.to_owned()).collect(),
            ..device("vfio-pci", "group", "")
        };
        assert!(vfio(&["0000:3b:02.0=02/00", "3b:02.1=03"]).check().is_ok());
        for bad in [&[][..], &["0000:3b:02.0"], &["0000:3b:02.0="], &["x=02"], &["0000:3b:02.0=02=03"]] {
            assert_eq!(vfio(bad).check().unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
        }
    }

    #[test]
    fn a_device_that_does_not_come_is_a_timeout() {
        let watch = DeviceWatch::deaf(Path::new("/nonexistent"), Duration::ZERO);
        let error = attach(&[device("blk", "02/01", "")], &watch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}
