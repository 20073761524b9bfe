//! Where a device is plugged in: PCI paths and PCI addresses.
//!
//! Bus numbers behind bridges are the guest kernel's to give, so a shim names the slots on the way down, and the buses
//! are read from sysfs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{entries, only_entry};

/// The way to a PCI device through bridges, from a root bus: `02/00` is slot 0 behind the bridge in slot 2. A slot is
/// one or two hexadecimal digits, with `.F` behind it for a function other than 0. A first part of `20` or more, with two
/// or more behind it, is the number of another root bus than 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciPath {
    root: u8,
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    device: u8,
    function: u8,
}

/// Text that is no PCI path.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a PCI path such as 02/00")]
pub struct NoPciPath(pub(crate) String);

impl FromStr for PciPath {
    type Err = NoPciPath;

    fn from_str(text: &str) -> Result<Self, NoPciPath> {
        let parse = || {
            let parts: Vec<&str> = text.split('/').collect();
            let root = hexadecimal(parts[0], 2).filter(|number| parts.len() > 2 && *number >= 0x20);
            let below = if root.is_some() { &parts[1..] } else { &parts[..] };
            let slots = below.iter().map(|part| Slot::parse(part)).collect::<Option<Vec<Slot>>>()?;
            Some(PciPath { root: root.unwrap_or_default(), slots })
        };
        parse().ok_or_else(|| NoPciPath(text.to_owned()))
    }
}

fn hexadecimal(digits: &str, longest: usize) -> Option<u8> {
    let is_hex =
        (1..=longest).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

impl Slot {
    fn parse(text: &str) -> Option<Slot> {
        let (device, function) = text.split_once('.').unwrap_or((text, "0"));
        let device = hexadecimal(device, 2).filter(|number| *number < 32)?;
        Some(Slot { device, function: hexadecimal(function, 1).filter(|number| *number < 8)? })
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:02x}", self.device)?;
        match self.function {
            0 => Ok(()),
            function => write!(out, ".{function}"),
        }
    }
}

impl fmt::Display for PciPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = (self.root != 0).then(|| format!("{:02x}", self.root));
        let parts: Vec<String> = root.into_iter().chain(self.slots.iter().map(Slot::to_string)).collect();
        out.write_str(&parts.join("/"))
    }
}

impl PciPath {
    /// The directory in sysfs of the device that is plugged in there now; its name is the [`PciAddress`]. `sys` is where
    /// sysfs is mounted.
    pub(crate) fn device(&self, sys: &Path) -> Option<PathBuf> {
        let mut bus = format!("0000:{:02x}", self.root);
        let mut device = PathBuf::new();
        for (index, slot) in self.slots.iter().enumerate() {
            if index > 0 {
                bus = only_entry(&device.join("pci_bus"))?;
            }
            device = sys.join("bus/pci/devices").join(format!("{bus}:{:02x}.{}", slot.device, slot.function));
        }
        device.is_dir().then_some(device)
    }

    /// The name of the network link whose device is plugged in there now.
    pub(crate) fn link_name(&self, sys: &Path) -> Option<String> {
        let device = self.device(sys)?;
        only_entry(&device.join("net")).or_else(|| below_virtio(&device, "net"))
    }

    /// The name of the disk whose virtio device is plugged in there now.
    pub(crate) fn disk_name(&self, sys: &Path) -> Option<String> {
        below_virtio(&self.device(sys)?, "block")
    }
}

/// What the virtio device on a PCI device is to one subsystem.
fn below_virtio(device: &Path, subsystem: &str) -> Option<String> {
    let virtio = entries(device).into_iter().filter(|name| name.starts_with("virtio"));
    virtio.into_iter().find_map(|virtio| only_entry(&device.join(virtio).join(subsystem)))
}

/// A PCI address `DDDD:BB:SS.F`; a missing domain is 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PciAddress(String);

impl PciAddress {
    /// Length of an address with its domain.
    pub(crate) const LENGTH: usize = 12;

    /// Parses an address, with or without domain.
    pub(crate) fn parse(text: &str) -> Option<PciAddress> {
        let full = if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.to_owned() };
        let shape = b"hhhh:hh:hh.o";
        let fits = |(byte, shape): (u8, &u8)| match shape {
            b'h' => byte.is_ascii_hexdigit(),
            b'o' => (b'0'..b'8').contains(&byte),
            literal => byte == *literal,
        };
        let is_address = full.len() == PciAddress::LENGTH && full.bytes().zip(shape).all(fits);
        is_address.then(|| PciAddress(full.to_ascii_lowercase()))
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    #[test]
    fn paths_of_slots() {
        for text in ["02", "02/00", "1f.7/00/0a.1", "20/00/01", "ff/1f.7/00"] {
            assert_eq!(text.parse::<PciPath>().unwrap().to_string(), text);
        }
        assert_eq!("2.0".parse::<PciPath>().unwrap().to_string(), "02");
        for text in ["", "/", "02/", "20", "20/00", "02.8", "0000:00:02.0", "+2", "02/00/", "../00", "100"] {
            assert!(text.parse::<PciPath>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(PciAddress::parse("0000:3B:02.7").unwrap().to_string(), "0000:3b:02.7");
        assert_eq!(PciAddress::parse("3b:02.0"), PciAddress::parse("0000:3b:02.0"));
        for text in ["", "0000:3b:02.8", "3b:02", "0000:3b:2.0", "00000:3b:02.0", "::", "0000-3b:02.0"] {
            assert_eq!(PciAddress::parse(text), None, "{text}");
        }
    }

    #[test]
    fn devices_are_found_behind_bridges_and_on_virtio() {
        let sys = tempfile::tempdir().unwrap();
        let devices = sys.path().join("bus/pci/devices");
        for dir in [
            "0000:00:02.0/pci_bus/0000:01",
            "0000:01:00.0/virtio3/net/eth1",
            "0000:00:03.0/net/ens3",
            "0000:00:04.0/virtio1/block/vda",
            "0000:20:00.0/pci_bus/0000:21",
            "0000:21:01.3/virtio4/block/vdq",
        ] {
            fs::create_dir_all(devices.join(dir)).unwrap();
        }
        let path = |text: &str| text.parse::<PciPath>().unwrap();
        let find = |text: &str| path(text).link_name(sys.path());
        assert_eq!(find("02/00").as_deref(), Some("eth1"));
        assert_eq!(find("03").as_deref(), Some("ens3"));
        assert_eq!(find("02"), None, "a bridge is no network device");
        assert_eq!(find("04"), None, "neither is a disk");
        assert_eq!(find("03/00"), None, "nothing is behind a device that is no bridge");
        assert_eq!(find("05"), None);
        assert_eq!(path("04").disk_name(sys.path()).as_deref(), Some("vda"));
        assert_eq!(path("20/00/01.3").disk_name(sys.path()).as_deref(), Some("vdq"));
        assert_eq!(path("20/00/02").disk_name(sys.path()), None);
        assert_eq!(path("02/00").disk_name(sys.path()), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,20}") {
            if let Ok(path) = text.parse::<PciPath>() {
                prop_assert_eq!(path.to_string().parse::<PciPath>().unwrap(), path);
            }
            drop(PciAddress::parse(&text));
        }
    }
}
