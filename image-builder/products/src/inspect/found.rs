//! What is found in an image, in the words that all readers share.

use serde::Serialize;

/// Something is wrong at an offset; what file it is about is added above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) what: &'static str,
    pub(super) offset: u64,
}

/// What an image is, and what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// What it is, in a few words.
    pub kind: String,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of what it unpacks to, where that is not the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpacked: Option<u64>,
    /// Partitions of a disk.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Partition>,
    /// Sections of a unified kernel image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<Section>,
    /// The entries of the root file system, sorted by path.
    pub entries: Vec<Entry>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Its name in the table, or its type.
    pub name: String,
    /// What is on it, as far as that can be told.
    pub content: String,
}

/// A section of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its first byte in the file.
    pub start: u64,
    /// Its length in bytes.
    pub size: u64,
    /// What it says, if it is one of words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// An entry of a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its absolute path.
    pub path: String,
    /// Type and permission bits, as `stat` has them.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file.
    pub size: u64,
    /// Where a symbolic link points, or a device's `major:minor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// The kinds of entries, by the bits of their mode.
pub(super) const TYPE: u32 = 0o170_000;
pub(super) const DIRECTORY: u32 = 0o040_000;
pub(super) const REGULAR: u32 = 0o100_000;
pub(super) const SYMLINK: u32 = 0o120_000;
pub(super) const CHARACTER: u32 = 0o020_000;
pub(super) const BLOCK: u32 = 0o060_000;
pub(super) const FIFO: u32 = 0o010_000;
pub(super) const SOCKET: u32 = 0o140_000;

/// Directories deeper than this are damage.
pub(super) const DEPTH: usize = 128;

/// A little-endian number, if the bytes reach that far.
pub(super) fn number<const N: usize>(bytes: &[u8], at: u64) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let field = bytes.get(at..at.checked_add(N)?)?;
    Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}
