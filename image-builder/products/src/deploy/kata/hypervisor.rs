//! The VMMs that the shims start, and what each of them is called where.

use std::fmt;

use store::arch::Arch;

use super::base::{Base, Shim};

/// Which VMM the shim starts. What it is called in the configuration depends on the shim and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Hypervisor {
    /// QEMU, by both shims.
    #[default]
    Qemu,
    /// Cloud Hypervisor, by both shims.
    #[value(alias = "clh")]
    CloudHypervisor,
    /// Dragonball, by runtime-rs.
    Dragonball,
    /// Firecracker, by both shims.
    #[value(alias = "fc")]
    Firecracker,
}

impl fmt::Display for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qemu => "QEMU",
            Self::CloudHypervisor => "Cloud Hypervisor",
            Self::Dragonball => "Dragonball",
            Self::Firecracker => "Firecracker",
        })
    }
}

impl Hypervisor {
    /// What its table may be called.
    pub(super) fn names(self) -> &'static [&'static str] {
        match self {
            Self::Qemu => &["qemu"],
            Self::CloudHypervisor => &["clh", "cloud-hypervisor"],
            Self::Dragonball => &["dragonball"],
            Self::Firecracker => &["firecracker"],
        }
    }

    /// The name of its table in this configuration. runtime-rs reads the one that `hypervisor_name` says, and only that.
    pub(super) fn table(self, base: &Base) -> Option<&str> {
        let is_there = |name: &&str| base.hypervisor(name).is_some();
        match (base.shim, base.hypervisor_name()) {
            (Shim::Go, _) => self.names().first().copied().filter(is_there),
            (Shim::Rust, Some(name)) => {
                self.names().iter().copied().find(|known| *known == name).filter(is_there)
            }
            (Shim::Rust, None) => self.names().iter().copied().find(is_there),
        }
    }

    /// What kata-deploy and releases call its configuration, between `configuration-` and `.toml`.
    pub(super) fn file_names(self, shim: Shim) -> &'static [&'static str] {
        match (shim, self) {
            (Shim::Go, Self::Qemu) => &["qemu"],
            (Shim::Go, Self::CloudHypervisor) => &["clh"],
            (Shim::Go, Self::Firecracker) => &["fc"],
            (Shim::Go, Self::Dragonball) => &[],
            (Shim::Rust, Self::Qemu) => &["qemu-runtime-rs"],
            (Shim::Rust, Self::CloudHypervisor) => &["clh-runtime-rs", "cloud-hypervisor"],
            (Shim::Rust, Self::Dragonball) => &["dragonball"],
            (Shim::Rust, Self::Firecracker) => &["rs-fc", "fc-rs"],
        }
    }

    /// The form of the kernel. On x86_64 only QEMU loads a bzImage; all load the ELF file, but QEMU's users are used to the
    /// smaller one. On Arm all load the same.
    pub(super) fn kernel(self, arch: Arch) -> &'static str {
        match arch {
            Arch::X86_64 if self != Self::Qemu => "vmlinux",
            _ => arch.image(),
        }
    }

    /// How runtime-rs is told to attach a disk that the kernel finds as its root. Its own choice for QEMU is an NVDIMM.
    pub(super) fn root_driver(self) -> &'static str {
        match self {
            Self::Qemu | Self::CloudHypervisor => "virtio-blk-pci",
            Self::Dragonball | Self::Firecracker => "virtio-blk-mmio",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_arm_all_load_the_same_kernel() {
        let kernels = |arch| [Hypervisor::Qemu, Hypervisor::Firecracker].map(|one| one.kernel(arch));
        assert_eq!(kernels(Arch::X86_64), ["vmlinuz", "vmlinux"]);
        assert_eq!(kernels(Arch::Aarch64), ["Image", "Image"]);
    }
}
