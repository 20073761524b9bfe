//! Volumes: where they are and how full.
//!
//! A volume is named by its path in the guest, outside of any container. The path may pass no symbolic link: a
//! container can make links inside a volume, and must not decide by them what the host is told.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, StatVfs};
use rustix::io::Errno;

use crate::error::{ErrorKind, Kind, kind_of_errno};

/// Why a volume could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// The request names no place.
    #[error("volume path {0:?} is not absolute, or has a NUL")]
    Path(PathBuf),
    /// The kernel refused.
    #[error("{operation} volume {path:?}{}", hint(source))]
    Kernel {
        /// What was being done.
        operation: &'static str,
        /// What the request named.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

fn hint(error: &std::io::Error) -> &'static str {
    let is_loop = error.raw_os_error() == Some(nix::libc::ELOOP);
    if is_loop { " (its path may pass no symbolic link)" } else { "" }
}

impl Kind for VolumeError {
    fn kind(&self) -> ErrorKind {
        match self {
            VolumeError::Path(_) => ErrorKind::Invalid,
            VolumeError::Kernel { source, .. } => match source.raw_os_error() {
                Some(nix::libc::ENOENT) => ErrorKind::NotFound,
                Some(nix::libc::ELOOP | nix::libc::ENOTDIR | nix::libc::ENAMETOOLONG) => ErrorKind::Invalid,
                errno => kind_of_errno(errno),
            },
        }
    }
}

pub(super) fn failed(path: &Path, operation: &'static str) -> impl FnOnce(Errno) -> VolumeError {
    let path = path.to_owned();
    move |errno| VolumeError::Kernel { operation, path, source: errno.into() }
}

/// Opens what is at a volume's path, without following a link.
pub(super) fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, VolumeError> {
    if !path.is_absolute() || path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(VolumeError::Path(path.to_owned()));
    }
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
        .map_err(failed(path, "find"))
}

/// A quantity of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// What an ordinary user can still use.
    pub(crate) available: u64,
    /// All there is.
    pub(crate) total: u64,
    /// What is in use.
    pub(crate) used: u64,
}

/// Bytes and inodes of the file system at a path (`statvfs(3)`). Blocks while the file system answers.
pub(crate) fn usage(path: &Path) -> Result<(Usage, Usage), VolumeError> {
    let volume = open(path, OFlags::PATH)?;
    let stat = rustix::fs::fstatvfs(volume).map_err(failed(path, "look at"))?;
    Ok(usage_of(&stat))
}

/// The figures are the file system's own, which may be the host's: they are not to be trusted to fit.
fn usage_of(stat: &StatVfs) -> (Usage, Usage) {
    let size = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let bytes = Usage {
        available: size(stat.f_bavail),
        total: size(stat.f_blocks),
        used: size(stat.f_blocks.saturating_sub(stat.f_bfree)),
    };
    let inodes = Usage {
        available: stat.f_favail,
        total: stat.f_files,
        used: stat.f_files.saturating_sub(stat.f_ffree),
    };
    (bytes, inodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &str) -> (ErrorKind, String) {
        let error = usage(Path::new(path)).unwrap_err();
        (error.kind(), error.to_string())
    }

    #[test]
    fn a_volume_has_bytes_and_a_missing_one_is_named() {
        let (bytes, _) = usage(Path::new("/")).unwrap();
        assert!(bytes.total > 0 && bytes.used <= bytes.total);
        let (kind, text) = refused("/no/such/volume");
        assert_eq!((kind, text.contains("/no/such/volume")), (ErrorKind::NotFound, true), "{text}");
    }

    #[test]
    fn a_path_that_cannot_be_a_volumes_is_invalid() {
        let long = format!("/{}", "n".repeat(300));
        for bad in ["", "relative", "./run", "/proc\0", "/proc/version/x", &long, "/proc/self/root"] {
            let (kind, text) = refused(bad);
            assert_eq!(kind, ErrorKind::Invalid, "{bad:?}: {text}");
        }
        let (_, text) = refused("/proc/self");
        assert!(text.contains("symbolic link"), "{text}");
    }

    #[test]
    fn figures_that_do_not_fit_are_cut() {
        let mut stat = rustix::fs::statvfs("/").unwrap();
        (stat.f_frsize, stat.f_blocks, stat.f_bfree, stat.f_bavail) = (1 << 20, u64::MAX, 1, 5);
        (stat.f_files, stat.f_ffree) = (1, 2);
        let (bytes, inodes) = usage_of(&stat);
        assert_eq!(bytes, Usage { available: 5 << 20, total: u64::MAX, used: u64::MAX });
        assert_eq!(inodes.used, 0);
    }
}
