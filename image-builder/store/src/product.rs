//! The products of image-builder, and the names of their files: kernels, programs, initrds, disks and unified kernel images.
//!
//! Promises that no other module builds such a name. Must never touch the file system.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// The flavour that ships.
pub const FLAVOUR: &str = "minimal";
/// The kernel's profile that ships, and that is built when none is named.
pub const PROFILE: &str = "kata";
/// Programs of the workspace that are products beside the agent.
pub const PROGRAMS: [&str; 2] = ["jail", "probe"];

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

    /// What its file is called. What ships has the plain name; others have behind it what makes them another.
    pub fn file_name(&self) -> String {
        match self {
            Self::Kernel { file, profile } if profile == PROFILE => file.clone(),
            Self::Kernel { file, profile } => format!("{file}-{profile}"),
            Self::Agent(features) => {
                let names = std::iter::once("agent").chain(features.iter().map(String::as_str));
                names.collect::<Vec<_>>().join("-")
            }
            Self::Program(name) => name.clone(),
            Self::Initrd { flavour } if flavour == FLAVOUR => "initrd.img".to_owned(),
            Self::Initrd { flavour } => format!("initrd-{flavour}.img"),
            Self::Disk { flavour, form, root_fs: FileSystem::Erofs } => format!("disk-{flavour}-{form}.img"),
            Self::Disk { flavour, form, root_fs } => format!("disk-{flavour}-{form}-{root_fs}.img"),
            Self::Uki { flavour } => format!("uki-{flavour}.efi"),
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

    #[test]
    fn what_ships_has_the_plain_name() {
        let names = |flavour: &str, profile: &str, features: &[&str]| {
            let (flavour, profile) = (flavour.to_owned(), profile.to_owned());
            let features = features.iter().map(|name| (*name).to_owned()).collect();
            [
                Product::Kernel { file: "vmlinuz".into(), profile },
                Product::Agent(features),
                Product::Initrd { flavour: flavour.clone() },
                Product::Disk { flavour: flavour.clone(), form: Form::KataDax, root_fs: FileSystem::Erofs },
                Product::Disk { flavour: flavour.clone(), form: Form::Gpt, root_fs: FileSystem::Ext4 },
                Product::Uki { flavour },
            ]
            .map(|product| product.file_name())
        };
        let shipped = ["vmlinuz", "agent", "initrd.img"];
        assert_eq!(names("minimal", "kata", &[])[..3], shipped);
        assert_eq!(
            names("debug", "sandbox", &["b", "a"]),
            [
                "vmlinuz-sandbox",
                "agent-a-b",
                "initrd-debug.img",
                "disk-debug-kata-dax.img",
                "disk-debug-gpt-ext4.img",
                "uki-debug.efi"
            ]
        );
    }
}
