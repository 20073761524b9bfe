//! A unified kernel image: firmware's stub, kernel, command line and initrd as one program for EFI.
//!
//! The layout is the UAPI group's specification of unified kernel images; the stub is systemd's, from Debian. Promises that
//! the same parts give the same bytes, and says beforehand what a TPM will have measured of them. Must never sign: keys are
//! not this tool's business.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::format::pe::{self, PeError};
use crate::install::Packed;
use crate::manifest::UkiPart;
use crate::place::Place;
use store::arch::Arch;
use store::digest::Digest;
use store::layout::Layout;
use store::product::{PROFILE, Product};

/// The stub, and the Debian package that has it.
pub const STUB: (&str, &str) = ("/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "systemd-boot-efi");

/// What the kernel is told unless somebody says otherwise.
pub const CMDLINE: &str = "console=ttyS0 quiet panic=-1";

/// What the guest says it is.
const OS_RELEASE: &str =
    concat!("ID=pith\nNAME=Pith\nVERSION_ID=", env!("CARGO_PKG_VERSION"), "\nPRETTY_NAME=\"Pith guest\"\n");

/// Why there is no unified kernel image.
#[derive(Debug, thiserror::Error)]
pub enum UkiError {
    /// There is none for the processor.
    #[error(
        "a unified kernel image is not for {0}: its kernel has no EFI stub; boot kernel and initrd, or a disk"
    )]
    Arch(Arch),
    /// A part is missing.
    #[error("cannot read {path}; {hint}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do.
        hint: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel cannot be started by firmware.
    #[error("{path} has no EFI stub; the profile `kata` has one (kernel-config/feature/efi.conf)")]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PeError,
    },
    /// The stub cannot be extended.
    #[error("{path} is of no use as a stub")]
    Stub {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PeError,
    },
}

/// What to put together.
#[derive(Debug, Clone)]
pub struct Options {
    /// The recipe's name.
    pub flavour: String,
    /// The kernel's command line.
    pub cmdline: String,
    /// The stub; systemd's when none is named.
    pub stub: Option<PathBuf>,
}

/// A unified kernel image, not yet written.
pub type Uki = Packed<UkiPart>;

/// Puts the products of a directory together.
///
/// # Errors
/// When a part is missing or of no use.
pub fn pack(layout: &Layout, options: &Options) -> Result<Uki, UkiError> {
    let arch = layout.arch();
    if arch != Arch::X86_64 {
        return Err(UkiError::Arch(arch));
    }
    let read = |path: &Path, hint: &str| {
        std::fs::read(path).map_err(|source| UkiError::Missing {
            path: path.to_path_buf(),
            hint: hint.to_owned(),
            source,
        })
    };
    let kernel_path = layout.kernel_file("vmlinuz", PROFILE);
    let linux = read(&kernel_path, "make it with: image-builder kernel build")?;
    pe::sections(&linux).map_err(|source| UkiError::Kernel { path: kernel_path, source })?;
    let flavour = &options.flavour;
    let initrd = layout.flavour_initrd(flavour);
    let initrd = read(&initrd, &format!("make it with: image-builder initrd --flavour {flavour}"))?;
    let path = options.stub.clone().unwrap_or_else(|| STUB.0.into());
    let stub = read(&path, &format!("install the Debian package {}, or name one with --stub", STUB.1))?;
    let sections = [
        (".osrel", OS_RELEASE.as_bytes()),
        (".cmdline", options.cmdline.as_bytes()),
        (".initrd", &initrd[..]),
        (".linux", &linux[..]),
    ];
    let wrong = |source| UkiError::Stub { path: path.clone(), source };
    let image = pe::with_sections(&stub, &sections).map_err(wrong)?;
    let part = UkiPart {
        flavour: flavour.clone(),
        arch,
        cmdline: options.cmdline.clone(),
        stub_sha256: Digest::of(&stub),
        packages: Place::machine().packages(path.to_str().into_iter()),
        authenticode_sha256: pe::authenticode(&image).map_err(wrong)?,
        pcr11_sha256: pcr11(&sections),
    };
    let name = Product::Uki { flavour: flavour.clone() }.file_name(arch);
    Ok(Packed { name, image, beside: None, part })
}

