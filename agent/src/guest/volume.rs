//! How full a volume is.

use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Kind};

/// Why a volume could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error("look at volume {}", path.display())]
pub(crate) struct VolumeError {
    path: PathBuf,
    source: std::io::Error,
}

impl Kind for VolumeError {
    fn kind(&self) -> ErrorKind {
        match self.source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Internal,
        }
    }
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
    let stat = rustix::fs::statvfs(path)
        .map_err(|errno| VolumeError { path: path.to_owned(), source: errno.into() })?;
    let bytes = Usage {
        available: stat.f_bavail * stat.f_frsize,
        total: stat.f_blocks * stat.f_frsize,
        used: stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize,
    };
    let inodes = Usage {
        available: stat.f_favail,
        total: stat.f_files,
        used: stat.f_files.saturating_sub(stat.f_ffree),
    };
    Ok((bytes, inodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_bytes_and_a_missing_one_is_named() {
        let (bytes, _) = usage(Path::new("/")).unwrap();
        assert!(bytes.total > 0 && bytes.used <= bytes.total);
        let error = usage(Path::new("/no/such/volume")).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().contains("/no/such/volume")),
            (ErrorKind::NotFound, true)
        );
    }
}
