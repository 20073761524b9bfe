//! The guest kernel: from fragments to a checked configuration, and from that to bootable files.
//!
//! ```text
//! kernel-config/ ── Profile ─┐                    ┌─ Fault: lost or forbidden option, build never starts
//! tarball ── Kconfig files ──┴─ allnoconfig ── .config ── full tree ── make ── PVH note? ── cache ── out/
//!                                                 └ Requirement: promised, not met      └ sizes.json ── Report
//! ```
//!
//! The base is the kernel's own `tinyconfig`: its fragments come first, ours after them, and every option that
//! nobody asks for is off, also one that only becomes visible by what we ask for.
//!
//! Promises: a kernel in the cache is complete, has every requested option and no forbidden one; the same source,
//! requests and tools give the same bytes. Must never build in the source tree or leave a half-built one behind.

pub mod arch;
mod build;
pub mod config;
pub mod forbid;
pub mod fragment;
mod kbuild;
mod kconfig;
pub mod profile;
pub mod requirement;
pub mod size;
pub mod toolchain;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache::{self, Cache, CacheError};
use crate::digest::Digest;
use crate::elf::ElfError;
use crate::layout::Layout;
use crate::manifest::{self, Manifest, ManifestError};
use crate::program::ProgramError;
use crate::progress::Progress;
use crate::source::{Location, Source, SourceError, Tarball};

use arch::Arch;
use config::{Config, Fault};
use profile::{DataError, Profile};
use requirement::{Missing, Requirement, Standing};
use size::{Report, Sizes};
use toolchain::Toolchain;

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The data files are wrong.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The source cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The source is of another series.
    #[error(
        "the source is Linux {found}, but kernel.toml says {expected}; check the fragments against it and change it there"
    )]
    Series {
        /// What the Makefile says.
        found: String,
        /// What `kernel.toml` says.
        expected: String,
    },
    /// The configuration is not what was asked for.
    #[error("the configuration is not what was asked for:\n{}", list(.0))]
    Faults(Vec<Fault>),
    /// The configuration lacks what the profile promises to have.
    #[error(
        "profile/{profile}.toml says that it meets requirements which it does not; ask for these options in a fragment, or \
         take the requirement out of its `meets`:\n{}",
        list(.missing)
    )]
    Unmet {
        /// The profile's name.
        profile: String,
        /// What is missing.
        missing: Vec<Missing>,
    },
    /// make or a tool of it failed.
    #[error("cannot {operation}")]
    Program {
        /// What was being done.
        operation: &'static str,
        /// How it failed.
        source: ProgramError,
    },
    /// The result cannot be entered by PVH.
    #[error("the built vmlinux is of no use")]
    Elf(#[from] ElfError),
    /// An object file of the build is not understood.
    #[error("cannot measure {path}")]
    Object {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ElfError,
    },
    /// What the build linked is not listed where it should be.
    #[error("{0} is not a thin archive, as this kernel's build should have made; sizes cannot be measured")]
    Archive(PathBuf),
    /// The kernel to report on is not in the cache.
    #[error(
        "profile {0} has not been built with these options, source and tools; run: image-builder kernel build --profile {0}"
    )]
    NotBuilt(String),
    /// The kernel in the cache was built when sizes were not kept.
    #[error(
        "there is no {path}: this kernel was built before sizes were kept; run: image-builder kernel build --profile {profile} --rebuild"
    )]
    NoSizes {
        /// The file that is missing.
        path: PathBuf,
        /// The profile's name.
        profile: String,
    },
    /// The result is too large.
    #[error("{image} has {size} bytes, {} over the budget of {budget} in profile/{profile}.toml", size - budget)]
    Budget {
        /// Which file.
        image: &'static str,
        /// The profile.
        profile: String,
        /// Its size.
        size: u64,
        /// The bound.
        budget: u64,
    },
    /// Two builds of the same input differ.
    #[error("built again from the same input, these came out different: {}", .0.join(", "))]
    Irreproducible(Vec<&'static str>),
    /// The cache failed.
    #[error("cannot keep the kernel")]
    Cache(#[from] CacheError),
    /// The manifest cannot be written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file operation failed.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl KernelError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }

    fn program(operation: &'static str) -> impl FnOnce(ProgramError) -> Self {
        move |source| Self::Program { operation, source }
    }
}

fn list<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("  {item}")).collect::<Vec<_>>().join("\n")
}

