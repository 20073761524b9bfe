//! Builds the static agent binary with cargo and puts it where the recipe looks for it.
//!
//! Promises that the binary needs no loader and no library: it is the guest's first process. Paths of this host do not
//! get into it. Must never build with other flags than the ones here: they are what makes it static and small.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;

use crate::elf::{self, ElfError};
use crate::install::{self, InstallError, Source};
use crate::manifest::{AgentPart, Part};
use crate::program::{Program, ProgramError};
use store::digest::Digest;
use store::layout::Layout;
pub use store::product::PROGRAMS;
use store::product::Product;
use store::progress::{Progress, Step, bytes};

/// The target triple, named even where it is the host's: without it, build scripts would be linked statically too.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The cargo profile.
pub const PROFILE: &str = "guest";

/// The agent's package and binary.
const AGENT: &str = "agent";

const INSTALL: &str = "install Rust by rustup";

/// How often a build that waits for another one looks whether that has ended.
const POLL: Duration = Duration::from_millis(50);

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// cargo or rustc failed.
    #[error("cannot {operation}")]
    Program {
        /// What was being done.
        operation: &'static str,
        /// How it failed.
        source: ProgramError,
    },
    /// cargo said something unexpected.
    #[error("cannot understand what cargo metadata says")]
    Metadata(#[from] serde_json::Error),
    /// The workspace has no such package.
    #[error("the workspace has no package named {0}")]
    NoPackage(String),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another build cannot be waited for.
    #[error("cannot lock {path}")]
    Lock {
        /// Cargo's directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The binary would not run as the first process of an empty file system.
    #[error("{path} wants the loader {loader}: it is not static")]
    Dynamic {
        /// The binary.
        path: PathBuf,
        /// What it wants.
        loader: String,
    },
    /// The binary is no ELF file.
    #[error("{path} is not a program")]
    Elf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ElfError,
    },
    /// The binary cannot be put in its place.
    #[error(transparent)]
    Install(#[from] InstallError),
}

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

/// Builds the agent with some of its cargo features, checks that it is static, installs it and notes it in the manifest.
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
    let compiler = Program::new("rustc", INSTALL).arg("--version").current_dir(layout.root()).lines().await;
    let compiler = compiler
        .map_err(|source| AgentError::Program { operation: "ask rustc for its version", source })?
        .into_iter()
        .next()
        .unwrap_or_default();
    let lock = layout.root().join("Cargo.lock");
    let (lock_sha256, _) =
        Digest::of_file(&lock).map_err(|source| AgentError::Read { path: lock, source })?;
    let (target, profile) = (TARGET.into(), PROFILE.into());
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
        install::install(layout, &[(product.file_name(), Source::File(&self.path))], part)?;
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
    mut advance: impl FnMut(Option<&str>),
) -> Result<Compiled, AgentError> {
    let program = |operation| move |source| AgentError::Program { operation, source };
    // However the tree is named, the flags must be the same: they are part of what cargo keeps, and of the bytes.
    let root = layout.root();
    let root = root.canonicalize().map_err(|source| AgentError::Read { path: root.to_path_buf(), source })?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let cargo = || Program::new(&cargo, INSTALL).current_dir(&root);
    let metadata = cargo().args(["metadata", "--no-deps", "--offline", "--format-version=1"]).lines().await;
    let metadata = metadata.map_err(program("ask cargo about the workspace"))?;
    let json = metadata.iter().find(|line| line.starts_with('{')).map_or("", String::as_str);
    let Metadata { target_directory, packages } = serde_json::from_str(json)?;
    let version = packages
        .into_iter()
        .find(|package| package.name == name)
        .ok_or_else(|| AgentError::NoPackage(name.to_owned()))?
        .version;
    let lock = lock(&target_directory).await?;
    let listed = features.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    cargo()
        .args(["build", "--bin", name, "--profile", PROFILE, "--target", TARGET, "--features", &listed])
        .args(selection(name).into_iter().flat_map(|package| ["--package", package]))
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(&root, cargo_home().as_deref()))
        .env_remove("RUSTFLAGS")
        .run(|line| advance(line.trim_start().strip_prefix("Compiling ")))
        .await
        .map_err(program("compile a static program"))?;
    let path = target_directory.join(TARGET).join(PROFILE).join(name);
    let binary = std::fs::read(&path).map_err(|source| AgentError::Read { path: path.clone(), source })?;
    match elf::interpreter(&binary) {
        Ok(None) => Ok(Compiled { path, size: binary.len() as u64, version, _lock: lock }),
        Ok(Some(loader)) => Err(AgentError::Dynamic { path, loader }),
        Err(source) => Err(AgentError::Elf { path, source }),
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

/// The compiler flags, each separated by the byte 0x1f as cargo wants it.
fn rust_flags(root: &Path, cargo_home: Option<&Path>) -> String {
    let mut flags = vec![
        "-C".to_string(),
        "target-feature=+crt-static".into(),
        "-C".into(),
        "relocation-model=static".into(),
    ];
    // Panic messages carry source paths; the later of two prefixes that fit wins, so the root comes last.
    for (from, to) in [(cargo_home, "/cargo"), (Some(root), "/pith")] {
        flags.extend(from.map(|from| format!("--remap-path-prefix={}={to}", from.display())));
    }
    flags.join("\x1f")
}

fn cargo_home() -> Option<PathBuf> {
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
    fn flags_make_it_static_and_hide_this_host() {
        let flags = rust_flags(Path::new("/src"), Some(Path::new("/home/me/.cargo")));
        let flags: Vec<_> = flags.split('\x1f').collect();
        assert_eq!(
            flags,
            [
                "-C",
                "target-feature=+crt-static",
                "-C",
                "relocation-model=static",
                "--remap-path-prefix=/home/me/.cargo=/cargo",
                "--remap-path-prefix=/src=/pith",
            ]
        );
        assert_eq!(rust_flags(Path::new("/src"), None).split('\x1f').count(), 5);
    }
}
