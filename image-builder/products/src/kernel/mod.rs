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
pub mod data;
mod error;
pub mod forbid;
pub mod fragment;
mod kbuild;
mod kconfig;
pub mod profile;
mod record;
pub mod requirement;
pub mod size;
pub mod toolchain;
mod verified;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::install;
use crate::source::{Location, Source, SourceError, Tarball};
use store::cache::{self, Cache};
use store::digest::Digest;
use store::layout::Layout;
pub use store::product::PROFILE as SHIPPED;
use store::product::Product;
use store::progress::Progress;

use arch::Arch;
use config::Config;
use data::DataError;
pub use error::KernelError;
use profile::{Profile, known_profiles};
pub use record::Record;
use requirement::{Requirement, Standing};
use size::{Report, Sizes};
use toolchain::Toolchain;

/// What to build, apart from the data files.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The profile's name.
    pub profile: String,
    /// The processor that the profile must be for, if that matters.
    pub arch: Option<Arch>,
    /// Fragments of a user, which go over those of the profile.
    pub fragments: Vec<PathBuf>,
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
    let profile = profile(dir, options)?;
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
        verified::verified(&profile, &text)?;
        return Ok(Kernel { record: Record::read(&dir)?, dir, cached: true, arch, profile: name, budget });
    }
    let expected =
        cache.entries("kernel").iter().find_map(|dir| Record::read(dir).ok()).map(|record| record.pieces);
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
    Ok(Kernel { record: Record::read(&dir)?, dir, cached: false, arch, profile: name, budget })
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
    let record = Record::read(&dir)?;
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
        let profile = profile(dir, options)?;
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
            && Record::read(dir).is_ok()
            && arch::is_whole(arch, &read(arch.image()))
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
        ("arch", profile.arch.linux().as_bytes()),
        ("user", build.user.as_bytes()),
        ("host", build.host.as_bytes()),
    ])
}

/// The profile that options name, with their fragments; an error when it is for another processor than they say.
fn profile(dir: &Path, options: &Options) -> Result<Profile, DataError> {
    let profile = Profile::load(dir, &options.profile)?;
    if let Some(arch) = options.arch.filter(|arch| *arch != profile.arch) {
        let is_for = |name: &String| Profile::load(dir, name).is_ok_and(|other| other.arch == arch);
        let known: Vec<_> = known_profiles(dir).into_iter().filter(is_for).collect();
        let (name, theirs) = (profile.name, profile.arch);
        return Err(DataError::ProfileArch { name, theirs, arch, known: known.join(", ") });
    }
    profile.with_fragments(dir, &options.fragments)
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
        let paths = products(self.arch).map(|file| self.dir.join(file));
        let sources = paths.iter().map(|path| install::Source::File(path));
        let files: Vec<_> = self.products().into_iter().zip(sources).collect();
        Ok(install::install(layout, &files, Some(&self.record.part(&self.profile)))?)
    }

    /// The name of the image that VMMs boot, before the profile's is put behind it.
    pub fn image(&self) -> &'static str {
        self.arch.image()
    }

    /// The processor that it is for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The profile it was asked for by.
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// The names of the files that [`Kernel::install`] makes.
    pub fn products(&self) -> Vec<String> {
        let name = |file: &str| Product::kernel(file, &self.profile).file_name(self.arch);
        products(self.arch).into_iter().map(name).collect()
    }
}
