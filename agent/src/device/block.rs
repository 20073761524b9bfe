//! Finds block devices by node or by PCI path.
//!
//! A PCI path is a list of `SLOT[.FUNCTION]` (hexadecimal) from the root bus down through bridges: `02/01` is slot 1
//! behind the bridge in slot 2. Bus numbers behind bridges are the kernel's to give, so they are read from sysfs.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::DeviceError;

/// How often sysfs is looked at while a device is awaited.
const POLL: Duration = Duration::from_millis(10);

/// Waits until the block device exists, and gives its node.
pub(crate) fn wait_for(address: &str, timeout: Duration) -> Result<PathBuf, DeviceError> {
    let address_parsed =
        Address::parse(address).ok_or_else(|| DeviceError::BadAddress(address.to_owned()))?;
    let start = Instant::now();
    loop {
        if let Some(node) = address_parsed.find(Path::new("/sys"))
            && node.metadata().is_ok_and(|node| node.file_type().is_block_device())
        {
            return Ok(node);
        }
        if start.elapsed() >= timeout {
            return Err(DeviceError::Timeout { address: address.to_owned(), waited: start.elapsed() });
        }
        std::thread::sleep(POLL);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Address {
    Node(PathBuf),
    /// Slot and function on each bus.
    Pci(Vec<(u8, u8)>),
}

impl Address {
    fn parse(text: &str) -> Option<Address> {
        if let Some(name) = text.strip_prefix("/dev/") {
            let is_plain = !name.is_empty() && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
            return is_plain.then(|| Address::Node(PathBuf::from(text)));
        }
        text.split('/').map(slot).collect::<Option<Vec<_>>>().map(Address::Pci)
    }

    fn find(&self, sysfs: &Path) -> Option<PathBuf> {
        let path = match self {
            Address::Node(node) => return Some(node.clone()),
            Address::Pci(path) => path,
        };
        let mut bridge = sysfs.join("devices/pci0000:00");
        let mut bus = "0000:00".to_owned();
        for (at, (slot, function)) in path.iter().enumerate() {
            bridge.push(format!("{bus}:{slot:02x}.{function}"));
            if at + 1 < path.len() {
                bus = only_entry(&bridge.join("pci_bus"))?;
            }
        }
        let virtio = entries(&bridge).into_iter().find(|name| name.starts_with("virtio"))?;
        let disk = only_entry(&bridge.join(virtio).join("block"))?;
        Some(Path::new("/dev").join(disk))
    }
}

fn slot(text: &str) -> Option<(u8, u8)> {
    let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
    let is_hex = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if !is_hex(slot, 2) || !is_hex(function, 1) {
        return None;
    }
    let slot = u8::from_str_radix(slot, 16).ok().filter(|slot| *slot < 0x20)?;
    let function = function.parse().ok().filter(|function| *function < 8)?;
    Some((slot, function))
}

fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn only_entry(directory: &Path) -> Option<String> {
    entries(directory).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_disk_is_found_behind_a_bridge() {
        let sysfs = tempfile::tempdir().unwrap();
        let bridge = sysfs.path().join("devices/pci0000:00/0000:00:02.0");
        std::fs::create_dir_all(bridge.join("pci_bus/0000:07")).unwrap();
        std::fs::create_dir_all(bridge.join("0000:07:01.3/virtio4/block/vdq")).unwrap();
        let address = Address::parse("02/01.3").unwrap();
        assert_eq!(address.find(sysfs.path()), Some("/dev/vdq".into()));
        assert_eq!(Address::parse("02/02").unwrap().find(sysfs.path()), None);
    }

    #[test]
    fn addresses_that_are_neither_are_refused() {
        for bad in ["", "/", "/dev/", "/dev/../etc", "20", "01.8", "1//2", "0x1", "vda", "/etc/passwd", "+1"]
        {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
        assert_eq!(Address::parse("1f.7"), Some(Address::Pci(vec![(0x1f, 7)])));
        let error = wait_for("vda", Duration::ZERO).unwrap_err();
        assert!(matches!(error, DeviceError::BadAddress(_)));
    }

    #[test]
    fn a_device_that_never_comes_is_a_timeout() {
        let error = wait_for("/dev/no-such-disk", Duration::from_millis(30)).unwrap_err();
        assert!(matches!(error, DeviceError::Timeout { .. }));
    }

    proptest! {
        #[test]
        fn no_address_panics(text in ".{0,20}") {
            if let Some(address) = Address::parse(&text) {
                drop(address.find(Path::new("/nonexistent")));
            }
        }
    }
}
