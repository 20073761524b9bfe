//! What differs between processors when a kernel is built. What it is built from is in the fragments.

use std::fmt;

use serde::Deserialize;

use crate::program::Program;

/// A processor architecture that guests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Arch {
    /// 64-bit PC.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm, by a cross-compiler.
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl Arch {
    /// The kernel's name of it, as in `ARCH=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Its directory below `arch/` in the kernel's source.
    pub fn directory(self) -> &'static str {
        match self {
            Self::X86_64 => "x86",
            Self::Aarch64 => "arm64",
        }
    }

    /// What the names of its compiler and binutils begin with, as in `CROSS_COMPILE=`; nothing for the host's own.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::X86_64 => "",
            Self::Aarch64 => "aarch64-linux-gnu-",
        }
    }

    /// Tells make of the kernel that it is for this processor.
    pub(super) fn told(self, make: Program) -> Program {
        make.arg(format!("ARCH={}", self.name())).env("CROSS_COMPILE", self.prefix())
    }

    /// The image that VMMs boot, as make calls it and as it lies in `arch/*/boot`.
    pub(super) fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "bzImage",
            // The compressed forms are for firmware and boot loaders: VMMs on Arm take none of them.
            Self::Aarch64 => "Image",
        }
    }

    /// What that image is called among the products.
    pub fn image(self) -> &'static str {
        match self {
            Self::X86_64 => "vmlinuz",
            Self::Aarch64 => "Image",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}