/// The profile that is built when none is named.
pub const SHIPPED: &str = "kata";

/// What to build, apart from the data files.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The profile's name.
    pub profile: String,
    /// A path or URL in place of the one in `kernel.toml`.
    pub source: Option<String>,
    /// What the tarball must hash to.
    pub sha256: Option<Digest>,
    /// How many jobs make may run; 0 for one per CPU.
    pub jobs: usize,
    /// Build even if the cache has it, and compare with what the cache has.
    pub rebuild: bool,
}

/// A configuration that passed the check.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// The profile's name.
    pub profile: String,
    /// The kernel's version.
    pub version: String,
    /// How many fragments were merged.
    pub fragments: usize,
    /// How many options they ask for.
    pub requested: usize,
    /// How many options are `y` in the end.
    pub enabled: usize,
    /// How it stands to each requirement there is, in order of name.
    pub requirements: Vec<Standing>,
}

/// What is known about a built kernel; kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// `uname -r`.
    pub release: String,
    /// The profile's name.
    pub profile: String,
    /// The tarball's file name.
    pub source: String,
    /// Its digest.
    pub source_sha256: Digest,
    /// What built it.
    #[serde(flatten)]
    pub toolchain: Toolchain,
    /// How many pieces make reported: the next build's estimate.
    pub pieces: u64,
    /// The physical address a VMM enters `vmlinux` at; only a PC's kernel has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvh_entry: Option<u32>,
}

/// A built kernel in the cache.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its directory.
    pub dir: PathBuf,
    /// What is known about it.
    pub record: Record,
    /// Whether it was there before.
    pub cached: bool,
    /// For which processor.
    arch: Arch,
    /// The profile it was asked for by; another one that asks for the same options has the same kernel.
    profile: String,
    /// Whether the size budget holds for it, and which.
    budget: Option<u64>,
}

/// What a file of a kernel is called among the products: by its own name of the profile that ships, with the profile's behind
/// it of others.
pub fn product(file: &str, profile: &str) -> String {
    match profile {
        SHIPPED => file.to_owned(),
        other => format!("{file}-{other}"),
    }
}

/// The file of a kernel that says what it was configured with.
pub const CONFIG: &str = "config";

/// Files of a kernel in the cache.
fn products(arch: Arch) -> [&'static str; 4] {
    [arch.image(), "vmlinux", CONFIG, "System.map"]
}

/// Merges the fragments and verifies the outcome, without compiling the kernel.
///
/// # Errors
/// [`KernelError::Faults`] names every option that did not survive or must not be set, [`KernelError::Unmet`] every one
/// that is missing of a requirement the profile promises to meet; others as they come.
pub async fn check(
    dir: &Path,
    options: &Options,
    cache: &Cache,
    progress: Progress,
) -> Result<Checked, KernelError> {
    let profile = Profile::load(dir, &options.profile)?;
    let tarball = source(&profile, options)?.fetch(cache, progress).await?;
    let (version, config) = kconfig::configure(&profile, &tarball, cache, progress).await?;
    let config = Config::parse(&config);
    let standing = |list: &Requirement| list.standing(&config, &profile.meets);
    let requirements = profile.requirements.iter().map(standing).collect();
    let Profile { name, fragments, requests, .. } = profile;
    let (requested, enabled) = (requests.len(), config.enabled());
    Ok(Checked { profile: name, version, fragments, requested, enabled, requirements })
}

