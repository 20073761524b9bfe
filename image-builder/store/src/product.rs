//! The products of image-builder, and the names of their files: kernels, programs, initrds, disks and unified kernel images.
//!
//! Promises that no other module builds such a name. Must never touch the file system.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::arch::Arch;
pub use crate::arch::PROFILE;

/// The flavour that ships.
pub const FLAVOUR: &str = "minimal";
/// Programs of the workspace that are products beside the agent.
pub const PROGRAMS: [&str; 2] = ["jail", "probe"];

/// Whether a file of the product directory is one of [`PROGRAMS`], for whichever processor. They are for those who develop; no
/// guest has them.
pub fn is_program(file: &str) -> bool {
    let named = |name: &str, arch| Product::Program(name.to_owned()).file_name(arch) == file;
    PROGRAMS.iter().any(|name| Arch::ALL.iter().any(|arch| named(name, *arch)))
}

/// A product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Product {
    /// One file of a kernel.
    Kernel {
        /// `vmlinuz`, `vmlinux`, `Image`, `config` or `System.map`.
        file: String,
        /// The profile of `kernel-config/`.
        profile: String,
    },
    /// The agent, a static program, with these cargo features.
    Agent(BTreeSet<String>),
    /// Another static program of the workspace.
    Program(String),
    /// An initrd.
    Initrd {
        /// The recipe's name.
        flavour: String,
    },
    /// A disk.
    Disk {
        /// The recipe's name.
        flavour: String,
        /// What it looks like.
        form: Form,
        /// What its root is formatted as.
        root_fs: FileSystem,
    },
    /// A unified kernel image.
    Uki {
        /// The recipe's name of the initrd in it.
        flavour: String,
    },
    /// The list of ingredients.
    Sbom,
}

impl Product {
    /// One file of the kernel of a profile.
    pub fn kernel(file: &str, profile: &str) -> Self {
        Self::Kernel { file: file.to_owned(), profile: profile.to_owned() }
    }

    /// The initrd of a flavour.
    pub fn initrd(flavour: &str) -> Self {
        Self::Initrd { flavour: flavour.to_owned() }
    }

    /// What its file is called for a processor. What ships has the plain name; others have behind it what makes them another,
    /// the processor last. A kernel has no more than its profile, which is of one processor.
    pub fn file_name(&self, arch: Arch) -> String {
        let of = arch.suffix();
        match self {
            Self::Kernel { file, profile } if profile == PROFILE => file.clone(),
            Self::Kernel { file, profile } => format!("{file}-{profile}"),
            Self::Agent(features) => {
                let names = std::iter::once("agent").chain(features.iter().map(String::as_str));
                names.collect::<Vec<_>>().join("-") + of
            }
            Self::Program(name) => format!("{name}{of}"),
            Self::Initrd { flavour } if flavour == FLAVOUR => format!("initrd{of}.img"),
            Self::Initrd { flavour } => format!("initrd-{flavour}{of}.img"),
            Self::Disk { flavour, form, root_fs: FileSystem::Erofs } => {
                format!("disk-{flavour}-{form}{of}.img")
            }
            Self::Disk { flavour, form, root_fs } => format!("disk-{flavour}-{form}-{root_fs}{of}.img"),
            Self::Uki { flavour } => format!("uki-{flavour}{of}.efi"),
            Self::Sbom => "sbom.spdx.json".to_owned(),
        }
    }
}

/// Where the words for the kernel's command line are that belong to a disk.
pub fn cmdline_path(disk: &Path) -> PathBuf {
    disk.with_extension("cmdline")
}

/// What a disk looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, clap::ValueEnum)]
pub enum Form {
    /// As Kata's shims expect it: an MBR, the root in partition 1 at 1 MiB, its hashes in partition 2.
    #[default]
    Kata,
    /// The same after a prefix that lets an NVDIMM map it into the guest (DAX).
    KataDax,
    /// A GPT with the root and its hashes, which are found by their names.
    Gpt,
    /// A GPT with only the root, without hashes.
    Plain,
}

impl Form {
    /// Whether the guest refuses what was changed on it.
    pub fn is_verified(self) -> bool {
        self != Self::Plain
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kata => "kata",
            Self::KataDax => "kata-dax",
            Self::Gpt => "gpt",
            Self::Plain => "plain",
        })
    }
}

/// What the root is formatted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, clap::ValueEnum)]
pub enum FileSystem {
    /// EROFS. All our kernels mount it, and image-builder writes it itself.
    #[default]
    Erofs,
    /// ext4, for kernels with CONFIG_EXT4_FS (of ours: the profile `kata`, not `sandbox`). Needs e2fsprogs.
    Ext4,
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Erofs => "erofs",
            Self::Ext4 => "ext4",
        })
    }
}

/// What `disk --all` makes of every flavour: each form, and of the one for shims the other file system, too.
pub const MADE: [(Form, FileSystem); 5] = [
    (Form::Kata, FileSystem::Erofs),
    (Form::KataDax, FileSystem::Erofs),
    (Form::Gpt, FileSystem::Erofs),
    (Form::Plain, FileSystem::Erofs),
    (Form::Kata, FileSystem::Ext4),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(arch: Arch, flavour: &str, profile: &str, features: &[&str]) -> [String; 7] {
        let (flavour, profile) = (flavour.to_owned(), profile.to_owned());
        let features = features.iter().map(|name| (*name).to_owned()).collect();
        [
            Product::Kernel { file: "vmlinux".into(), profile },
            Product::Agent(features),
            Product::Program("jail".into()),
            Product::Initrd { flavour: flavour.clone() },
            Product::Disk { flavour: flavour.clone(), form: Form::KataDax, root_fs: FileSystem::Erofs },
            Product::Disk { flavour: flavour.clone(), form: Form::Gpt, root_fs: FileSystem::Ext4 },
            Product::Uki { flavour },
        ]
        .map(|product| product.file_name(arch))
    }

    #[test]
    fn what_ships_has_the_plain_name() {
        let shipped = ["vmlinux", "agent", "jail", "initrd.img"];
        assert_eq!(names(Arch::X86_64, "minimal", "kata", &[])[..4], shipped);
        assert_eq!(
            names(Arch::X86_64, "debug", "sandbox", &["b", "a"]),
            [
                "vmlinux-sandbox",
                "agent-a-b",
                "jail",
                "initrd-debug.img",
                "disk-debug-kata-dax.img",
                "disk-debug-gpt-ext4.img",
                "uki-debug.efi"
            ]
        );
    }

    #[test]
    fn another_processor_comes_last_in_a_name() {
        let arm = Arch::Aarch64;
        assert_eq!(
            names(arm, "minimal", arm.profile(), &[]),
            [
                "vmlinux-aarch64",
                "agent-aarch64",
                "jail-aarch64",
                "initrd-aarch64.img",
                "disk-minimal-kata-dax-aarch64.img",
                "disk-minimal-gpt-ext4-aarch64.img",
                "uki-minimal-aarch64.efi"
            ]
        );
        let debug = names(arm, "debug", "mine", &["policy"]);
        assert_eq!(
            debug[..4],
            ["vmlinux-mine", "agent-policy-aarch64", "jail-aarch64", "initrd-debug-aarch64.img"]
        );
        assert!(is_program("jail") && is_program("probe-aarch64") && !is_program("agent-aarch64"));
        assert_eq!(Product::Sbom.file_name(arm), "sbom.spdx.json", "one list has the products of all");
    }
}
