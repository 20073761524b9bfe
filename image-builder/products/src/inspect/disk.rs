//! Disks with an MBR or a GPT, with a DAX prefix or without.

use std::io::Cursor;

use fs_image::{Entry, ReadError, erofs, ext4};
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;

use super::found::{Inspection, Partition};
use crate::format::dax;
use crate::format::label::SECTOR;

/// What an MBR calls a partition that a GPT describes.
const GUARD: u8 = 0xee;

/// Keeps the entries of the first file system on a disk; one that begins at `start`.
fn take(found: Result<Vec<Entry>, ReadError>, start: u64, entries: &mut Vec<Entry>) -> Result<(), ReadError> {
    let found = found.map_err(|ReadError { what, offset }| ReadError { what, offset: offset + start })?;
    if entries.is_empty() {
        *entries = found;
    }
    Ok(())
}

/// Reads a disk; nothing when there is no table on it.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Inspection>, ReadError> {
    let Some(mbr) =
        bytes.get(..512).and_then(|sector| ProtectiveMBR::from_bytes(sector, LogicalBlockSize::Lb512).ok())
    else {
        return Ok(None);
    };
    let records: Vec<_> = (0..4)
        .filter_map(|index| Some((index, mbr.partition(index)?)))
        .filter(|(_, p)| p.lb_size > 0)
        .collect();
    if records.is_empty() {
        return Ok(None);
    }
    let (mut kind, mut partitions) = if records.iter().any(|(_, record)| record.os_type == GUARD) {
        let table = GptConfig::new().open_from_device(Cursor::new(bytes.to_vec()));
        let table = table.map_err(|_| ReadError { what: "the GPT", offset: SECTOR })?;
        let partition = |(number, entry): (&u32, &gpt::partition::Partition)| Partition {
            number: *number,
            start: entry.first_lba * SECTOR,
            size: (entry.last_lba + 1).saturating_sub(entry.first_lba) * SECTOR,
            name: entry.name.clone(),
            content: String::new(),
        };
        ("disk with a GPT".to_owned(), table.partitions().iter().map(partition).collect::<Vec<_>>())
    } else {
        let partition = |(index, record): &(usize, gpt::mbr::PartRecord)| Partition {
            number: u32::try_from(index + 1).unwrap_or(u32::MAX),
            start: u64::from(record.lb_start) * SECTOR,
            size: u64::from(record.lb_size) * SECTOR,
            name: format!("type 0x{:02x}", record.os_type),
            content: String::new(),
        };
        ("disk with an MBR".to_owned(), records.iter().map(partition).collect())
    };
    if dax::is(bytes) {
        kind += " behind a DAX prefix";
    }
    let mut entries = Vec::new();
    for partition in &mut partitions {
        let (Ok(start), Ok(size)) = (usize::try_from(partition.start), usize::try_from(partition.size))
        else {
            continue;
        };
        let end = start.saturating_add(size).min(bytes.len());
        let content = bytes.get(start..end).unwrap_or_default();
        partition.content = if erofs::is(content) {
            take(erofs::read(content), partition.start, &mut entries)?;
            "EROFS".to_owned()
        } else if ext4::is(content) {
            take(ext4::read(content), partition.start, &mut entries)?;
            "ext4".to_owned()
        } else if content.is_empty() {
            "beyond the end of the disk".to_owned()
        } else {
            "data of another kind (hashes have no mark)".to_owned()
        };
    }
    Ok(Some(Inspection { kind, size: bytes.len() as u64, partitions, entries, ..Inspection::default() }))
}