/// Builds the kernel, or finds it in the cache.
///
/// # Errors
/// As [`check`], and when the build fails. The size budget is [`Kernel::install`]'s business.
pub async fn build(
    dir: &Path,
    options: &Options,
    cache: &Cache,
    progress: Progress,
) -> Result<Kernel, KernelError> {
    let Input { profile, tarball, toolchain, key } = Input::find(dir, options, cache, progress).await?;
    let (arch, budget, name) = (profile.arch, profile.budget, profile.name.clone());
    if let Some(dir) = entry(cache, &key, arch).filter(|_| !options.rebuild) {
        let path = dir.join("config");
        let text = std::fs::read_to_string(&path).map_err(KernelError::io("read", &path))?;
        verified(&profile, &text)?;
        return Ok(Kernel { record: read_record(&dir)?, dir, cached: true, arch, profile: name, budget });
    }
    let expected =
        cache.entries("kernel").iter().find_map(|dir| read_record(dir).ok()).map(|record| record.pieces);
    let (_, config) = kconfig::configure(&profile, &tarball, cache, progress).await?;
    let job =
        build::Job { profile: &profile, tarball: &tarball, toolchain, config, jobs: options.jobs, expected };
    let work = cache.workspace()?;
    let product = job.run(work.path(), progress).await?;
    if options.rebuild
        && let Some(dir) = entry(cache, &key, arch)
    {
        same_products(arch, &product, &dir)?;
    }
    // They are what was measured of it, and no part of the entry: one of the same bytes may lack them, or have them as we
    // knew less.
    let (measured, sizes) = (product.join(size::FILE), work.path().join(size::FILE));
    if measured.is_file() {
        std::fs::rename(&measured, &sizes).map_err(KernelError::io("rename", &measured))?;
    }
    let dir = cache.publish("kernel", &key, &product)?;
    if sizes.is_file() {
        cache::install(&sizes, &dir.join(size::FILE))?;
    }
    Ok(Kernel { record: read_record(&dir)?, dir, cached: false, arch, profile: name, budget })
}

/// Tells what the parts of a kernel weigh that was built before.
///
/// # Errors
/// [`KernelError::NotBuilt`] when it is not in the cache, [`KernelError::NoSizes`] when it was not measured.
pub async fn size(
    dir: &Path,
    options: &Options,
    cache: &Cache,
    progress: Progress,
) -> Result<Report, KernelError> {
    let Input { profile, key, .. } = Input::find(dir, options, cache, progress).await?;
    let not_built = || KernelError::NotBuilt(profile.name.clone());
    let dir = entry(cache, &key, profile.arch).ok_or_else(not_built)?;
    let record = read_record(&dir)?;
    Ok(Sizes::read(&dir, &profile.name)?.report(&profile.name, &record.release, &profile.requests))
}

/// All that a kernel is made of, and its key in the cache.
struct Input {
    profile: Profile,
    tarball: Tarball,
    toolchain: Toolchain,
    key: Digest,
}

impl Input {
    async fn find(
        dir: &Path,
        options: &Options,
        cache: &Cache,
        progress: Progress,
    ) -> Result<Self, KernelError> {
        let profile = Profile::load(dir, &options.profile)?;
        let tarball = source(&profile, options)?.fetch(cache, progress).await?;
        let toolchain = Toolchain::detect(profile.arch)
            .await
            .map_err(KernelError::program("ask the compiler for its version"))?;
        let key = key(&profile, &tarball, &toolchain);
        Ok(Self { profile, tarball, toolchain, key })
    }
}

/// The entry of a kernel in the cache. One of a version that sealed none is believed if its files are as long as they say
/// themselves: it is dear to make.
fn entry(cache: &Cache, key: &Digest, arch: Arch) -> Option<PathBuf> {
    cache.entry_or_older("kernel", key, |dir| {
        let read = |name: &str| std::fs::read(dir.join(name)).unwrap_or_default();
        // The table of sections is at the very end of the file.
        object::File::parse(read("vmlinux").as_slice()).is_ok()
            && read("System.map").ends_with(b"\n")
            && read("config").ends_with(b"\n")
            && read_record(dir).is_ok()
            && arch.is_whole(&read(arch.image()))
    })
}

/// Compares two builds of the same input.
fn same_products(arch: Arch, new: &Path, old: &Path) -> Result<(), KernelError> {
    let mut different = Vec::new();
    for name in products(arch) {
        let digest = |dir: &Path| {
            let path = dir.join(name);
            Digest::of_file(&path).map_err(KernelError::io("read", &path))
        };
        if digest(new)? != digest(old)? {
            different.push(name);
        }
    }
    if different.is_empty() { Ok(()) } else { Err(KernelError::Irreproducible(different)) }
}

