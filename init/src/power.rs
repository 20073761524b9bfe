//! How the guest ends.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot as enter};
use thiserror::Error;

use crate::acpi;

/// Most bytes of one table that are read: those of a machine with 1,024 processors have some 200 KiB.
const LARGEST_TABLE: u64 = 4 << 20;
/// How long file systems may take to be written back at the end.
const SYNC: Duration = Duration::from_secs(10);
/// Most definition blocks that are read.
const MOST_BLOCKS: usize = 64;

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

/// What ends this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The kernel can switch it off.
    PowerOff,
    /// It cannot, and would halt: the processors stop and the VMM runs on. VMMs that offer no way to power off
    /// (Firecracker, QEMU's microvm without ACPI) end when the guest restarts.
    Restart,
}

impl End {
    /// What the tables of this machine say.
    pub fn of_this_machine() -> End {
        End::by(Path::new("/sys"))
    }

    /// On x86 powering off takes ACPI or EFI; other architectures have firmware calls for it.
    fn by(sys: &Path) -> End {
        if !cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
            return End::PowerOff;
        }
        let tables = sys.join("firmware/acpi/tables");
        let fadt = read_table(&tables.join("FACP"));
        let blocks: Vec<Vec<u8>> =
            definition_blocks(&tables).iter().filter_map(|path| read_table(path)).collect();
        let has_efi_services = sys.join("firmware/efi").exists();
        if acpi::can_power_off(fadt.as_deref(), blocks.iter().map(Vec::as_slice), has_efi_services) {
            End::PowerOff
        } else {
            End::Restart
        }
    }

    /// Ends it, without writing anything back. Comes back only with an error. One system call, so that a signal handler may
    /// use it too.
    pub fn now(self) -> nix::Error {
        let mode = match self {
            End::PowerOff => RebootMode::RB_POWER_OFF,
            End::Restart => RebootMode::RB_AUTOBOOT,
        };
        match enter(mode) {
            Err(errno) => errno,
        }
    }
}

/// Writes all file systems back and ends the machine, without asking any process: by powering off where that works, else by
/// restarting. Returns only when nothing worked.
#[must_use]
pub fn power_off() -> PowerError {
    write_back();
    // If an error comes back, the restart below is the answer to it.
    End::of_this_machine().now();
    PowerError::PowerOff(End::Restart.now().into())
}

/// Writes all file systems back and restarts the machine. Returns only when that failed.
#[must_use]
pub fn reboot() -> PowerError {
    write_back();
    PowerError::Reboot(End::Restart.now().into())
}

/// Writes all file systems back, as far as that is done in time: one that hangs must not keep the machine on.
fn write_back() {
    let (told, done) = mpsc::channel();
    let synced = thread::Builder::new().name("sync".into()).spawn(move || {
        nix::unistd::sync();
        // Who waited may have given up.
        told.send(()).ok();
    });
    match synced {
        Ok(_) => drop(done.recv_timeout(SYNC)),
        Err(_) => nix::unistd::sync(),
    }
}

/// The beginning of a table; none where there is no such table or it cannot be read.
fn read_table(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LARGEST_TABLE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The tables with AML code: DSDT, SSDT, SSDT1 and so on.
fn definition_blocks(tables: &Path) -> Vec<PathBuf> {
    let entries = tables.read_dir().into_iter().flatten().filter_map(Result::ok);
    let is_block = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        name.starts_with(b"DSDT") || name.starts_with(b"SSDT")
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_block).collect();
    paths.sort();
    paths.truncate(MOST_BLOCKS);
    paths
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;

    /// A FADT with a PM1a control block, not reduced.
    fn fadt() -> Vec<u8> {
        let mut table = vec![0; 244];
        table[4] = 244;
        table[64] = 4;
        table[65] = 6;
        table
    }

    fn block(aml: &[u8]) -> Vec<u8> {
        let mut table = vec![0; 36];
        table.extend(aml);
        table[4] = u8::try_from(table.len()).unwrap();
        table
    }

    #[test]
    fn tables_alone_are_no_power_off() {
        let sys = tempfile::tempdir().unwrap();
        assert_eq!(End::by(sys.path()), End::Restart);
        let tables = sys.path().join("firmware/acpi/tables");
        std::fs::create_dir_all(&tables).unwrap();
        assert_eq!(End::by(sys.path()), End::Restart);
        std::fs::write(tables.join("FACP"), fadt()).unwrap();
        std::fs::write(tables.join("DSDT"), block(b"")).unwrap();
        assert_eq!(End::by(sys.path()), End::Restart);
        std::fs::write(tables.join("APIC"), block(b"\x08_S5_\x12\x06\x04")).unwrap();
        assert_eq!(End::by(sys.path()), End::Restart, "only definition blocks define");
        std::fs::write(tables.join("SSDT2"), block(b"\x08_S5_\x12\x06\x04")).unwrap();
        assert_eq!(End::by(sys.path()), End::PowerOff);
        std::fs::remove_file(tables.join("FACP")).unwrap();
        assert_eq!(End::by(sys.path()), End::Restart);
    }

    #[test]
    fn what_cannot_be_read_is_not_there() {
        let sys = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(sys.path().join("firmware/acpi/tables/FACP")).unwrap();
        std::fs::create_dir_all(sys.path().join("firmware/acpi/tables/DSDT")).unwrap();
        assert_eq!(End::by(sys.path()), End::Restart);
    }
}
