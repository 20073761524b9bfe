//! Finds the network device that sits at a PCI path.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::NetworkError;

/// The way to a PCI device through bridges, from the root bus: `02/00` is slot 0 behind the bridge in slot 2. A slot
/// is two hexadecimal digits, with `.F` behind it for a function other than 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciPath(Vec<Slot>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    device: u8,
    function: u8,
}

impl FromStr for PciPath {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let slots: Option<Vec<Slot>> = text.split('/').map(Slot::parse).collect();
        slots.map(PciPath).ok_or_else(|| NetworkError::Malformed {
            text: text.to_owned(),
            expected: "a PCI path such as 02/00",
        })
    }
}

impl Slot {
    fn parse(text: &str) -> Option<Slot> {
        let (device, function) = text.split_once('.').unwrap_or((text, "0"));
        let number = |digits: &str, length: usize, below: u8| {
            let hex = digits.len() == length && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten().filter(|number| *number < below)
        };
        Some(Slot { device: number(device, 2, 32)?, function: number(function, 1, 8)? })
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
        for (index, slot) in self.0.iter().enumerate() {
            let slash = if index == 0 { "" } else { "/" };
            write!(out, "{slash}{slot}")?;
        }
        Ok(())
    }
}

impl PciPath {
    /// The name of the network link whose device is plugged in there now. `sys` is where sysfs is mounted.
    pub(super) fn link_name(&self, sys: &Path) -> Option<String> {
        let mut bus = "0000:00".to_owned();
        let mut device = PathBuf::new();
        for (index, slot) in self.0.iter().enumerate() {
            if index > 0 {
                bus = only_entry(&device.join("pci_bus"))?;
            }
            let name = format!("{bus}:{:02x}.{}", slot.device, slot.function);
            device = sys.join("bus/pci/devices").join(name);
        }
        // The link hangs off the device itself, or off the virtio device on it.
        only_entry(&device.join("net")).or_else(|| {
            entries(&device)
                .into_iter()
                .filter(|name| name.starts_with("virtio"))
                .find_map(|virtio| only_entry(&device.join(virtio).join("net")))
        })
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn only_entry(dir: &Path) -> Option<String> {
    entries(dir).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_slots() {
        for text in ["02", "02/00", "1f.7/00/0a.1"] {
            assert_eq!(text.parse::<PciPath>().unwrap().to_string(), text);
        }
        assert_eq!("02.0".parse::<PciPath>().unwrap().to_string(), "02");
        for text in ["", "/", "2", "02/", "20", "02.8", "0000:00:02.0", "+2", "02/00/", "../00"] {
            assert!(text.parse::<PciPath>().is_err(), "{text}");
        }
    }

    #[test]
    fn links_are_found_behind_bridges_and_on_virtio() {
        let sys = tempfile::tempdir().unwrap();
        let devices = sys.path().join("bus/pci/devices");
        for dir in [
            "0000:00:02.0/pci_bus/0000:01",
            "0000:01:00.0/virtio3/net/eth1",
            "0000:00:03.0/net/ens3",
            "0000:00:04.0/virtio1/block/vda",
        ] {
            fs::create_dir_all(devices.join(dir)).unwrap();
        }
        let find = |path: &str| path.parse::<PciPath>().unwrap().link_name(sys.path());
        assert_eq!(find("02/00").as_deref(), Some("eth1"));
        assert_eq!(find("03").as_deref(), Some("ens3"));
        assert_eq!(find("02"), None, "a bridge is no network device");
        assert_eq!(find("04"), None, "neither is a disk");
        assert_eq!(find("03/00"), None, "nothing is behind a device that is no bridge");
        assert_eq!(find("05"), None);
    }
}
