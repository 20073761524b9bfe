//! How the guest ends.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot as enter};
use thiserror::Error;

use crate::{acpi, psci};

/// Most bytes of one table or property that are read: those of a machine with 1,024 processors have some 200 KiB.
const LARGEST_TABLE: u64 = 4 << 20;
/// How long file systems may take to be written back at the end.
const SYNC: Duration = Duration::from_secs(10);
/// ACPI tables, and the one with the fixed facts, below sysfs.
const TABLES: &str = "firmware/acpi/tables";
const FADT: &str = "FACP";
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
        const OURS: Architecture =
            if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86 };
        End::by(OURS, Path::new("/sys"))
    }

    fn by(architecture: Architecture, sys: &Path) -> End {
        let can_power_off = match architecture {
            Architecture::X86 => x86_can_power_off(sys),
            Architecture::Aarch64 => aarch64_can_power_off(sys),
        };
        if can_power_off { End::PowerOff } else { End::Restart }
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

/// Whose kernel it is that ends the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Architecture {
    X86,
    Aarch64,
}

/// On x86 powering off takes ACPI or EFI.
fn x86_can_power_off(sys: &Path) -> bool {
    let tables = sys.join(TABLES);
    let fadt = read_table(&tables.join(FADT));
    let blocks: Vec<Vec<u8>> =
        definition_blocks(&tables).iter().filter_map(|path| read_table(path)).collect();
    acpi::can_power_off(fadt.as_deref(), blocks.iter().map(Vec::as_slice), has_efi_services(sys))
}

/// On 64-bit Arm it takes PSCI, which the device tree or ACPI tells of, or EFI.
fn aarch64_can_power_off(sys: &Path) -> bool {
    let node = sys.join("firmware/devicetree/base/psci");
    let property = |name: &str| read_table(&node.join(name));
    let by_tree = property("compatible")
        .is_some_and(|compatible| psci::can_power_off(&compatible, property("status").as_deref()));
    let by_acpi = || read_table(&sys.join(TABLES).join(FADT)).is_some_and(|fadt| acpi::has_psci(&fadt));
    by_tree || by_acpi() || has_efi_services(sys)
}

fn has_efi_services(sys: &Path) -> bool {
    sys.join("firmware/efi").exists()
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

/// The beginning of a table or a property; none where there is none or it cannot be read.
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
mod tests {
    use super::Architecture::{Aarch64, X86};
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
        assert_eq!(End::by(X86, sys.path()), End::Restart);
        let tables = sys.path().join("firmware/acpi/tables");
        std::fs::create_dir_all(&tables).unwrap();
        assert_eq!(End::by(X86, sys.path()), End::Restart);
        std::fs::write(tables.join("FACP"), fadt()).unwrap();
        std::fs::write(tables.join("DSDT"), block(b"")).unwrap();
        assert_eq!(End::by(X86, sys.path()), End::Restart);
        std::fs::write(tables.join("APIC"), block(b"\x08_S5_\x12\x06\x04")).unwrap();
        assert_eq!(End::by(X86, sys.path()), End::Restart, "only definition blocks define");
        std::fs::write(tables.join("SSDT2"), block(b"\x08_S5_\x12\x06\x04")).unwrap();
        assert_eq!(End::by(X86, sys.path()), End::PowerOff);
        std::fs::remove_file(tables.join("FACP")).unwrap();
        assert_eq!(End::by(X86, sys.path()), End::Restart);
    }

    #[test]
    fn what_cannot_be_read_is_not_there() {
        let sys = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(sys.path().join("firmware/acpi/tables/FACP")).unwrap();
        std::fs::create_dir_all(sys.path().join("firmware/acpi/tables/DSDT")).unwrap();
        assert_eq!(End::by(X86, sys.path()), End::Restart);
        assert_eq!(End::by(Aarch64, sys.path()), End::Restart);
    }

    /// A node of a device tree, as sysfs shows it.
    fn node(sys: &Path, compatible: &[u8]) -> PathBuf {
        let node = sys.join("firmware/devicetree/base/psci");
        std::fs::create_dir_all(&node).unwrap();
        std::fs::write(node.join("compatible"), compatible).unwrap();
        node
    }

    #[test]
    fn psci_of_the_device_tree_powers_arm_off() {
        let sys = tempfile::tempdir().unwrap();
        // Neither way is known: a halt would keep the VMM running, a restart may end it.
        assert_eq!(End::by(Aarch64, sys.path()), End::Restart);
        let node = node(sys.path(), b"arm,psci-1.0\0arm,psci-0.2\0arm,psci\0");
        assert_eq!(End::by(Aarch64, sys.path()), End::PowerOff);
        assert_eq!(End::by(X86, sys.path()), End::Restart, "x86 has no PSCI");
        std::fs::write(node.join("status"), "disabled\0").unwrap();
        assert_eq!(End::by(Aarch64, sys.path()), End::Restart);
    }

    #[test]
    fn acpi_and_efi_power_arm_off_too() {
        let sys = tempfile::tempdir().unwrap();
        let tables = sys.path().join("firmware/acpi/tables");
        std::fs::create_dir_all(&tables).unwrap();
        std::fs::write(tables.join("FACP"), fadt()).unwrap();
        std::fs::write(tables.join("DSDT"), block(b"\x08_S5_\x12\x06\x04")).unwrap();
        assert_eq!(End::by(Aarch64, sys.path()), End::Restart, "arm has no such registers");
        let mut with_psci = fadt();
        with_psci[129] = 1;
        std::fs::write(tables.join("FACP"), with_psci).unwrap();
        assert_eq!(End::by(Aarch64, sys.path()), End::PowerOff);
        std::fs::remove_file(tables.join("FACP")).unwrap();
        std::fs::create_dir_all(sys.path().join("firmware/efi")).unwrap();
        assert_eq!(End::by(Aarch64, sys.path()), End::PowerOff);
    }
}
