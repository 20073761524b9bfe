//! Volumes that grow while containers use them.
//!
//! The host has grown the volume's disk, or is about to; the file system on it follows, mounted as it is (`ext4(5)`,
//! online). Promises that a volume that cannot be grown stays what it was. Must never shrink one.

use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, OFlags, StatxAttributes, StatxFlags};

use super::volume::{self, VolumeError};
use crate::error::{ErrorKind, Kind, kind_of_errno};
use crate::sys;

/// `statfs(2)`'s type of ext2, ext3 and ext4, which one driver of the kernel serves.
const EXT4: i64 = 0xef53;
/// Unit of a device's size in sysfs, whatever its own sectors are.
const SECTOR: u64 = 512;
/// How often the device's size is looked at while it is to grow.
const POLL: Duration = Duration::from_millis(10);

/// Why a volume was not resized.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResizeError {
    /// It cannot be looked at.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A directory of some file system.
    #[error("nothing is mounted on {0:?}")]
    NotMounted(PathBuf),
    /// Not a file system that can be resized here.
    #[error("what is mounted on {path:?} cannot be resized: it is not ext4 (statfs type {kind:#x})")]
    FileSystem {
        /// The volume.
        path: PathBuf,
        /// What it is.
        kind: i64,
    },
    /// The device is too small, and did not grow.
    #[error(
        "the device of {path:?} has {size} bytes after {} ms, {wanted} are wanted",
        waited.as_millis()
    )]
    Device {
        /// The volume.
        path: PathBuf,
        /// Bytes that the device has.
        size: u64,
        /// Bytes that it should have.
        wanted: u64,
        /// For how long it was looked at.
        waited: Duration,
    },
    /// sysfs does not tell the device's size.
    #[error("read the size of the device of {path:?} from {}", file.display())]
    Size {
        /// The volume.
        path: PathBuf,
        /// Where.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file system refused.
    #[error("resize {path:?} to {blocks} blocks of {block} bytes{}", hint(source))]
    Kernel {
        /// The volume.
        path: PathBuf,
        /// Size of a block.
        block: u64,
        /// How many it was to have.
        blocks: u64,
        /// Why it failed.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(nix::libc::EINVAL) => " (a file system that is in use cannot shrink)",
        Some(nix::libc::EPERM) => " (a file system with errors must be checked first)",
        _ => "",
    }
}

impl Kind for ResizeError {
    fn kind(&self) -> ErrorKind {
        match self {
            ResizeError::Volume(error) => error.kind(),
            ResizeError::NotMounted(_) => ErrorKind::Invalid,
            ResizeError::FileSystem { .. } => ErrorKind::Unsupported,
            ResizeError::Device { .. } => ErrorKind::Timeout,
            ResizeError::Size { .. } => ErrorKind::Internal,
            ResizeError::Kernel { source, .. } => match source.raw_os_error() {
                Some(nix::libc::EINVAL) => ErrorKind::Invalid,
                Some(nix::libc::EROFS | nix::libc::EPERM) => ErrorKind::State,
                Some(nix::libc::EBUSY) => ErrorKind::Busy,
                Some(nix::libc::EOPNOTSUPP | nix::libc::ENOTTY) => ErrorKind::Unsupported,
                errno => kind_of_errno(errno),
            },
        }
    }
}

/// Grows the file system mounted on `path` to `size` bytes, rounded down to its blocks; 0 is all of its device. Blocks:
/// for `timeout` at most until the device is large enough, since the guest learns of a disk's growth by an interrupt
/// that the request may overtake, and then while the file system works.
pub(crate) fn grow(path: &Path, size: u64, timeout: Duration) -> Result<(), ResizeError> {
    let volume = volume::open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let facts = rustix::fs::statx(&volume, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
        .map_err(volume::failed(path, "look at"))?;
    if !facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(ResizeError::NotMounted(path.to_owned()));
    }
    let stat = rustix::fs::fstatfs(&volume).map_err(volume::failed(path, "look at"))?;
    if stat.f_type != EXT4 {
        return Err(ResizeError::FileSystem { path: path.to_owned(), kind: stat.f_type });
    }
    let device = format!("/sys/dev/block/{}:{}/size", facts.stx_dev_major, facts.stx_dev_minor);
    let available = device_size(path, Path::new(&device), size, timeout)?;
    let block = u64::try_from(stat.f_bsize).unwrap_or_default().max(1);
    let blocks = if size == 0 { available } else { size } / block;
    let failed = |source| ResizeError::Kernel { path: path.to_owned(), block, blocks, source };
    // Linux 6.12 looks for the last block before it compares the sizes, and for 0 blocks that is block -1.
    if blocks < stat.f_blocks {
        return Err(failed(io::Error::from_raw_os_error(nix::libc::EINVAL)));
    }
    sys::ext4::grow(volume.as_fd(), blocks).map_err(failed)?;
    tracing::info!(path = %path.display(), bytes = blocks * block, "volume resized");
    Ok(())
}

/// Bytes of a volume's device, once they are `wanted` or more.
fn device_size(path: &Path, file: &Path, wanted: u64, timeout: Duration) -> Result<u64, ResizeError> {
    let start = Instant::now();
    loop {
        let sectors = std::fs::read_to_string(file)
            .and_then(|text| text.trim().parse::<u64>().map_err(io::Error::other))
            .map_err(|source| ResizeError::Size { path: path.to_owned(), file: file.to_owned(), source })?;
        let size = sectors.saturating_mul(SECTOR);
        let waited = start.elapsed();
        if size >= wanted {
            return Ok(size);
        }
        if waited >= timeout {
            return Err(ResizeError::Device { path: path.to_owned(), size, wanted, waited });
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> (ErrorKind, String) {
        let error = grow(path, 0, Duration::ZERO).unwrap_err();
        (error.kind(), error.to_string())
    }

    #[test]
    fn only_mounted_file_systems_that_can_grow_are_touched() {
        let directory = tempfile::tempdir().unwrap();
        let (kind, text) = refused(directory.path());
        assert_eq!((kind, text.starts_with("nothing is mounted on")), (ErrorKind::Invalid, true), "{text}");
        let (kind, text) = refused(Path::new("/proc"));
        assert_eq!((kind, text.contains("0x9fa0")), (ErrorKind::Unsupported, true), "{text}");
        assert_eq!(refused(&directory.path().join("none")).0, ErrorKind::NotFound);
        assert_eq!(refused(Path::new("/proc/version")).0, ErrorKind::Invalid);
        assert_eq!(refused(Path::new("proc")).0, ErrorKind::Invalid);
    }

    #[test]
    fn a_device_is_waited_for_until_it_is_large_enough() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("size");
        let size = |wanted, timeout| device_size(Path::new("/v"), &file, wanted, timeout);
        assert_eq!(size(0, Duration::ZERO).unwrap_err().kind(), ErrorKind::Internal);
        std::fs::write(&file, "8\n").unwrap();
        assert_eq!(size(4096, Duration::ZERO).unwrap(), 4096);
        let error = size(4097, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("has 4096 bytes"), "{error}");
        // Renamed into place, so that no reader sees half of it.
        std::fs::write(directory.path().join("new"), "16\n").unwrap();
        let grown = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| size(8192, Duration::from_secs(60)));
            std::fs::rename(directory.path().join("new"), &file).unwrap();
            waiting.join().unwrap()
        });
        assert_eq!(grown.unwrap(), 8192);
    }
}
