//! `out/manifest.json`: what the products are and what went into them.
//!
//! Each step replaces its own part and leaves the others. Promises that the file is at all times absent, old or
//! complete, that two steps at once do not lose each other's part, and that the same input gives the same bytes: no
//! dates, no host names, no absolute paths. Must never be read as input of a build.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use fs_image::{Inode, InodeId, Kind, Tree};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::format::verity;
use store::arch::Arch;
use store::cache::{self, CacheError};
use store::digest::Digest;
use store::layout::Layout;
use store::product::{FLAVOUR, PROFILE, Product as Named};

/// Why the manifest could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The product directory or a product is not accessible.
    #[error("cannot {operation} {path} for the manifest")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write the manifest")]
    Write(#[from] CacheError),
}

impl ManifestError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }
}

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The kernel's ingredients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelPart>,
    /// The ingredients of kernels of other profiles, by profile. Those for other processors are among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kernels: BTreeMap<String, KernelPart>,
    /// The agent's ingredients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentPart>,
    /// The ingredients of agents with cargo features or for other processors, by product.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<String, AgentPart>,
    /// The initrd's ingredients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<InitrdPart>,
    /// The ingredients of initrds of other flavours or for other processors, by flavour with the processor behind it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub flavours: BTreeMap<String, InitrdPart>,
    /// The ingredients of disks, by product.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disks: BTreeMap<String, DiskPart>,
    /// The ingredients of unified kernel images, by product.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ukis: BTreeMap<String, UkiPart>,
    /// What the list of ingredients was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<SbomPart>,
    /// Files in the product directory, by name.
    #[serde(default)]
    pub products: BTreeMap<String, Product>,
}

/// What a product was made of, as the manifest has it.
pub trait Part {
    /// Puts it into the manifest, for the product called `name`.
    fn note(&self, name: &str, manifest: &mut Manifest);
}

impl Part for KernelPart {
    fn note(&self, _name: &str, manifest: &mut Manifest) {
        if self.profile == PROFILE {
            manifest.kernel = Some(self.clone());
        } else {
            manifest.kernels.insert(self.profile.clone(), self.clone());
        }
    }
}

impl Part for AgentPart {
    fn note(&self, name: &str, manifest: &mut Manifest) {
        if name == Named::Agent(BTreeSet::new()).file_name(Arch::X86_64) {
            manifest.agent = Some(self.clone());
        } else {
            manifest.agents.insert(name.to_owned(), self.clone());
        }
    }
}

impl Part for InitrdPart {
    fn note(&self, _name: &str, manifest: &mut Manifest) {
        if self.flavour == FLAVOUR && self.arch == Arch::X86_64 {
            manifest.initrd = Some(self.clone());
        } else {
            manifest.flavours.insert(format!("{}{}", self.flavour, self.arch.suffix()), self.clone());
        }
    }
}

impl Part for DiskPart {
    fn note(&self, name: &str, manifest: &mut Manifest) {
        manifest.disks.insert(name.to_owned(), self.clone());
    }
}

impl Part for UkiPart {
    fn note(&self, name: &str, manifest: &mut Manifest) {
        manifest.ukis.insert(name.to_owned(), self.clone());
    }
}

impl Part for SbomPart {
    fn note(&self, _name: &str, manifest: &mut Manifest) {
        manifest.sbom = Some(self.clone());
    }
}

/// A file in the product directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
}

/// What the kernel was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelPart {
    /// `uname -r`.
    pub release: String,
    /// The profile of `kernel-config/`.
    pub profile: String,
    /// The tarball's file name.
    pub source: String,
    /// The tarball's digest.
    pub source_sha256: Digest,
    /// Compiler and linker.
    #[serde(flatten)]
    pub toolchain: Toolchain,
}

/// A compiler and a linker, by the first lines of their `--version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toolchain {
    /// Of gcc.
    pub compiler: String,
    /// Of ld.
    pub linker: String,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {}", self.compiler, self.linker)
    }
}

/// What the agent was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentPart {
    /// The crate's version.
    pub version: String,
    /// `rustc --version`.
    pub compiler: String,
    /// The target triple.
    pub target: String,
    /// The cargo profile.
    pub profile: String,
    /// The cargo features.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub features: BTreeSet<String>,
    /// The digest of `Cargo.lock`, which names every dependency.
    pub lock_sha256: Digest,
}