/// The value of TPM PCR 11 when the stub has measured the sections and nothing else has extended it (systemd-stub(7)): for
/// each, in an order of its own, its name with a NUL, then its content.
fn pcr11(sections: &[(&str, &[u8])]) -> Digest {
    const ORDER: [&str; 4] = [".linux", ".osrel", ".cmdline", ".initrd"];
    let mut pcr = [0; 32];
    for wanted in ORDER {
        for (name, content) in sections.iter().filter(|(name, _)| *name == wanted) {
            let named = Sha256::new().chain_update(name).chain_update([0]).finalize();
            for digest in [named, Sha256::digest(content)] {
                pcr = Sha256::new().chain_update(pcr).chain_update(digest).finalize().into();
            }
        }
    }
    Digest::from(pcr)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::manifest::Manifest;
    use store::cache::write_atomically;

    fn layout(dir: &Path) -> (Layout, Options) {
        let layout = Layout::new(dir.into(), None);
        let stub = dir.join("stub");
        write_atomically(&stub, &pe::tests::tiny()).unwrap();
        write_atomically(&layout.vmlinuz(), &pe::tests::tiny()).unwrap();
        write_atomically(&layout.initrd(), b"initrd").unwrap();
        let options = Options { flavour: "minimal".into(), cmdline: CMDLINE.into(), stub: Some(stub) };
        (layout, options)
    }

    #[test]
    fn all_parts_are_in_it_and_it_is_the_same_twice() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, options) = layout(dir.path());
        let uki = pack(&layout, &options).unwrap();
        assert_eq!(uki.image(), pack(&layout, &options).unwrap().image());
        let part = |name: &str| {
            let (_, range) =
                pe::sections(uki.image()).unwrap().into_iter().find(|(found, _)| found == name).unwrap();
            uki.image()[range].to_vec()
        };
        assert_eq!(part(".cmdline"), CMDLINE.as_bytes());
        assert_eq!(part(".initrd"), b"initrd");
        assert_eq!(part(".linux"), std::fs::read(layout.vmlinuz()).unwrap()[..part(".linux").len()]);
        assert_eq!(uki.install(&layout).unwrap(), "uki-minimal.efi");
        assert_eq!(Manifest::read(&layout).ukis["uki-minimal.efi"], *uki.part());
    }

    #[test]
    fn missing_and_useless_parts_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, options) = layout(dir.path());
        let refused = |options: &Options| pack(&layout, options).unwrap_err().to_string();
        let other = Options { flavour: "debug".into(), ..options.clone() };
        assert!(refused(&other).ends_with("image-builder initrd --flavour debug"));
        let none = Options { stub: Some("/nonexistent".into()), ..options.clone() };
        assert!(refused(&none).contains("systemd-boot-efi"));
        std::fs::write(layout.vmlinuz(), "bzImage").unwrap();
        assert!(refused(&options).contains("no EFI stub"));
    }

    #[test]
    fn systemd_expects_the_same_measurement() {
        let dir = tempfile::tempdir().unwrap();
        let parts =
            [(".osrel", &b"ID=x\n"[..]), (".cmdline", b"a=b"), (".initrd", b"initrd"), (".linux", b"linux")];
        let mut command = Command::new("/lib/systemd/systemd-measure");
        command.args(["calculate", "--bank=sha256", "--phase="]);
        for (name, content) in parts {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            command.arg(format!("--{}={}", &name[1..], path.display()));
        }
        let output = match command.output() {
            Ok(output) if output.status.success() => output,
            other => return eprintln!("skipped: systemd-measure (systemd) does not run: {other:?}"),
        };
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("11:sha256={}", pcr11(&parts))), "{text}");
    }
}
