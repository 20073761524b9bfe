//! Which machine an image is made for, and which of several is the right one here.
//!
//! The rules are those of containerd's package `platforms`: names of architectures in several spellings mean the same, and
//! among variants of one architecture the one is chosen that every processor runs.

use super::document::Platform;

/// The OCI name of the architecture we run on.
pub(super) fn architecture() -> &'static str {
    normal_architecture(std::env::consts::ARCH)
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

    /// Whether a guest on this machine runs it.
    pub(super) fn is_ours(&self) -> bool {
        let is_linux = self.os.is_empty() || self.os.eq_ignore_ascii_case("linux");
        is_linux && (self.architecture.is_empty() || self.architecture() == architecture())
    }

    /// What to prefer among those that are ours: the least, which is the one that asks the least of the processor.
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
        assert!(here.is_ours() && platform("", "", "").is_ours());
        assert!(
            !platform("windows", architecture(), "").is_ours() && !platform("linux", "s390x", "").is_ours()
        );
    }

    #[test]
    fn what_runs_everywhere_comes_first() {
        let ranks = ["v1", "v2", "v3", "v4"].map(|variant| platform("linux", "amd64", variant).rank());
        assert!(ranks.is_sorted() && ranks[0] == platform("linux", "amd64", "").rank());
    }
}
