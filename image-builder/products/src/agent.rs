//! Builds the static agent binary with cargo and puts it where the recipe looks for it.
//!
//! Promises that the binary needs no loader and no library: it is the guest's first process. Paths of this host do not
//! get into it, and it is for the processor that it was built for. Must never build with other flags than the ones here: they
//! are what makes it static and small.

mod error;
mod tools;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;

use crate::elf;
use crate::install::{self, InstallError, Source};
use crate::manifest::{AgentPart, Part};
use crate::program::Program;
pub use error::AgentError;
use store::arch::Arch;
use store::digest::Digest;
use store::layout::Layout;
pub use store::product::PROGRAMS;
use store::product::Product;
use store::progress::{Progress, Step, bytes};
pub(crate) use tools::INSTALL;
use tools::Tools;

/// The cargo profile.
pub const PROFILE: &str = "guest";

/// The agent's package and binary.
const AGENT: &str = "agent";
/// The programs of a release that run on the host.
pub const TOOLS: [&str; 2] = ["image-builder", "pith"];
/// The cargo profile of [`TOOLS`].
pub(crate) const TOOLS_PROFILE: &str = "dist";

/// How often a build that waits for another one looks whether that has ended.
const POLL: Duration = Duration::from_millis(50);

#[derive(Deserialize)]
struct Metadata {
    target_directory: PathBuf,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

/// Builds the agent for the processor of `layout`, with some of its cargo features, checks that it is static, installs it and notes it in the manifest.
///
/// # Errors
/// When cargo fails, with its last lines, or when the outcome is not a static program.
pub async fn build(
    layout: &Layout,
    features: &BTreeSet<String>,
    progress: Progress,
) -> Result<AgentPart, AgentError> {
    let mut step = progress.step("compile the agent", None);
    let compiled = compile(layout, AGENT, features, |line| step.advance_if(line)).await?;
    let compiler = Tools::find(layout, layout.root()).await?.version(layout.root()).await?;
    let lock = layout.root().join("Cargo.lock");
    let (lock_sha256, _) =
        Digest::of_file(&lock).map_err(|source| AgentError::Read { path: lock, source })?;
    let (target, profile) = (layout.arch().rust().into(), PROFILE.into());
    let version = compiled.version.clone();
    let part = AgentPart { version, compiler, target, profile, features: features.clone(), lock_sha256 };
    compiled.install(layout, &Product::Agent(features.clone()), Some(&part), step)?;
    Ok(part)
}

/// Builds another static program of the workspace, the binary of a package of the same name, and installs it.
///
/// # Errors
/// As [`build`].
pub async fn build_program(layout: &Layout, name: &str, progress: Progress) -> Result<(), AgentError> {
    let mut step = progress.step(&format!("compile {name}"), None);
    let compiled = compile(layout, name, &BTreeSet::new(), |line| step.advance_if(line)).await?;
    compiled.install(layout, &Product::Program(name.to_owned()), None, step)
}

/// Builds the programs of a release that run on the host, and puts them into `directory`. They are static, so that one build
/// runs on every distribution, and know no path of this machine. Gives their paths.
///
/// # Errors
/// As [`build`].
pub async fn build_tools(
    layout: &Layout,
    directory: &Path,
    progress: Progress,
) -> Result<Vec<PathBuf>, AgentError> {
    let mut step = progress.step("compile the programs", None);
    let none = BTreeSet::new();
    let (packages, arch) = (TOOLS.into(), Arch::host());
    let job = Job { names: &TOOLS, packages, profile: TOOLS_PROFILE, features: &none, arch };
    let (built, _, _lock) = job.run(layout, |line| step.advance_if(line)).await?;
    let mut programs = Vec::new();
    for (path, name) in built.iter().zip(TOOLS) {
        static_size(path, arch)?;
        let program = directory.join(name);
        install::Source::File(path).put(&program).map_err(InstallError::from)?;
        programs.push(program);
    }
    let crates = step.count();
    step.done(&format!("{crates} crates"));
    Ok(programs)
}

/// A static program that cargo has built.
struct Compiled {
    path: PathBuf,
    /// Bytes.
    size: u64,
    /// Its package's.
    version: String,
    /// No other build of this workspace replaces it.
    _lock: Flock<File>,
}

impl Compiled {
    fn install(
        self,
        layout: &Layout,
        product: &Product,
        part: Option<&dyn Part>,
        step: Step,
    ) -> Result<(), AgentError> {
        install::install(layout, &[(product.file_name(layout.arch()), Source::File(&self.path))], part)?;
        let crates = step.count();
        step.done(&format!("{crates} crates, {}", bytes(self.size)));
        Ok(())
    }
}

/// Waits until no other build holds cargo's directory. Binaries with different features have the same name there: without
/// this, a second build could replace what the first has made before it is copied.
async fn lock(directory: &Path) -> Result<Flock<File>, AgentError> {
    let failed = |source: io::Error| AgentError::Lock { path: directory.to_path_buf(), source };
    std::fs::create_dir_all(directory).map_err(failed)?;
    loop {
        let handle = File::open(directory).map_err(failed)?;
        match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, Errno::EWOULDBLOCK)) => tokio::time::sleep(POLL).await,
            Err((_, errno)) => return Err(failed(errno.into())),
        }
    }
}

