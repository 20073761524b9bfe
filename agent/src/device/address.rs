//! Where a disk is, as a shim says it: a node, a PCI path, a SCSI address.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::pci::PciPath;
use super::{DeviceError, entries, only_entry};

/// How a disk is found. Each kind matches one disk or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// By its node, as the guest's kernel names it: `/dev/vda`.
    Node(PathBuf),
    /// By the place its virtio device is plugged in.
    Pci(PciPath),
    /// By target and unit of a virtio-scsi controller, on channel 0 of any of them.
    Scsi {
        /// 0 to 255.
        target: u8,
        /// 0 to 16383 (virtio specification, "SCSI host device").
        lun: u16,
    },
}

impl Address {
    /// Where a disk of this kind is, as storages and devices call it: by its node (`mmioblk`), as persistent memory
    /// (`nvdimm`), on a SCSI controller (`scsi`). Any other is a disk on PCI (`blk`).
    pub(crate) fn parse(kind: &str, text: &str) -> Result<Address, DeviceError> {
        match kind {
            "mmioblk" => Address::node(text),
            "nvdimm" => Address::pmem(text),
            "scsi" => Address::scsi(text),
            _ => Address::disk(text),
        }
    }

    /// A PCI path, or a node.
    pub(crate) fn disk(text: &str) -> Result<Address, DeviceError> {
        match text.parse::<PciPath>() {
            Ok(path) => Ok(Address::Pci(path)),
            Err(_) => Address::node(text).map_err(|_| bad(text, "a PCI path such as 02/01, or a /dev path")),
        }
    }

    /// A node below `/dev`.
    pub(crate) fn node(text: &str) -> Result<Address, DeviceError> {
        let name = text.strip_prefix("/dev/").unwrap_or_default();
        let is_plain = !name.is_empty() && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let node = is_plain.then(|| Address::Node(text.into()));
        node.ok_or_else(|| bad(text, "a /dev path"))
    }

    /// The node of persistent memory, `/dev/pmemN`.
    fn pmem(text: &str) -> Result<Address, DeviceError> {
        let number = text.strip_prefix("/dev/pmem").unwrap_or_default();
        let is_one = (1..=4).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        if is_one { Ok(Address::Node(text.into())) } else { Err(bad(text, "/dev/pmemN")) }
    }

    /// `TARGET:LUN`, decimal.
    fn scsi(text: &str) -> Result<Address, DeviceError> {
        let number =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok());
        let parse = || {
            let (target, lun) = text.split_once(':')?;
            let target = number(target).flatten().and_then(|target| u8::try_from(target).ok())?;
            Some(Address::Scsi { target, lun: number(lun).flatten().filter(|lun| *lun < 1 << 14)? })
        };
        parse().ok_or_else(|| bad(text, "a SCSI address such as 0:1"))
    }

    /// The disk's node, if it is there now.
    pub(super) fn find(&self, sys: &Path) -> Option<PathBuf> {
        let node = match self {
            Address::Node(node) => node.clone(),
            Address::Pci(path) => Path::new("/dev").join(path.disk_name(sys)?),
            Address::Scsi { target, lun } => Path::new("/dev").join(scsi_disk(sys, *target, *lun)?),
        };
        is_usable(&node).then_some(node)
    }

    /// Has the guest's kernel look for it where it does not look of its own accord.
    pub(super) fn ask(&self, sys: &Path) {
        let Address::Scsi { target, lun } = self else { return };
        for host in entries(&sys.join("class/scsi_host")) {
            let scan = sys.join("class/scsi_host").join(host).join("scan");
            if let Err(error) = std::fs::write(&scan, format!("0 {target} {lun}")) {
                tracing::warn!(path = %scan.display(), %error, "a SCSI host does not look for its disk");
            }
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Node(node) => write!(out, "{}", node.display()),
            Address::Pci(path) => write!(out, "PCI path {path}"),
            Address::Scsi { target, lun } => write!(out, "SCSI target {target}, unit {lun}"),
        }
    }
}

/// The kernel makes a disk's node a moment before the disk can be opened.
fn is_usable(node: &Path) -> bool {
    let is_disk = node.metadata().is_ok_and(|node| node.file_type().is_block_device());
    let opened = || std::fs::File::open(node).map_err(|error| error.raw_os_error());
    is_disk && !matches!(opened(), Err(Some(nix::libc::ENXIO | nix::libc::ENODEV)))
}

fn bad(text: &str, expected: &'static str) -> DeviceError {
    DeviceError::BadAddress { text: text.to_owned(), expected }
}

/// Devices of class `scsi_device` are named `HOST:CHANNEL:TARGET:LUN`; of several hosts the first counts.
fn scsi_disk(sys: &Path, target: u8, lun: u16) -> Option<String> {
    let class = sys.join("class/scsi_device");
    let is_it = |name: &String| {
        let place = name.split_once(':').map(|(_, place)| place);
        place == Some(format!("0:{target}:{lun}").as_str())
    };
    let device = entries(&class).into_iter().find(is_it)?;
    only_entry(&class.join(device).join("device/block"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_of_each_kind() {
        assert!(matches!(Address::disk("02/01"), Ok(Address::Pci(_))));
        assert!(matches!(Address::disk("1f.7"), Ok(Address::Pci(_))));
        assert_eq!(Address::disk("/dev/vda").unwrap(), Address::Node("/dev/vda".into()));
        for bad in ["", "/", "/dev/", "/dev/../etc", "20", "01.8", "1//2", "0x1", "vda", "/etc/passwd", "+1"]
        {
            assert!(Address::disk(bad).is_err(), "{bad}");
        }
        assert_eq!(Address::scsi("255:16383").unwrap(), Address::Scsi { target: 255, lun: 16383 });
        for bad in ["", ":", "0", "0:", "256:0", "0:16384", "+1:0", "1:-1", "0:0:1:2", "a:b"] {
            assert!(Address::scsi(bad).is_err(), "{bad}");
        }
        assert!(Address::pmem("/dev/pmem0").is_ok());
        for bad in ["/dev/pmem", "/dev/pmem0s", "/dev/pmem0/../vda", "/dev/vda", "pmem0"] {
            assert!(Address::pmem(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scsi_disk_is_matched_exactly() {
        let sys = tempfile::tempdir().unwrap();
        let devices = [("2:0:0:1", "sda"), ("2:0:0:11", "sdb"), ("2:0:10:1", "sdc"), ("2:1:0:2", "sdd")];
        for (device, disk) in devices {
            let directory = sys.path().join("class/scsi_device").join(device).join("device/block").join(disk);
            std::fs::create_dir_all(directory).unwrap();
        }
        assert_eq!(scsi_disk(sys.path(), 0, 1).as_deref(), Some("sda"));
        assert_eq!(scsi_disk(sys.path(), 0, 11).as_deref(), Some("sdb"));
        assert_eq!(scsi_disk(sys.path(), 10, 1).as_deref(), Some("sdc"));
        assert_eq!(scsi_disk(sys.path(), 0, 2), None, "another channel");
        let host = sys.path().join("class/scsi_host/host2");
        std::fs::create_dir_all(&host).unwrap();
        Address::scsi("3:7").unwrap().ask(sys.path());
        assert_eq!(std::fs::read_to_string(host.join("scan")).unwrap(), "0 3 7");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,20}") {
            for parse in [Address::disk, Address::node, Address::pmem, Address::scsi] {
                if let Ok(address) = parse(&text) {
                    drop(address.find(Path::new("/nonexistent")));
                }
            }
        }
    }
}