/// What the initrd was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitrdPart {
    /// The recipe's name.
    pub flavour: String,
    /// The processor that its programs are for.
    #[serde(default = "plain")]
    pub arch: Arch,
    /// The recipe's digest.
    pub recipe_sha256: Digest,
    /// How the archive is compressed.
    pub compression: String,
    /// The modification time of every entry, in seconds since 1970.
    pub source_date_epoch: u32,
    /// Bytes of the archive before compression.
    pub unpacked_size: u64,
    /// The Debian packages that files of the build machine came from, and their versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packages: BTreeMap<String, String>,
    /// Everything in the archive.
    pub entries: Vec<EntryPart>,
}

/// What the list of ingredients was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SbomPart {
    /// When it was made, as far as it says, in seconds since 1970.
    pub source_date_epoch: u32,
}

/// What a disk was made of, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskPart {
    /// The recipe's name.
    pub flavour: String,
    /// The processor that its programs are for.
    #[serde(default = "plain")]
    pub arch: Arch,
    /// The recipe's digest.
    pub recipe_sha256: Digest,
    /// What it looks like: `kata`, `kata-dax`, `gpt` or `plain`.
    pub form: String,
    /// What its root is formatted as.
    pub file_system: String,
    /// The program that formatted it, with its version, where that is not image-builder itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formatted_by: Option<String>,
    /// The modification time of every entry, in seconds since 1970.
    pub source_date_epoch: u32,
    /// Its partitions, in the order of the table.
    pub partitions: Vec<PartitionPart>,
    /// What proves that the root is unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verity: Option<verity::Parameters>,
    /// The same as shims' configuration takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_verity_params: Option<String>,
    /// What the kernel must be told to use it as its root.
    pub cmdline: String,
    /// The Debian packages that files of the build machine came from, and their versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packages: BTreeMap<String, String>,
    /// Everything in the root file system.
    pub entries: Vec<EntryPart>,
}

/// What a unified kernel image was made of beside kernel and initrd, and how it is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UkiPart {
    /// The flavour whose initrd is in it.
    pub flavour: String,
    /// The processor that it is for.
    #[serde(default = "plain")]
    pub arch: Arch,
    /// The kernel's command line.
    pub cmdline: String,
    /// The stub's digest.
    pub stub_sha256: Digest,
    /// The Debian package that the stub came from, and its version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packages: BTreeMap<String, String>,
    /// The digest that firmware takes of it (Authenticode): TPM PCR 4, and Secure Boot's lists.
    pub authenticode_sha256: Digest,
    /// TPM PCR 11 after the stub's measurements.
    pub pcr11_sha256: Digest,
}

/// The processor of parts that were noted before there were others.
fn plain() -> Arch {
    Arch::X86_64
}

impl AgentPart {
    /// The processor that it is for, if this version knows it.
    pub fn arch(&self) -> Option<Arch> {
        Arch::ALL.into_iter().find(|arch| arch.rust() == self.target)
    }
}

impl InitrdPart {
    /// The name of its file in the product directory.
    pub fn product(&self) -> String {
        Named::initrd(&self.flavour).file_name(self.arch)
    }
}

/// A partition of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionPart {
    /// What it is for.
    pub name: String,
    /// Its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub size: u64,
}

/// One entry of a root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryPart {
    /// Its absolute path.
    pub path: String,
    /// `directory`, `file`, `symlink`, `character`, `block`, `fifo` or `socket`.
    pub kind: String,
    /// Permission bits in octal.
    pub mode: String,
    /// Bytes of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Digest of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Where a symlink points, or a device's `major:minor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The first path of the same file, of one with more than one name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The digests of extended attributes, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, Digest>,
}

impl EntryPart {
    /// All names in a tree, sorted by path.
    ///
    /// # Errors
    /// When a file's content cannot be read.
    pub fn list(tree: &Tree) -> io::Result<Vec<Self>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut first: HashMap<InodeId, String> = HashMap::new();
        let entry = |(path, id): (Vec<u8>, InodeId)| -> io::Result<Self> {
            let (path, Inode { meta, kind }) = (text(&path), tree.inode(id));
            let link = first.get(&id).cloned();
            first.entry(id).or_insert_with(|| path.clone());
            let (mut size, mut sha256, mut target) = (None, None, None);
            match kind {
                Kind::File(content) if link.is_none() => {
                    (size, sha256) = (Some(content.len()), Some(Digest::of(&content.bytes()?)));
                }
                Kind::Symlink(path) => target = Some(text(path)),
                Kind::Char { major, minor } | Kind::Block { major, minor } => {
                    target = Some(format!("{major}:{minor}"));
                }
                _ => {}
            }
            let xattrs = meta.xattrs.iter().map(|(name, value)| (text(name), Digest::of(value))).collect();
            let (kind, mode) = (kind.name().to_owned(), format!("{:04o}", meta.mode));
            Ok(Self { path, kind, mode, size, sha256, target, link, xattrs })
        };
        tree.walk().into_iter().map(entry).collect()
    }
}