async fn compile(
    layout: &Layout,
    name: &str,
    features: &BTreeSet<String>,
    advance: impl FnMut(Option<&str>),
) -> Result<Compiled, AgentError> {
    let (packages, arch) = (selection(name), layout.arch());
    let job = Job { names: &[name], packages, profile: PROFILE, features, arch };
    let (mut paths, packages, lock) = job.run(layout, advance).await?;
    let version = packages
        .into_iter()
        .find(|package| package.name == name)
        .ok_or_else(|| AgentError::NoPackage(name.to_owned()))?
        .version;
    let path = paths.remove(0);
    let size = static_size(&path, arch)?;
    Ok(Compiled { path, size, version, _lock: lock })
}

/// What cargo is asked to build.
struct Job<'a> {
    /// The binaries.
    names: &'a [&'a str],
    packages: BTreeSet<&'a str>,
    profile: &'a str,
    features: &'a BTreeSet<String>,
    /// For which processor.
    arch: Arch,
}

impl Job<'_> {
    /// Gives the paths of the binaries, the packages of the workspace, and a lock: as long as it is held, no other build of
    /// this workspace replaces the binaries.
    async fn run(
        &self,
        layout: &Layout,
        mut advance: impl FnMut(Option<&str>),
    ) -> Result<(Vec<PathBuf>, Vec<Package>, Flock<File>), AgentError> {
        let program = |operation| move |source| AgentError::Program { operation, source };
        // However the tree is named, the flags must be the same: they are part of what cargo keeps, and of the bytes.
        let root = layout.root();
        let root =
            root.canonicalize().map_err(|source| AgentError::Read { path: root.to_path_buf(), source })?;
        let cargo = cargo_name();
        let cargo = || Program::new(&cargo, INSTALL).current_dir(&root);
        let metadata =
            cargo().args(["metadata", "--no-deps", "--offline", "--format-version=1"]).lines().await;
        let metadata = metadata.map_err(program("ask cargo about the workspace"))?;
        let json = metadata.iter().find(|line| line.starts_with('{')).map_or("", String::as_str);
        let Metadata { target_directory, packages } = serde_json::from_str(json)?;
        // The triple is named even where it is the host's: without it, build scripts would be linked statically too.
        let target = self.arch.rust();
        let tools = Tools::find(&layout.for_arch(self.arch), &root).await?;
        let lock = lock(&target_directory).await?;
        let listed = self.features.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let places = places(&root, cargo_home().as_deref(), &target_directory);
        let mut build = cargo()
            .args(["build", "--locked", "--profile", self.profile, "--target", target, "--features", &listed])
            .args(self.names.iter().flat_map(|name| ["--bin", name]))
            .args(self.packages.iter().flat_map(|package| ["--package", package]))
            .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(self.profile, &places))
            .env_remove("RUSTFLAGS");
        for (name, program) in &tools.env {
            build = build.env(name, program);
        }
        if self.profile == TOOLS_PROFILE {
            build = build.env(&format!("CFLAGS_{}", target.replace('-', "_")), c_flags(&places));
        }
        build
            .run(|line| advance(line.trim_start().strip_prefix("Compiling ")))
            .await
            .map_err(program("compile a static program"))?;
        let built = target_directory.join(target).join(self.profile);
        Ok((self.names.iter().map(|name| built.join(name)).collect(), packages, lock))
    }
}

/// Checks that a program of this host needs no loader and no library.
///
/// # Errors
/// When it cannot be read, is no program, is for another processor, or is not static.
pub fn check_static(path: &Path) -> Result<(), AgentError> {
    static_size(path, Arch::host()).map(drop)
}

/// Bytes of a program for `arch` that needs no loader.
fn static_size(path: &Path, arch: Arch) -> Result<u64, AgentError> {
    let binary =
        std::fs::read(path).map_err(|source| AgentError::Read { path: path.to_path_buf(), source })?;
    let damaged = |source| AgentError::Elf { path: path.to_path_buf(), source };
    let found = Arch::of_elf_machine(elf::machine(&binary).map_err(damaged)?);
    if found != Some(arch) {
        return Err(AgentError::OtherArch { path: path.to_path_buf(), arch, found });
    }
    match elf::interpreter(&binary).map_err(damaged)? {
        None => Ok(binary.len() as u64),
        Some(loader) => Err(AgentError::Dynamic { path: path.to_path_buf(), loader }),
    }
}

