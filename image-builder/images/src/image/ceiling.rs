//! How large an image may become.

use std::io;

/// The most that an image may unpack to: one of a few kilobytes can grow until a disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// Bytes of all files of all layers together.
    pub bytes: u64,
    /// Files, directories and everything else that has an inode.
    pub entries: usize,
}

impl Default for Ceiling {
    /// 64 GiB, four million entries.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000 }
    }
}

impl Ceiling {
    pub(super) fn reached(self) -> io::Error {
        io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it unpacks to more than {} bytes; --max-unpacked raises that ceiling", self.bytes),
        )
    }
}
