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

    /// Whether such an image is as long as its own header says.
    pub(super) fn is_whole(self, image: &[u8]) -> bool {
        match self {
            // The kernel's Documentation/arch/x86/boot.rst: setup_sects at 0x1f1, syssize in 16 bytes at 0x1f4.
            Self::X86_64 => {
                let sectors = image.get(0x1f1).map(|&count| if count == 0 { 4 } else { u64::from(count) });
                let body = image.get(0x1f4..0x1f8).and_then(|field| field.first_chunk().copied());
                let (Some(sectors), Some(body)) = (sectors, body) else { return false };
                image.len() as u64 >= (sectors + 1) * 512 + u64::from(u32::from_le_bytes(body)) * 16
            }
            // Documentation/arch/arm64/booting.rst: image_size counts memory that is not in the file, so all that can be
            // said is that it begins as one.
            Self::Aarch64 => image.get(0x38..0x3c) == Some(b"ARM\x64") && image.len() > 4096,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_cut_short_is_not_whole() {
        let mut image = vec![0; 5 * 512 + 32];
        image[0x1f4] = 2;
        assert!(Arch::X86_64.is_whole(&image));
        assert!(!Arch::X86_64.is_whole(&image[..image.len() - 1]) && !Arch::X86_64.is_whole(&[]));
        let mut image = vec![0; 5000];
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert!(Arch::Aarch64.is_whole(&image));
        assert!(!Arch::Aarch64.is_whole(&image[..100]) && !Arch::Aarch64.is_whole(&vec![0; 5000]));
    }
}
