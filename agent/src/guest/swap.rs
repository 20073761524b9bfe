//! Swap space on devices and files that the host has prepared.
//!
//! The host writes the header of mkswap(8); the guest only switches it on. It stays on until the machine goes off, which
//! does without a swapoff: nothing of it is to be kept.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::device::DeviceError;
use crate::device::address::Address;
use crate::device::watch::DeviceWatch;
use crate::error::{ErrorKind, Kind, kind_of_errno};
use crate::sys;

/// Why there is no such swap space.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwapError {
    /// The request names no place.
    #[error("{0:?} is neither an absolute path nor a PCI path")]
    Source(String),
    /// Its device did not come.
    #[error("swap device")]
    Device(#[from] DeviceError),
    /// The kernel refused.
    #[error("swap on {}{}", path.display(), hint(source))]
    Kernel {
        /// Device or file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(nix::libc::EINVAL) => " (the host makes its header with mkswap)",
        Some(nix::libc::EBUSY) => " (it is in use)",
        _ => "",
    }
}

impl Kind for SwapError {
    fn kind(&self) -> ErrorKind {
        match self {
            SwapError::Source(_) => ErrorKind::Invalid,
            SwapError::Device(error) => error.kind(),
            SwapError::Kernel { source, .. } => match source.raw_os_error() {
                Some(nix::libc::EINVAL | nix::libc::ENOTBLK) => ErrorKind::Invalid,
                Some(nix::libc::ENOENT) => ErrorKind::NotFound,
                Some(nix::libc::EBUSY) => ErrorKind::State,
                errno => kind_of_errno(errno),
            },
        }
    }
}

/// Where swap space is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SwapSource {
    /// Slots from the root bus down to a block device.
    Pci(Vec<u32>),
    /// A device node, which may be yet to come, or a file.
    Path(PathBuf),
}

/// Switches swap space on. Blocks, for the watch's timeout at most while a device is awaited.
pub(crate) fn add(place: &SwapSource, devices: &DeviceWatch) -> Result<(), SwapError> {
    let path = match place {
        SwapSource::Pci(slots) => devices.disk(&Address::disk(&pci_path(slots)?)?)?,
        SwapSource::Path(path) if !path.is_absolute() => {
            return Err(SwapError::Source(path.display().to_string()));
        }
        SwapSource::Path(path) if path.starts_with("/dev") => {
            devices.disk(&Address::node(&path.to_string_lossy())?)?
        }
        SwapSource::Path(path) => path.clone(),
    };
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| SwapError::Source(path.display().to_string()))?;
    sys::swap::on(&name).map_err(|source| SwapError::Kernel { path: path.clone(), source })?;
    tracing::info!(path = %path.display(), "swap space added");
    Ok(())
}

fn pci_path(slots: &[u32]) -> Result<String, SwapError> {
    if slots.is_empty() || slots.iter().any(|slot| *slot > 0x1f) {
        return Err(SwapError::Source(format!("{slots:x?}")));
    }
    Ok(slots.iter().map(|slot| format!("{slot:02x}")).collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_become_a_pci_path() {
        assert_eq!(pci_path(&[2, 0x1f]).unwrap(), "02/1f");
        assert_eq!(pci_path(&[]).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(pci_path(&[0x20]).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn places_that_are_none_are_refused() {
        let devices = DeviceWatch::deaf(std::path::Path::new("/sys"), std::time::Duration::ZERO);
        let refused = |path: &str| add(&SwapSource::Path(path.into()), &devices).unwrap_err().kind();
        assert_eq!(refused(""), ErrorKind::Invalid);
        assert_eq!(refused("swapfile"), ErrorKind::Invalid);
        assert_eq!(refused("/run/a\0b"), ErrorKind::Invalid);
    }
}
