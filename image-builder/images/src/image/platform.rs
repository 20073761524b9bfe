//! Which machine an image is made for, and which of several is the right one here.
//!
//! The rules are those of containerd's package `platforms`: names of architectures in several spellings mean the same, and
//! among variants of one architecture the one is chosen that every processor runs.

use store::arch::Arch;
use store::text;

use super::document::Platform;

/// Reads a platform as docker and podman take it, such as `linux/arm64`: the architecture that images are wanted for.
///
/// # Errors
/// What is wrong with it, and which there are.
pub fn parse_platform(text: &str) -> Result<Arch, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let (os, architecture, variant) = match parts.as_slice() {
        [architecture] => ("", *architecture, ""),
        [os, architecture] => (*os, *architecture, ""),
        [os, architecture, variant] => (*os, *architecture, *variant),
        _ => ("", "", ""),
    };
    let platform = Platform { os: os.into(), architecture: architecture.into(), variant: variant.into() };
    let known = Arch::ALL.map(Arch::platform).join(", ");
    match platform.arch() {
        Some(arch) if platform.variant().is_empty() => Ok(arch),
        _ => Err(format!("{:?} is no platform of a guest; there are {known}", text::printable(text))),
    }
}

/// The architectures that an image may be for, in words.
pub(super) fn listed(wanted: Option<Arch>) -> String {
    Arch::preferred(wanted).into_iter().map(Arch::platform).collect::<Vec<_>>().join(" or ")
}

fn normal_architecture(name: &str) -> &str {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i486" | "i586" | "i686" | "x86" => "386",
        "armhf" | "armel" => "arm",
        other => other,
    }
}

impl Platform {
    /// The architecture's usual name.
    fn architecture(&self) -> String {
        normal_architecture(&self.architecture.to_ascii_lowercase()).to_owned()
    }

    /// The variant; empty for the one that every processor of the architecture runs.
    fn variant(&self) -> String {
        let variant = self.variant.to_ascii_lowercase();
        match (self.architecture().as_str(), variant.as_str()) {
            ("amd64", "v1") | ("arm64", "8" | "v8") => String::new(),
            _ => variant,
        }
    }

    /// Whether nothing is said about where it runs.
    pub(super) fn is_blank(&self) -> bool {
        self.os.is_empty() && self.architecture.is_empty()
    }

    /// Whether it is the mark of something that does not run, such as an attestation.
    pub(super) fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    fn is_linux(&self) -> bool {
        self.os.is_empty() || self.os.eq_ignore_ascii_case("linux")
    }

    /// The architecture of the guests that run it; none where no guest does, or where none is named.
    pub(super) fn arch(&self) -> Option<Arch> {
        let name = self.architecture();
        Arch::ALL.into_iter().find(|arch| self.is_linux() && arch.debian() == name)
    }

    /// Whether a guest of this architecture runs it.
    pub(super) fn is_for(&self, arch: Arch) -> bool {
        self.arch() == Some(arch) || self.is_linux() && self.architecture.is_empty()
    }

    /// What to prefer among those of one architecture: the least, which is the one that asks the least of the processor.
    pub(super) fn rank(&self) -> String {
        self.variant()
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let os = if self.os.is_empty() { "linux" } else { &self.os };
        write!(f, "{os}/{}", self.architecture())?;
        match self.variant() {
            variant if variant.is_empty() => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(os: &str, architecture: &str, variant: &str) -> Platform {
        Platform { os: os.into(), architecture: architecture.into(), variant: variant.into() }
    }

    #[test]
    fn spellings_of_one_platform_are_one() {
        assert_eq!(platform("linux", "x86_64", "v1").to_string(), "linux/amd64");
        assert_eq!(platform("Linux", "AARCH64", "v8").to_string(), "Linux/arm64");
        assert_eq!(platform("linux", "arm", "v7").to_string(), "linux/arm/v7");
        let here = platform("LINUX", std::env::consts::ARCH, "");
        assert_eq!(here.arch(), Some(Arch::host()));
        for arch in Arch::ALL {
            assert!(platform("", "", "").is_for(arch) && platform("linux", "", "").is_for(arch));
            assert_eq!(here.is_for(arch), arch == Arch::host());
            assert!(!platform("windows", arch.debian(), "").is_for(arch));
            assert!(!platform("linux", "s390x", "").is_for(arch));
        }
    }

    #[test]
    fn a_platform_is_named_as_docker_names_it() {
        for (text, arch) in [
            ("linux/amd64", Arch::X86_64),
            ("linux/x86_64", Arch::X86_64),
            ("amd64", Arch::X86_64),
            ("linux/arm64", Arch::Aarch64),
            ("linux/arm64/v8", Arch::Aarch64),
            ("Linux/AArch64", Arch::Aarch64),
            ("arm64", Arch::Aarch64),
        ] {
            assert_eq!(parse_platform(text), Ok(arch), "{text}");
        }
        for text in
            ["", "linux", "linux/386", "linux/arm/v7", "windows/amd64", "linux/amd64/v3", "a/b/c/d", "linux/"]
        {
            let problem = parse_platform(text).unwrap_err();
            assert!(problem.contains("there are linux/amd64, linux/arm64"), "{problem}");
        }
    }

    #[test]
    fn what_runs_everywhere_comes_first() {
        let ranks = ["v1", "v2", "v3", "v4"].map(|variant| platform("linux", "amd64", variant).rank());
        assert!(ranks.is_sorted() && ranks[0] == platform("linux", "amd64", "").rank());
    }
}
