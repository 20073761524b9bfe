//! What images are for, and which of them guests can have.

use serde::Deserialize;
use store::arch::Arch;
use store::text;

/// The processor and the system that an image is for, as indexes and configurations say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    pub(crate) variant: String,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", text::printable(&format!("{}/{}", self.os, self.architecture)))
    }
}

impl Platform {
    /// The architecture of the guests that run it, if there are any. OCI has Debian's names.
    pub(crate) fn arch(&self) -> Option<Arch> {
        Arch::ALL.into_iter().find(|arch| self.os == "linux" && self.architecture == arch.debian())
    }
}