impl Manifest {
    /// Reads the manifest of the product directory; an absent one, or one of another shape, is an empty one.
    pub fn read(layout: &Layout) -> Self {
        let text = std::fs::read(layout.manifest()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Lets `change` alter the manifest, alone among all processes, and writes it.
    ///
    /// # Errors
    /// What `change` returns, or when the file cannot be written.
    pub fn update(
        layout: &Layout,
        change: impl FnOnce(&mut Self) -> Result<(), ManifestError>,
    ) -> Result<(), ManifestError> {
        let out = layout.out();
        std::fs::create_dir_all(out).map_err(ManifestError::io("create", out))?;
        let dir = File::open(out).map_err(ManifestError::io("open", out))?;
        // The lock is on the directory itself, so that no lock file lies about.
        let _lock = Flock::lock(dir, FlockArg::LockExclusive)
            .map_err(|(_, errno)| ManifestError::io("lock", out)(errno.into()))?;
        let mut manifest = Self::read(layout);
        change(&mut manifest)?;
        manifest.products.retain(|name, _| out.join(name).is_file());
        manifest.agents.retain(|name, _| out.join(name).is_file());
        manifest.kernels.retain(|name, _| layout.kernel_file("vmlinux", name).is_file());
        manifest.sbom = manifest.sbom.filter(|_| layout.product(&Named::Sbom).is_file());
        manifest.ukis.retain(|name, _| out.join(name).is_file());
        manifest.disks.retain(|name, _| out.join(name).is_file());
        manifest.flavours.retain(|_, part| out.join(part.product()).is_file());
        let text = manifest.to_text().map_err(|error| ManifestError::io("encode", out)(error.into()))?;
        Ok(cache::write_atomically(&layout.manifest(), &text)?)
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn to_text(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Notes the size and digest of the product called `name`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn add_product(&mut self, layout: &Layout, name: &str) -> Result<(), ManifestError> {
        let path = layout.out().join(name);
        let (sha256, size) = Digest::of_file(&path).map_err(ManifestError::io("read", &path))?;
        self.products.insert(name.to_string(), Product { size, sha256 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(version: &str) -> AgentPart {
        AgentPart {
            version: version.into(),
            compiler: "rustc".into(),
            target: "t".into(),
            profile: "guest".into(),
            features: BTreeSet::new(),
            lock_sha256: Digest::of(b""),
        }
    }

    fn kernel() -> KernelPart {
        let toolchain = Toolchain { compiler: "gcc 12".into(), linker: "ld 2".into() };
        let source_sha256 = Digest::of(b"source");
        KernelPart {
            release: "6".into(),
            profile: "kata".into(),
            source: "x.tar".into(),
            source_sha256,
            toolchain,
        }
    }

    #[test]
    fn steps_keep_each_others_parts() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().into(), None);
        Manifest::update(&layout, |m| {
            m.kernel = Some(kernel());
            Ok(())
        })
        .unwrap();
        std::fs::write(layout.agent(), "abc").unwrap();
        for version in ["1", "2"] {
            Manifest::update(&layout, |m| {
                m.agent = Some(agent(version));
                m.add_product(&layout, "agent")
            })
            .unwrap();
        }
        let read = Manifest::read(&layout);
        assert_eq!((read.kernel, read.agent), (Some(kernel()), Some(agent("2"))));
        assert_eq!(read.products["agent"], Product { size: 3, sha256: Digest::of(b"abc") });
    }

    #[test]
    fn products_that_are_gone_are_dropped_and_damage_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().into(), None);
        cache::write_atomically(&layout.agent(), b"abc").unwrap();
        Manifest::update(&layout, |m| m.add_product(&layout, "agent")).unwrap();
        std::fs::remove_file(layout.agent()).unwrap();
        Manifest::update(&layout, |_| Ok(())).unwrap();
        assert_eq!(Manifest::read(&layout), Manifest::default());
        std::fs::write(layout.manifest(), "{").unwrap();
        assert_eq!(Manifest::read(&layout), Manifest::default());
    }

    #[test]
    fn a_failed_change_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().into(), None);
        assert!(Manifest::update(&layout, |m| m.add_product(&layout, "agent")).is_err());
        assert!(!layout.manifest().exists());
    }
}
