//! The tables that say where on a disk its partitions are: MBR, as Kata's shims expect, and GPT.
//!
//! Promises that a table depends on nothing but its arguments: no random names, no times. Must never write anything but
//! tables; what lies in a partition is the caller's.

use std::collections::BTreeMap;
use std::io::Cursor;

use gpt::disk::LogicalBlockSize;
use gpt::mbr::{PartRecord, ProtectiveMBR};
use gpt::partition::Partition;
use gpt::{GptConfig, GptError};
use uuid::Uuid;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Partitions begin and end at multiples of this; the first one here.
pub const ALIGNMENT: u64 = 1 << 20;
/// Type of a partition with a Linux file system, in an MBR.
const MBR_LINUX: u8 = 0x83;
/// Places of a partition in sectors that do not fit the old notation say so by this.
const CHS_BEYOND: [u8; 3] = [0xfe, 0xff, 0xff];

/// Why a disk could not get its table.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// The disk is too large, or has too many partitions.
    #[error("an MBR describes up to 4 partitions below 2 TiB; use the layout `gpt` for more")]
    Mbr,
    /// The library refused.
    #[error("cannot write the partition table")]
    Gpt(#[from] GptError),
    /// The MBR in front of a GPT could not be written.
    #[error("cannot write the protective MBR")]
    Protective(#[from] gpt::mbr::MBRError),
}

/// Where a partition is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its first byte.
    pub start: u64,
    /// Its length.
    pub len: u64,
}

/// What a partition of a GPT is for (the Discoverable Partitions Specification of the UAPI group).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The root file system of x86-64.
    Root,
    /// The hashes of one.
    RootVerity,
}

impl Role {
    fn kind(self) -> gpt::partition_types::Type {
        let guid = match self {
            Self::Root => Uuid::from_u128(0x4f68bce3_e8cd_4db1_96e7_fbcaf984b709),
            Self::RootVerity => Uuid::from_u128(0x2c7357ed_ebd2_46d9_aec1_23d437ec2bf5),
        };
        gpt::partition_types::Type { guid, os: gpt::partition_types::OperatingSystem::Linux }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Root => "root-x86-64",
            Self::RootVerity => "root-x86-64-verity",
        }
    }
}

/// The first sector of a disk with these partitions. Linux calls the first `PARTUUID=SSSSSSSS-01`, where S is `signature`.
///
/// # Errors
/// [`LabelError::Mbr`] when the format has no place for them.
pub fn mbr(signature: u32, partitions: &[Extent]) -> Result<[u8; 512], LabelError> {
    let mut table = ProtectiveMBR::new();
    table.set_partition(0, PartRecord::zero());
    table.set_disk_signature(signature.to_le_bytes());
    for (index, extent) in partitions.iter().enumerate() {
        let sectors = |bytes: u64| u32::try_from(bytes / SECTOR).map_err(|_| LabelError::Mbr);
        let [start_head, start_sector, start_track] = CHS_BEYOND;
        let [end_head, end_sector, end_track] = CHS_BEYOND;
        let record = PartRecord {
            boot_indicator: 0,
            start_head,
            start_sector,
            start_track,
            os_type: MBR_LINUX,
            end_head,
            end_sector,
            end_track,
            lb_start: sectors(extent.start)?,
            lb_size: sectors(extent.len)?,
        };
        table.set_partition(index, record).ok_or(LabelError::Mbr)?;
    }
    Ok(table.to_bytes())
}

/// Writes a GPT, its copy at the end, and the MBR that guards it, onto `disk`, which must have 17 KiB free at both ends.
///
/// # Errors
/// When the library refuses, which means that partitions lie outside the disk.
pub fn gpt(disk: &mut Vec<u8>, guid: Uuid, partitions: &[(Role, Uuid, Extent)]) -> Result<(), LabelError> {
    let sectors = disk.len() as u64 / SECTOR;
    let mut device = Cursor::new(std::mem::take(disk));
    let guard = ProtectiveMBR::with_lb_size(u32::try_from(sectors - 1).unwrap_or(u32::MAX));
    guard.overwrite_lba0(&mut device)?;
    let config = GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
    let mut table = config.create_from_device(device, Some(guid))?;
    let entries = (1..).zip(partitions).map(|(number, &(role, part_guid, extent))| {
        let first_lba = extent.start / SECTOR;
        let entry = Partition {
            part_type_guid: role.kind(),
            part_guid,
            first_lba,
            last_lba: first_lba + extent.len / SECTOR - 1,
            flags: 1 << 60, // read-only, by the same specification
            name: role.name().to_string(),
        };
        (number, entry)
    });
    table.update_partitions(entries.collect::<BTreeMap<_, _>>())?;
    *disk = table.write()?.into_inner();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const TWO: [Extent; 2] =
        [Extent { start: 1 << 20, len: 3 << 20 }, Extent { start: 4 << 20, len: 1 << 20 }];

    /// What sfdisk reads out of a disk, or nothing where there is no sfdisk.
    fn dump(disk: &[u8]) -> Option<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), disk).unwrap();
        match Command::new("sfdisk").arg("--dump").arg(file.path()).output() {
            Ok(output) => {
                assert!(output.status.success(), "{output:?}");
                Some(String::from_utf8(output.stdout).unwrap())
            }
            Err(error) => {
                eprintln!("skipped: sfdisk (fdisk) does not run: {error}");
                None
            }
        }
    }

    #[test]
    fn an_mbr_is_what_sfdisk_reads() {
        let mut disk = vec![0; 6 << 20];
        disk[..512].copy_from_slice(&mbr(0x1234_abcd, &TWO).unwrap());
        let Some(text) = dump(&disk) else { return };
        assert!(text.contains("label: dos") && text.contains("label-id: 0x1234abcd"), "{text}");
        assert!(text.contains("start=        2048, size=        6144, type=83"), "{text}");
        assert!(text.contains("start=        8192, size=        2048, type=83"), "{text}");
    }

    #[test]
    fn an_mbr_has_bounds() {
        assert!(matches!(mbr(0, &[TWO[0]; 5]), Err(LabelError::Mbr)));
        assert!(matches!(mbr(0, &[Extent { start: 1 << 42, len: 512 }]), Err(LabelError::Mbr)));
    }

    #[test]
    fn a_gpt_is_what_sfdisk_reads_and_the_same_twice() {
        let make = || {
            let mut disk = vec![0; 6 << 20];
            let partitions =
                [(Role::Root, Uuid::from_u128(7), TWO[0]), (Role::RootVerity, Uuid::from_u128(8), TWO[1])];
            gpt(&mut disk, Uuid::from_u128(9), &partitions).unwrap();
            disk
        };
        let disk = make();
        assert!(disk == make());
        assert_eq!(disk.len(), 6 << 20);
        let Some(text) = dump(&disk) else { return };
        assert!(
            text.contains("label: gpt") && text.contains("label-id: 00000000-0000-0000-0000-000000000009"),
            "{text}"
        );
        for part in [
            "start=        2048, size=        6144, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
            "start=        8192, size=        2048, type=2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5",
            "uuid=00000000-0000-0000-0000-000000000007, name=\"root-x86-64\"",
            "name=\"root-x86-64-verity\", attrs=\"GUID:60\"",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
