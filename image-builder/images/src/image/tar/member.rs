//! What is read from an archive, before anybody says what it means.

use std::collections::BTreeMap;

use super::sparse::Fragment;

/// Type flags of members.
pub(in crate::image) mod flag {
    /// A file, as old archives mark it.
    pub(in crate::image) const OLD_REGULAR: u8 = 0;
    pub(in crate::image) const REGULAR: u8 = b'0';
    pub(in crate::image) const HARD_LINK: u8 = b'1';
    pub(in crate::image) const SYMLINK: u8 = b'2';
    pub(in crate::image) const CHAR: u8 = b'3';
    pub(in crate::image) const BLOCK: u8 = b'4';
    pub(in crate::image) const DIRECTORY: u8 = b'5';
    pub(in crate::image) const FIFO: u8 = b'6';
    /// A file whose blocks were next to each other.
    pub(in crate::image) const CONTIGUOUS: u8 = b'7';
    /// A file with holes, in GNU tar's old format.
    pub(in crate::image) const GNU_SPARSE: u8 = b'S';
    pub(in crate::image::tar) const GNU_LONG_NAME: u8 = b'L';
    pub(in crate::image::tar) const GNU_LONG_LINK: u8 = b'K';
    pub(in crate::image::tar) const PAX: u8 = b'x';
    pub(in crate::image::tar) const PAX_GLOBAL: u8 = b'g';

    /// Whether members of this type have no content, whatever their header says.
    pub(in crate::image::tar) fn is_header_only(flag: u8) -> bool {
        matches!(flag, HARD_LINK | SYMLINK | CHAR | BLOCK | DIRECTORY | FIFO)
    }
}

/// A member: all that its header and the extension headers in front of it say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::image) struct Member {
    /// One of [`flag`], or anything else.
    pub(in crate::image) flag: u8,
    /// The name as it is written.
    pub(in crate::image) path: Vec<u8>,
    /// What a link leads to.
    pub(in crate::image) link: Vec<u8>,
    pub(in crate::image) mode: i64,
    pub(in crate::image) uid: i64,
    pub(in crate::image) gid: i64,
    /// Seconds since 1970, and nanoseconds, which have the sign of the whole.
    pub(in crate::image) mtime: (i64, i32),
    /// Bytes of the file, holes included.
    pub(in crate::image) size: u64,
    /// Where data is, for a file with holes.
    pub(in crate::image) fragments: Option<Vec<Fragment>>,
    /// Major and minor number of a device.
    pub(in crate::image) device: (i64, i64),
    /// Extended attributes by their full names.
    pub(in crate::image) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where the data is in the archive.
    pub(in crate::image) offset: u64,
}
