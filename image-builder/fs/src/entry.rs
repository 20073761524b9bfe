//! What readers of file systems find: a list of entries.

/// An entry of a file system, as a reader lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Entry {
    /// Its absolute path. Bytes that are not UTF-8 are shown as U+FFFD.
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
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub target: Option<String>,
}

/// A file system that is damaged, or made by somebody who means harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset} is not what it should be")]
pub struct ReadError {
    /// What is wrong.
    pub what: &'static str,
    /// Where, in the bytes that were read.
    pub offset: u64,
}

/// The bits of a mode that say what an entry is (inode(7)); below are their values.
pub const TYPE: u32 = 0o170_000;
/// See [`TYPE`].
pub const DIRECTORY: u32 = 0o040_000;
/// See [`TYPE`].
pub const REGULAR: u32 = 0o100_000;
/// See [`TYPE`].
pub const SYMLINK: u32 = 0o120_000;
/// See [`TYPE`].
pub const CHARACTER: u32 = 0o020_000;
/// See [`TYPE`].
pub const BLOCK: u32 = 0o060_000;
/// See [`TYPE`].
pub const FIFO: u32 = 0o010_000;
/// See [`TYPE`].
pub const SOCKET: u32 = 0o140_000;

/// Directories deeper than this are damage.
pub(crate) const DEPTH: usize = 128;

/// A little-endian number, if the bytes reach that far.
pub(crate) fn number<const N: usize>(bytes: &[u8], at: u64) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let field = bytes.get(at..at.checked_add(N)?)?;
    Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}
