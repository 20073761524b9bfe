//! A disk for what containers write: a file of the host, without a name, that takes only what is written.
//!
//! Promises that the file is gone when this process ends, however it ends, and that it never takes more than its size.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use super::RunError;

/// The smallest one, in bytes.
pub const LEAST: u64 = 16 << 20;
/// The largest one, in bytes.
pub const MOST: u64 = 8 << 40;
/// What the file system is made of, in bytes.
const BLOCK: u64 = 4096;

/// Whether a disk can have this size, in bytes.
///
/// # Errors
/// Says which sizes it can have.
pub fn check(size: u64) -> Result<(), String> {
    if (LEAST..=MOST).contains(&size) {
        Ok(())
    } else {
        Err(format!("a disk of {size} bytes is too small or too large; 16Mi to 8Ti are possible"))
    }
}

/// The disk.
#[derive(Debug)]
pub(super) struct Scratch {
    file: File,
}

impl Scratch {
    /// Makes one with an empty file system, below `place`, which is on a disk of the host.
    pub(super) fn make(place: &Path, size: u64) -> Result<Self, RunError> {
        let failed = |source: io::Error| RunError::io("make", "the disk for what containers write", source);
        check(size).map_err(io::Error::other).map_err(failed)?;
        std::fs::create_dir_all(place).map_err(failed)?;
        let file = tempfile::tempfile_in(place).map_err(failed)?;
        file.set_len(size.next_multiple_of(BLOCK)).map_err(failed)?;
        let scratch = Self { file };
        fs_image::ext4::empty(&scratch.path()).map_err(|error| failed(io::Error::other(error)))?;
        Ok(scratch)
    }

    /// By which other processes can open it as long as this one lives.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_disk_has_no_name_and_takes_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("cache");
        let scratch = Scratch::make(&place, (1 << 30) + 1).unwrap();
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
        let metadata = std::fs::metadata(scratch.path()).unwrap();
        assert_eq!(metadata.len(), (1 << 30) + BLOCK);
        assert!(metadata.blocks() * 512 < 8 << 20);
        assert!(Scratch::make(&place, LEAST - 1).is_err() && Scratch::make(&place, MOST + 1).is_err());
    }
}
