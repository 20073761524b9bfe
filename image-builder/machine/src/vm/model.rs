//! Models of machines, and their parts.

use std::path::PathBuf;

use store::arch::Arch;

/// The hardware address of the guest's network interface.
pub const MAC: &str = "52:54:00:70:69:74";

/// Least guest memory in MiB with which the smallest guest (a kernel that ships, the minimal initrd) gets ready. With 40 it
/// does so on some machines, on others the kernel says that it is out of memory; with 32 it ends before it has a console.
pub const LEAST_MEMORY_MIB: u32 = 48;
/// Guest memory in MiB with which every flavour gets ready.
pub(super) const ENOUGH_MEMORY_MIB: u32 = 128;
/// A machine model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Machine {
    /// A PC with PCI Express and ACPI.
    Q35,
    /// No PCI, no ACPI: virtio-mmio devices named on the kernel's command line. Boots fastest.
    #[default]
    Microvm,
    /// Like `microvm`, with ACPI tables that name the devices.
    MicrovmAcpi,
    /// 64-bit Arm with PCI Express, described by a device tree. The only model for guests of that architecture.
    Virt,
}

/// A disk image the guest gets as virtio-blk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The raw image.
    pub path: PathBuf,
    /// Whether the guest may not write to it.
    pub readonly: bool,
    /// What the guest reads as its serial number, at most 20 bytes.
    pub serial: String,
}

/// How the guest's vsock is emulated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum VsockDevice {
    /// By the host's kernel.
    Vhost { cid: u32 },
    /// By a process behind a vhost-user socket.
    VhostUser { socket: PathBuf },
}

/// How virtio devices are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Pci,
    Mmio,
}

impl Machine {
    pub(super) fn transport(self) -> Transport {
        match self {
            Self::Q35 | Self::Virt => Transport::Pci,
            Self::Microvm | Self::MicrovmAcpi => Transport::Mmio,
        }
    }

    /// The architecture of its processors.
    pub fn arch(self) -> Arch {
        match self {
            Self::Q35 | Self::Microvm | Self::MicrovmAcpi => Arch::X86_64,
            Self::Virt => Arch::Aarch64,
        }
    }

    /// The model of an architecture that boots fastest.
    pub fn fastest(arch: Arch) -> Self {
        match arch {
            Arch::X86_64 => Self::Microvm,
            Arch::Aarch64 => Self::Virt,
        }
    }

    /// The model of an architecture into which devices can be plugged while the guest runs.
    pub fn pluggable(arch: Arch) -> Self {
        match arch {
            Arch::X86_64 => Self::Q35,
            Arch::Aarch64 => Self::Virt,
        }
    }

    /// How many virtio devices fit: QEMU 7.2 gives a microvm 8 transports on the first interrupt controller, and
    /// 24 with the second that comes with ACPI; on q35 and virt one bus has 32 slots of which we leave 4 to the machine.
    pub(super) fn device_limit(self) -> usize {
        match self {
            Self::Q35 | Self::Virt => 28,
            Self::Microvm => 8,
            Self::MicrovmAcpi => 24,
        }
    }
}

/// The guest's device node of the disk at `index` of [`VmConfig::disks`](super::VmConfig::disks): the kernel names disks in the order in
/// which it finds them.
pub fn disk_node(index: usize) -> String {
    let letter = |number: usize| char::from(b'a' + u8::try_from(number % 26).unwrap_or_default());
    match index / 26 {
        0 => format!("/dev/vd{}", letter(index)),
        above => format!("/dev/vd{}{}", letter(above - 1), letter(index)),
    }
}
