//! Puts devices into a container's spec under the guest's numbers, and PCI addresses of the guest into its environment.
//! Pure.

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxResources, Process, Spec,
};

use super::pci::PciAddress;

/// The PCI addresses of the host's that a container knows, and the guest's for the same devices.
pub(crate) type PciAddresses = HashMap<PciAddress, PciAddress>;

/// Variables in which device plugins tell a container the PCI addresses of its devices.
const PCI_VARIABLES: &str = "PCIDEVICE_";

/// What becomes of one device of the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    /// Where the spec has it.
    pub(super) asked: PathBuf,
    /// Where it will be.
    pub(super) path: PathBuf,
    /// Block or character.
    pub(super) kind: LinuxDeviceType,
    /// The guest's number.
    pub(super) major: i64,
    /// The guest's number.
    pub(super) minor: i64,
}

/// Puts all devices into the spec at once: a number of the guest's may be another device's number on the host.
pub(super) fn place(placed: &[Placed], spec: &mut Spec) {
    if placed.is_empty() {
        return;
    }
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut devices = linux.devices().clone().unwrap_or_default();
    let mut resources: LinuxResources = linux.resources().clone().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();

    let mut hosts: HashMap<(i64, i64), &Placed> = HashMap::new();
    let mut entries = Vec::new();
    for device in placed {
        let entry = devices.iter().position(|entry| entry.path() == &device.asked);
        if let Some(entry) = entry {
            hosts.insert((devices[entry].major(), devices[entry].minor()), device);
        }
        entries.push(entry);
    }
    for rule in &mut rules {
        let number = rule.major().zip(rule.minor());
        let Some(device) = number.and_then(|number| hosts.get(&number)) else { continue };
        if rule.typ().is_none_or(|kind| kind == device.kind) {
            rule.set_major(Some(device.major)).set_minor(Some(device.minor));
        }
    }
    for (device, entry) in placed.iter().zip(entries) {
        match entry {
            Some(entry) => {
                devices[entry].set_path(device.path.clone()).set_typ(device.kind);
                devices[entry].set_major(device.major).set_minor(device.minor);
            }
            None => devices.extend(node(device)),
        }
        let is_said = |rule: &LinuxDeviceCgroup| {
            rule.typ() == Some(device.kind)
                && (rule.major(), rule.minor()) == (Some(device.major), Some(device.minor))
        };
        // A rule of the request's own, be it a denial, is the last word.
        if !rules.iter().any(is_said) {
            rules.extend(allow(device.kind, device.major, device.minor, "rwm"));
        }
    }
    resources.set_devices(Some(rules));
    linux.set_devices(Some(devices));
    linux.set_resources(Some(resources));
    spec.set_linux(Some(linux));
}

fn node(device: &Placed) -> Option<LinuxDevice> {
    let node = LinuxDeviceBuilder::default().path(device.path.as_path()).typ(device.kind);
    node.major(device.major).minor(device.minor).file_mode(0o660u32).build().ok()
}

/// A rule that allows a device; `access` is of `r`, `w` and `m`.
pub(super) fn allow(
    kind: LinuxDeviceType,
    major: i64,
    minor: i64,
    access: &str,
) -> Option<LinuxDeviceCgroup> {
    let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind);
    rule.major(major).minor(minor).access(access).build().ok()
}

/// Replaces PCI addresses of the host's by the guest's in the variables of a process that hold such.
pub(crate) fn rewrite_environment(process: &mut Process, addresses: &PciAddresses) {
    if let Some(env) = process.env_mut().as_mut().filter(|_| !addresses.is_empty()) {
        rewrite_variables(env, addresses);
    }
}

/// All in one go: an address may be one device's on the host and another's in the guest.
fn rewrite_variables(env: &mut [String], addresses: &PciAddresses) {
    for variable in env.iter_mut().filter(|variable| variable.starts_with(PCI_VARIABLES)) {
        if let Some((name, value)) = variable.split_once('=') {
            *variable = format!("{name}={}", rewrite(value, addresses));
        }
    }
}