/// What makes one kernel another than the next. Comments of fragments do not; nor does the order they come in.
fn key(profile: &Profile, tarball: &Tarball, toolchain: &Toolchain) -> Digest {
    let build = &profile.kernel.build;
    Digest::of_parts([
        ("recipe", build::recipe(profile.arch).as_bytes()),
        ("source", tarball.sha256.to_string().as_bytes()),
        ("requests", profile.requests.to_config().as_bytes()),
        ("compiler", toolchain.compiler.as_bytes()),
        ("linker", toolchain.linker.as_bytes()),
        ("arch", profile.arch.name().as_bytes()),
        ("user", build.user.as_bytes()),
        ("host", build.host.as_bytes()),
    ])
}

fn source(profile: &Profile, options: &Options) -> Result<Source, KernelError> {
    let file = &profile.kernel.source;
    let location = match (&options.source, &file.path, &file.url) {
        (Some(text), _, _) => Location::parse(text),
        (None, Some(path), _) => Location::File(path.clone()),
        (None, None, Some(url)) => Location::Url(url.clone()),
        (None, None, None) => return Err(SourceError::Nowhere.into()),
    };
    let pinned = file.sha256.as_deref().filter(|_| options.source.is_none());
    let sha256 = match (options.sha256, pinned) {
        (Some(digest), _) => Some(digest),
        (None, Some(text)) => Some(text.parse().map_err(SourceError::Digest)?),
        (None, None) => None,
    };
    let hint = match (&options.source, &file.package) {
        (None, Some(package)) => format!("install it with: apt-get install {package}"),
        _ => "pass an existing tarball with --source".to_string(),
    };
    Ok(Source { location, sha256, hint })
}

/// Passes a configuration on if it is what the profile asks for and promises.
fn verified(profile: &Profile, config: &str) -> Result<(), KernelError> {
    let config = Config::parse(config);
    let faults = config.verify(&profile.requests, &profile.forbidden);
    if !faults.is_empty() {
        return Err(KernelError::Faults(faults));
    }
    let missing: Vec<_> = profile.promised().flat_map(|list| list.missing(&config)).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(KernelError::Unmet { profile: profile.name.clone(), missing })
    }
}

fn read_record(dir: &Path) -> Result<Record, KernelError> {
    let path = dir.join("record.json");
    let text = std::fs::read(&path).map_err(KernelError::io("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| KernelError::io("understand", &path)(error.into()))
}

impl Kernel {
    /// Copies the products to where the next steps look for them, and notes them in the manifest.
    ///
    /// # Errors
    /// [`KernelError::Budget`] before anything is copied, when the image that VMMs boot is too large.
    pub fn install(&self, layout: &Layout) -> Result<(), KernelError> {
        let image = self.arch.image();
        let path = self.dir.join(image);
        let size = std::fs::metadata(&path).map_err(KernelError::io("inspect", &path))?.len();
        if let Some(budget) = self.budget.filter(|budget| size > *budget) {
            return Err(KernelError::Budget { image, profile: self.profile.clone(), size, budget });
        }
        for name in products(self.arch) {
            cache::install(&self.dir.join(name), &layout.kernel_file(name, &self.profile))?;
        }
        Manifest::update(layout, |manifest| {
            let part = manifest::KernelPart {
                release: self.record.release.clone(),
                profile: self.profile.clone(),
                source: self.record.source.clone(),
                source_sha256: self.record.source_sha256,
                toolchain: self.record.toolchain.clone(),
            };
            if self.profile == SHIPPED {
                manifest.kernel = Some(part);
            } else {
                manifest.kernels.insert(self.profile.clone(), part);
            }
            for name in self.products() {
                manifest.add_product(layout, &name)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The name of the image that VMMs boot, before the profile's is put behind it.
    pub fn image(&self) -> &'static str {
        self.arch.image()
    }

    /// The profile it was asked for by.
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// The names of the files that [`Kernel::install`] makes.
    pub fn products(&self) -> Vec<String> {
        products(self.arch).iter().map(|file| product(file, &self.profile)).collect()
    }
}