/// The packages that cargo is told of when it builds the binary `name`. It picks the features of every crate for all of
/// them together, so the programs name the agent and each other: what they share is compiled once, and most of it for
/// the agent already. The agent names nobody, since nothing but what it needs itself may get into it.
fn selection(name: &str) -> BTreeSet<&str> {
    match name {
        AGENT => BTreeSet::from([AGENT]),
        program => PROGRAMS.into_iter().chain([AGENT, program]).collect(),
    }
}

/// Directories of this machine, and what they are called in what is built. Of two that fit a path, the later one counts, so the
/// root, which is the longer one in most cases, comes last.
pub(crate) fn places(root: &Path, cargo_home: Option<&Path>, target: &Path) -> Vec<(String, &'static str)> {
    let target = (!target.starts_with(root)).then_some(target);
    let all = [(cargo_home, "/cargo"), (target, "/target"), (Some(root), "/pith")];
    all.into_iter().filter_map(|(from, to)| Some((from?.display().to_string(), to))).collect()
}

/// The compiler flags, each separated by the byte 0x1f as cargo wants it. Panic messages have the source's paths in them.
pub(crate) fn rust_flags(profile: &str, places: &[(String, &str)]) -> String {
    let mut flags = vec!["-C".to_string(), "target-feature=+crt-static".into()];
    // A program of the host stays at a random address.
    if profile == PROFILE {
        flags.extend(["-C".into(), "relocation-model=static".into()]);
        // The sorted index of unwind tables packs badly: 41 kB of the agent. Without one, libgcc sorts the tables itself when
        // the first panic unwinds, since the start code of a static program tells it where they are.
        flags.extend(["-C".into(), "link-arg=-Wl,--no-eh-frame-hdr".into()]);
    }
    flags.extend(places.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")));
    flags.join("\x1f")
}

/// The C compiler's flags for the C in crates: its assertions have the source's paths in them.
fn c_flags(places: &[(String, &str)]) -> String {
    let flags = places.iter().map(|(from, to)| format!("-ffile-prefix-map={from}={to}"));
    flags.collect::<Vec<_>>().join(" ")
}

/// The cargo that runs this program, or the one on PATH.
pub(crate) fn cargo_name() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string())
}

pub(crate) fn cargo_home() -> Option<PathBuf> {
    let set =
        |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    set("CARGO_HOME").or_else(|| Some(set("HOME")?.join(".cargo")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_build_waits_until_what_the_other_made_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).await.unwrap();
        let mut second = std::pin::pin!(lock(dir.path()));
        assert!(tokio::time::timeout(4 * POLL, &mut second).await.is_err());
        drop(first);
        second.await.unwrap();
    }

    #[test]
    fn programs_are_built_with_the_same_crates_and_the_agent_with_its_own() {
        assert_eq!(selection("agent"), BTreeSet::from(["agent"]));
        for program in PROGRAMS {
            assert_eq!(selection(program), BTreeSet::from(["agent", "jail", "probe"]));
        }
    }

    #[test]
    fn a_program_of_another_processor_is_refused() {
        let own = std::env::current_exe().unwrap();
        let (here, other) = match Arch::host() {
            Arch::X86_64 => (Arch::X86_64, Arch::Aarch64),
            Arch::Aarch64 => (Arch::Aarch64, Arch::X86_64),
        };
        let error = static_size(&own, other).unwrap_err().to_string();
        assert!(error.contains(&format!("is for {here}, not for {other}")), "{error}");
        assert!(matches!(static_size(&own, here), Err(AgentError::Dynamic { .. })));
        let dir = tempfile::tempdir().unwrap();
        let mips = dir.path().join("mips");
        let mut program = std::fs::read(&own).unwrap();
        program[18] = 8;
        std::fs::write(&mips, program).unwrap();
        let error = static_size(&mips, here).unwrap_err().to_string();
        assert!(error.contains("is for another processor"), "{error}");
    }

    #[test]
    fn flags_make_it_static_and_hide_this_host() {
        let home = Some(Path::new("/home/me/.cargo"));
        let here = places(Path::new("/src"), home, Path::new("/src/target"));
        let flags = rust_flags(PROFILE, &here);
        let flags: Vec<_> = flags.split('\x1f').collect();
        assert_eq!(
            flags,
            [
                "-C",
                "target-feature=+crt-static",
                "-C",
                "relocation-model=static",
                "-C",
                "link-arg=-Wl,--no-eh-frame-hdr",
                "--remap-path-prefix=/home/me/.cargo=/cargo",
                "--remap-path-prefix=/src=/pith",
            ]
        );
        assert_eq!(c_flags(&here), "-ffile-prefix-map=/home/me/.cargo=/cargo -ffile-prefix-map=/src=/pith");
        let elsewhere = places(Path::new("/src"), None, Path::new("/build"));
        assert_eq!(elsewhere, [("/build".to_owned(), "/target"), ("/src".to_owned(), "/pith")]);
        let flags = rust_flags(TOOLS_PROFILE, &elsewhere);
        assert!(flags.contains("crt-static") && !flags.contains("relocation-model"), "{flags}");
    }
}