/// Works on a plain list, and on the JSON of the variables that end in `_INFO`.
fn rewrite(text: &str, addresses: &PciAddresses) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let candidate = rest.get(..PciAddress::LENGTH).and_then(PciAddress::parse);
        let guest = candidate.and_then(|host| addresses.get(&host));
        match guest {
            Some(guest) => {
                out.push_str(&guest.to_string());
                rest = &rest[PciAddress::LENGTH..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn disk(asked: &str, major: i64, minor: i64) -> Placed {
        Placed { asked: asked.into(), path: asked.into(), kind: LinuxDeviceType::B, major, minor }
    }

    fn spec(devices: &[Placed], rules: &[Placed]) -> Spec {
        let mut spec = Spec::default();
        let mut linux = spec.linux().clone().unwrap_or_default();
        linux.set_devices(Some(devices.iter().filter_map(node).collect()));
        let mut resources = LinuxResources::default();
        resources.set_devices(Some(rules.iter().filter_map(rule).collect()));
        linux.set_resources(Some(resources));
        spec.set_linux(Some(linux));
        spec
    }

    fn rule(device: &Placed) -> Option<LinuxDeviceCgroup> {
        allow(device.kind, device.major, device.minor, "rwm")
    }

    fn devices(spec: &Spec) -> Vec<(String, i64, i64)> {
        let devices = spec.linux().as_ref().unwrap().devices().clone().unwrap();
        let device =
            |device: &LinuxDevice| (device.path().display().to_string(), device.major(), device.minor());
        devices.iter().map(device).collect()
    }

    fn rules(spec: &Spec) -> Vec<(i64, i64)> {
        let rules = spec.linux().as_ref().unwrap().resources().clone().unwrap().devices().clone().unwrap();
        rules.iter().map(|rule| (rule.major().unwrap(), rule.minor().unwrap())).collect()
    }

    #[test]
    fn numbers_of_the_host_become_those_of_the_guest() {
        let mut spec = spec(&[disk("/dev/data", 8, 16)], &[disk("", 8, 16), disk("", 8, 32)]);
        place(&[disk("/dev/data", 254, 1), disk("/dev/new", 254, 2)], &mut spec);
        assert_eq!(devices(&spec), [("/dev/data".into(), 254, 1), ("/dev/new".into(), 254, 2)]);
        assert_eq!(rules(&spec), [(254, 1), (8, 32), (254, 2)]);
    }

    #[test]
    fn devices_that_swap_their_numbers_keep_their_places() {
        let (a, b) = (disk("/dev/a", 8, 0), disk("/dev/b", 8, 16));
        let mut spec = spec(&[a.clone(), b.clone()], &[a, b]);
        place(&[disk("/dev/a", 8, 16), disk("/dev/b", 8, 0)], &mut spec);
        assert_eq!(devices(&spec), [("/dev/a".into(), 8, 16), ("/dev/b".into(), 8, 0)]);
        assert_eq!(rules(&spec), [(8, 16), (8, 0)]);
    }

    #[test]
    fn a_rule_for_a_character_device_of_the_same_number_stays() {
        let mut spec =
            spec(&[disk("/dev/a", 10, 1)], &[Placed { kind: LinuxDeviceType::C, ..disk("", 10, 1) }]);
        place(&[disk("/dev/a", 254, 1)], &mut spec);
        assert_eq!(rules(&spec), [(10, 1), (254, 1)]);
    }

    #[test]
    fn a_node_can_get_another_name() {
        let mut spec = spec(&[disk("/dev/vfio/17", 243, 0)], &[]);
        let group =
            Placed { path: "/dev/vfio/2".into(), kind: LinuxDeviceType::C, ..disk("/dev/vfio/17", 511, 3) };
        place(&[group], &mut spec);
        assert_eq!(devices(&spec), [("/dev/vfio/2".into(), 511, 3)]);
    }

    #[test]
    fn addresses_in_the_environment_are_the_guests() {
        let address = |text: &str| PciAddress::parse(text).unwrap();
        let addresses = PciAddresses::from([
            (address("0000:3b:02.0"), address("0000:01:00.0")),
            (address("0000:01:00.0"), address("0000:02:00.0")),
        ]);
        let mut env = [
            "PATH=/bin".to_owned(),
            "OTHER=0000:3b:02.0".to_owned(),
            "PCIDEVICE_ACME_NIC=0000:3b:02.0,0000:01:00.0,0000:44:00.0".to_owned(),
            r#"PCIDEVICE_ACME_NIC_INFO={"0000:3B:02.0":{"generic":{"deviceID":"0000:3b:02.0"}}}"#.to_owned(),
            "PCIDEVICE_".to_owned(),
        ];
        rewrite_variables(&mut env, &addresses);
        assert_eq!(env[1], "OTHER=0000:3b:02.0");
        assert_eq!(env[2], "PCIDEVICE_ACME_NIC=0000:01:00.0,0000:02:00.0,0000:44:00.0");
        assert_eq!(
            env[3],
            r#"PCIDEVICE_ACME_NIC_INFO={"0000:01:00.0":{"generic":{"deviceID":"0000:01:00.0"}}}"#
        );
    }

    proptest! {
        #[test]
        fn what_is_no_address_stays(text in ".{0,40}") {
            let address = |text: &str| PciAddress::parse(text).unwrap();
            let addresses = PciAddresses::from([(address("0000:3b:02.0"), address("0000:01:00.0"))]);
            prop_assume!(!text.contains("0000:3b:02.0") && !text.contains("0000:3B:02.0"));
            prop_assert_eq!(rewrite(&text, &addresses), text);
        }
    }
}
