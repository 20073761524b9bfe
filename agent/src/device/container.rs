//! Devices that a container is given: found in the guest, and put into its spec under the guest's numbers.
//!
//! A shim describes a device as the host has it: a node in `linux.devices` with the host's major and minor number, and a
//! place where the guest finds it. Both numbers are replaced by the guest's, in the node and in the rules of the device
//! cgroup, and a rule that allows the device is added: shims send none.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxResources, Spec,
};

use super::{DeviceError, block};

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
pub(crate) const KINDS: [&str; 2] = ["blk", "mmioblk"];

impl Device {
    /// Refuses what cannot be found in any guest.
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        let invalid = |reason: &str| {
            let (kind, path) = (self.kind.clone(), self.container_path.clone());
            Err(DeviceError::Invalid { kind, path, reason: reason.to_owned() })
        };
        if self.kind.is_empty() {
            return invalid("it has no type");
        }
        if !KINDS.contains(&self.kind.as_str()) {
            return Err(DeviceError::UnknownKind(self.kind.clone(), KINDS.join(", ")));
        }
        if self.id.is_empty() && self.vm_path.is_empty() {
            return invalid("it has neither an id nor a vm_path");
        }
        if !Path::new(&self.container_path).is_absolute() {
            return invalid("its container_path is not absolute");
        }
        if let Some(option) = self.options.first() {
            return invalid(&format!("option {option:?} is not supported"));
        }
        Ok(())
    }

    /// What [`block::wait_for`] understands. On PCI the address is the id; the node is the one of another machine then.
    fn address(&self) -> &str {
        if self.kind == "mmioblk" || self.id.is_empty() { &self.vm_path } else { &self.id }
    }
}

/// Finds the devices and puts them into the spec. Blocks, for each device `timeout` at most.
pub(crate) fn attach(devices: &[Device], spec: &mut Spec, timeout: Duration) -> Result<(), DeviceError> {
    let mut found = Vec::new();
    for device in devices {
        device.check()?;
        let node = block::wait_for(device.address(), timeout)?;
        let status = node.metadata().map_err(|source| DeviceError::Node { path: node.clone(), source })?;
        if !status.file_type().is_block_device() {
            return Err(DeviceError::BadAddress(device.address().to_owned()));
        }
        let number = status.rdev();
        found.push((device, rustix::fs::major(number).into(), rustix::fs::minor(number).into()));
    }
    for (device, major, minor) in found {
        place(Path::new(&device.container_path), major, minor, spec);
    }
    Ok(())
}

/// Puts one block device at a path of the container.
fn place(path: &Path, major: i64, minor: i64, spec: &mut Spec) {
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut devices = linux.devices().clone().unwrap_or_default();
    let before = devices.iter_mut().find(|device| device.path() == path);
    let hosts = match before {
        Some(device) => {
            let hosts = (device.major(), device.minor());
            device.set_typ(LinuxDeviceType::B).set_major(major).set_minor(minor);
            Some(hosts)
        }
        None => {
            devices.extend(node(path, major, minor));
            None
        }
    };
    linux.set_devices(Some(devices));
    let mut resources: LinuxResources = linux.resources().clone().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    for rule in &mut rules {
        let is_hosts =
            hosts.is_some_and(|(major, minor)| (rule.major(), rule.minor()) == (Some(major), Some(minor)));
        if is_hosts && matches!(rule.typ(), None | Some(LinuxDeviceType::B)) {
            rule.set_major(Some(major)).set_minor(Some(minor));
        }
    }
    let is_said = |rule: &LinuxDeviceCgroup| {
        rule.typ() == Some(LinuxDeviceType::B) && (rule.major(), rule.minor()) == (Some(major), Some(minor))
    };
    // A rule of the request's own, be it a denial, is the last word.
    if !rules.iter().any(is_said) {
        rules.extend(allow(major, minor));
    }
    resources.set_devices(Some(rules));
    linux.set_resources(Some(resources));
    spec.set_linux(Some(linux));
}

fn node(path: &Path, major: i64, minor: i64) -> Option<LinuxDevice> {
    let device = LinuxDeviceBuilder::default().path(PathBuf::from(path)).typ(LinuxDeviceType::B);
    device.major(major).minor(minor).file_mode(0o660u32).build().ok()
}

fn allow(major: i64, minor: i64) -> Option<LinuxDeviceCgroup> {
    let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(LinuxDeviceType::B);
    rule.major(major).minor(minor).access("rwm").build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Kind as _};

    fn device(kind: &str, id: &str, vm_path: &str) -> Device {
        Device {
            id: id.into(),
            kind: kind.into(),
            vm_path: vm_path.into(),
            container_path: "/dev/data".into(),
            options: Vec::new(),
        }
    }

    #[test]
    fn a_device_has_a_kind_an_address_and_a_place() {
        assert!(device("blk", "02/01", "").check().is_ok());
        assert!(device("mmioblk", "", "/dev/vdb").check().is_ok());
        let refused = |device: Device| device.check().unwrap_err().kind();
        assert_eq!(refused(device("", "02", "")), ErrorKind::Invalid);
        assert_eq!(refused(device("blk", "", "")), ErrorKind::Invalid);
        assert_eq!(refused(device("vfio-pci", "02", "")), ErrorKind::Unsupported);
        assert_eq!(
            refused(Device { container_path: "data".into(), ..device("blk", "02", "") }),
            ErrorKind::Invalid
        );
        let odd = Device { options: vec!["x".into()], ..device("blk", "02", "") };
        assert_eq!(refused(odd), ErrorKind::Invalid);
        assert_eq!(device("blk", "02/01", "/dev/sda").address(), "02/01");
        assert_eq!(device("mmioblk", "7", "/dev/vdb").address(), "/dev/vdb");
    }

    #[test]
    fn numbers_of_the_host_become_those_of_the_guest() {
        let mut spec = Spec::default();
        let mut linux = spec.linux().clone().unwrap_or_default();
        linux.set_devices(node(Path::new("/dev/data"), 8, 16).map(|device| vec![device]));
        let mut resources = LinuxResources::default();
        resources.set_devices(Some(allow(8, 16).into_iter().chain(allow(8, 32)).collect()));
        linux.set_resources(Some(resources));
        spec.set_linux(Some(linux));
        place(Path::new("/dev/data"), 254, 1, &mut spec);
        place(Path::new("/dev/new"), 254, 2, &mut spec);
        let linux = spec.linux().as_ref().unwrap();
        let numbers: Vec<_> =
            linux.devices().iter().flatten().map(|device| (device.major(), device.minor())).collect();
        assert_eq!(numbers, [(254, 1), (254, 2)]);
        let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
        let numbers: Vec<_> =
            rules.iter().map(|rule| (rule.major().unwrap(), rule.minor().unwrap())).collect();
        assert_eq!(numbers, [(254, 1), (8, 32), (254, 2)]);
    }
}
