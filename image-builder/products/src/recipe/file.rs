//! The shape of a recipe's file, as serde reads it.

use std::collections::BTreeSet;

use serde::Deserialize;
use store::arch::Arch;
use toml::Spanned;

use super::users::{Owner, User};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) description: String,
    pub(super) extends: Option<String>,
    #[serde(default)]
    pub(super) overlays: Vec<String>,
    #[serde(default)]
    pub(super) budget: Budget,
    #[serde(default)]
    pub(super) agent: Agent,
    #[serde(default)]
    pub(super) directory: Vec<Directory>,
    #[serde(default)]
    pub(super) file: Vec<Regular>,
    #[serde(default)]
    pub(super) symlink: Vec<Symlink>,
    #[serde(default)]
    pub(super) symlinks: Vec<Symlinks>,
    #[serde(default)]
    pub(super) host: Vec<Host>,
    #[serde(default)]
    pub(super) package: Vec<Package>,
    #[serde(default)]
    pub(super) image: Vec<Image>,
    #[serde(default)]
    pub(super) device: Vec<Device>,
    #[serde(default)]
    pub(super) user: Vec<User>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Budget {
    pub(super) compressed: Option<u64>,
    pub(super) disk: Option<u64>,
    #[serde(default)]
    pub(super) aarch64: Bounds,
}

impl Budget {
    /// What one processor's products may have: its own bounds, where it has them.
    pub(super) fn of(&self, arch: Arch) -> Bounds {
        let own = match arch {
            Arch::X86_64 => Bounds::default(),
            Arch::Aarch64 => self.aarch64,
        };
        Bounds { compressed: own.compressed.or(self.compressed), disk: own.disk.or(self.disk) }
    }
}

/// Bounds in bytes.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bounds {
    pub(super) compressed: Option<u64>,
    pub(super) disk: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    pub(super) features: BTreeSet<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Directory {
    pub(super) path: Spanned<String>,
    pub(super) mode: Mode,
    pub(super) owner: Option<Owner>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Regular {
    pub(super) path: Spanned<String>,
    pub(super) mode: Mode,
    pub(super) owner: Option<Owner>,
    pub(super) source: Option<String>,
    pub(super) product: Option<ProductName>,
    pub(super) text: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Symlink {
    pub(super) path: Spanned<String>,
    pub(super) target: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Symlinks {
    pub(super) directory: String,
    pub(super) target: String,
    pub(super) names: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Host {
    pub(super) package: String,
    pub(super) files: Vec<String>,
}

/// A whole Debian package.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Package {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) without: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Device {
    pub(super) path: Spanned<String>,
    pub(super) kind: DeviceKind,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) mode: Mode,
    pub(super) owner: Option<Owner>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DeviceKind {
    Character,
    Block,
}

/// A file that an earlier step put into the product directory.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ProductName {
    Agent,
}

/// Permission bits, written in octal as text.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Mode(pub(super) u16);

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        let mode = u16::from_str_radix(&text, 8).ok().filter(|_| octal);
        mode.map(Self).ok_or_else(|| format!("{text:?} is no mode: three or four octal digits are expected"))
    }
}

/// A container image.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Image {
    pub(super) path: Spanned<String>,
    #[serde(default = "yes")]
    pub(super) attributes: bool,
}

fn yes() -> bool {
    true
}
