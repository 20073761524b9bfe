//! How the guest ends.

use std::io;
use std::path::Path;

use nix::sys::reboot::{RebootMode, reboot as enter};
use thiserror::Error;

/// The machine goes on although it was told to stop.
#[derive(Debug, Error)]
pub enum PowerError {
    /// Neither powering off nor restarting was possible.
    #[error("power off the machine")]
    PowerOff(#[source] io::Error),
    /// Restarting was not possible.
    #[error("restart the machine")]
    Reboot(#[source] io::Error),
}

/// Writes all file systems back and powers the machine off, without asking any process.
///
/// A kernel that has no way to power off would halt its processors and leave the VMM running for ever; there, and
/// where powering off fails, the machine is restarted instead, which VMMs for containers take as the end.
/// Returns only when nothing worked.
#[must_use]
pub fn power_off() -> PowerError {
    nix::unistd::sync();
    if can_power_off(Path::new("/sys")) {
        // Only an error comes back, and the restart below is the answer to it.
        let Err(_refused) = enter(RebootMode::RB_POWER_OFF);
    }
    match enter(RebootMode::RB_AUTOBOOT) {
        Err(errno) => PowerError::PowerOff(errno.into()),
    }
}

/// Writes all file systems back and restarts the machine. Returns only when that failed.
#[must_use]
pub fn reboot() -> PowerError {
    nix::unistd::sync();
    match enter(RebootMode::RB_AUTOBOOT) {
        Err(errno) => PowerError::Reboot(errno.into()),
    }
}

/// Whether RB_POWER_OFF ends the machine. On x86 that takes ACPI (a microvm may have none); other architectures
/// have firmware calls for it.
fn can_power_off(sys: &Path) -> bool {
    !cfg!(any(target_arch = "x86", target_arch = "x86_64")) || sys.join("firmware/acpi/tables").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn without_acpi_tables_there_is_no_power_off() {
        let sys = tempfile::tempdir().unwrap();
        assert!(!can_power_off(sys.path()));
        std::fs::create_dir_all(sys.path().join("firmware/acpi/tables")).unwrap();
        assert!(can_power_off(sys.path()));
    }
}
