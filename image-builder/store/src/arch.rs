//! The processors that guests run on, and the names that others have for them.
//!
//! Promises to be the only such type, and that no other module builds such a name. Must never touch the file system.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kernel's profile that ships for x86_64, and that is built for it when none is named.
pub const PROFILE: &str = "kata";

/// A processor architecture that guests run on.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
pub enum Arch {
    /// 64-bit PC.
    #[serde(rename = "x86_64")]
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "aarch64")]
    #[value(name = "aarch64", alias = "arm64")]
    Aarch64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The processor that this program was compiled for.
    pub const fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// The kernel's name of it, as in `ARCH=`.
    pub fn linux(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Its directory below `arch/` in the kernel's source.
    pub fn linux_directory(self) -> &'static str {
        match self {
            Self::X86_64 => "x86",
            Self::Aarch64 => "arm64",
        }
    }

    /// The kernel image that VMMs boot, among the products.
    pub fn image(self) -> &'static str {
        match self {
            Self::X86_64 => "vmlinuz",
            Self::Aarch64 => "Image",
        }
    }

    /// The profile of the kernel that is built unless another one is named.
    pub fn profile(self) -> &'static str {
        match self {
            Self::X86_64 => PROFILE,
            Self::Aarch64 => "aarch64",
        }
    }

    /// Debian's name of it.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The name of what runs in its guests, as registries and docker have it, such as `linux/amd64`.
    pub fn platform(self) -> String {
        // For the processor they have Debian's names.
        format!("linux/{}", self.debian())
    }

    /// Those that an image may be for, in the order of preference: the one that is wanted, or else this machine's own before those
    /// that have to be emulated.
    pub fn preferred(wanted: Option<Self>) -> Vec<Self> {
        let others = Self::ALL.into_iter().filter(|arch| *arch != Self::host());
        wanted.map_or_else(|| std::iter::once(Self::host()).chain(others).collect(), |arch| vec![arch])
    }

    /// The name of Debian's library directories, and of the GNU tools: `/usr/lib/NAME`, `NAME-gcc`.
    pub fn gnu(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }

    /// What the names of its compiler and binutils begin with on this machine, as in `CROSS_COMPILE=`: nothing for the
    /// machine's own.
    pub fn tools(self) -> &'static str {
        match self {
            own if own == Self::host() => "",
            Self::X86_64 => "x86_64-linux-gnu-",
            Self::Aarch64 => "aarch64-linux-gnu-",
        }
    }

    /// The Debian package with that compiler.
    pub fn compiler_package(self) -> &'static str {
        match self {
            own if own == Self::host() => "gcc",
            Self::X86_64 => "gcc-x86-64-linux-gnu",
            Self::Aarch64 => "gcc-aarch64-linux-gnu",
        }
    }

    /// What to do where that compiler is missing on a machine of another processor.
    pub fn compiler_hint(self) -> String {
        format!(
            "install the cross-compiler: apt-get install {}, or run make setup ARCH={self}",
            self.compiler_package()
        )
    }

    /// Rust's name of it with Linux and the GNU C library.
    pub fn rust(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// `e_machine` of its programs.
    pub fn elf_machine(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
        }
    }

    /// The architecture of programs with this `e_machine`.
    pub fn of_elf_machine(machine: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.elf_machine() == machine)
    }

    /// What is added to the names of its products. Those of x86_64 have the plain names, whatever the host is.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::X86_64 => "",
            Self::Aarch64 => "-aarch64",
        }
    }

    /// What a name must not end with, since products of another recipe or processor would have it: the architecture that
    /// `name` is or ends with.
    pub fn claimed_by(name: &str) -> Option<Self> {
        let last = name.rsplit('-').next();
        Self::ALL.into_iter().find(|arch| last == Some(&arch.to_string()))
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
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn one_name_in_options_manifests_and_messages() {
        for arch in Arch::ALL {
            let name = arch.to_string();
            assert_eq!(Arch::from_str(&name, false), Ok(arch));
            assert_eq!(serde_json::to_string(&arch).unwrap(), format!("{name:?}"));
            assert!(arch.rust().starts_with(&name) && arch.gnu().starts_with(&name));
            assert_eq!(Arch::of_elf_machine(arch.elf_machine()), Some(arch));
            assert_eq!(arch.tools().is_empty(), arch == Arch::host());
        }
        assert_eq!(Arch::from_str("arm64", false), Ok(Arch::Aarch64));
        assert_eq!(Arch::host().to_string(), std::env::consts::ARCH);
        assert_eq!(Arch::of_elf_machine(8), None);
    }

    #[test]
    fn the_hosts_own_comes_first_unless_another_one_is_wanted() {
        let all = Arch::preferred(None);
        assert_eq!((all[0], all.len()), (Arch::host(), Arch::ALL.len()));
        for arch in Arch::ALL {
            assert_eq!(Arch::preferred(Some(arch)), [arch]);
        }
        assert_eq!(Arch::ALL.map(Arch::platform), ["linux/amd64", "linux/arm64"]);
    }

    #[test]
    fn names_that_would_be_those_of_another_product_are_known() {
        for (name, claimed) in [
            ("aarch64", Some(Arch::Aarch64)),
            ("my-aarch64", Some(Arch::Aarch64)),
            ("x86_64", Some(Arch::X86_64)),
            ("aarch64-my", None),
            ("myaarch64", None),
            ("", None),
        ] {
            assert_eq!(Arch::claimed_by(name), claimed, "{name}");
        }
    }
}
