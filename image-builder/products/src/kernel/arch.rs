//! What differs between processors when a kernel is built. What it is built from is in the fragments.

pub use store::arch::Arch;

use crate::program::Program;

/// Tells make of the kernel which processor it is for.
pub(super) fn told(arch: Arch, make: Program) -> Program {
    make.arg(format!("ARCH={}", arch.linux())).env("CROSS_COMPILE", arch.tools())
}

/// The image that VMMs boot, as make calls it and as it lies in `arch/*/boot`.
pub(super) fn target(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "bzImage",
        // The compressed forms are for firmware and boot loaders: VMMs on Arm take none of them.
        Arch::Aarch64 => "Image",
    }
}

/// Whether such an image is as long as its own header says.
pub(super) fn is_whole(arch: Arch, image: &[u8]) -> bool {
    match arch {
        // The kernel's Documentation/arch/x86/boot.rst: setup_sects at 0x1f1, syssize in 16 bytes at 0x1f4.
        Arch::X86_64 => {
            let sectors = image.get(0x1f1).map(|&count| if count == 0 { 4 } else { u64::from(count) });
            let body = image.get(0x1f4..0x1f8).and_then(|field| field.first_chunk().copied());
            let (Some(sectors), Some(body)) = (sectors, body) else { return false };
            image.len() as u64 >= (sectors + 1) * 512 + u64::from(u32::from_le_bytes(body)) * 16
        }
        // Documentation/arch/arm64/booting.rst: image_size counts memory that is not in the file, so all that can be
        // said is that it begins as one.
        Arch::Aarch64 => image.get(0x38..0x3c) == Some(b"ARM\x64") && image.len() > 4096,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_cut_short_is_not_whole() {
        let mut image = vec![0; 5 * 512 + 32];
        image[0x1f4] = 2;
        assert!(is_whole(Arch::X86_64, &image));
        assert!(!is_whole(Arch::X86_64, &image[..image.len() - 1]) && !is_whole(Arch::X86_64, &[]));
        let mut image = vec![0; 5000];
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert!(is_whole(Arch::Aarch64, &image));
        assert!(!is_whole(Arch::Aarch64, &image[..100]) && !is_whole(Arch::Aarch64, &vec![0; 5000]));
    }
}
