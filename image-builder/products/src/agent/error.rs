//! Why there is no program.

use std::io;
use std::path::PathBuf;

use crate::elf::ElfError;
use crate::install::InstallError;
use crate::program::ProgramError;
use store::arch::Arch;

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
    /// The binary would not run on the processor that it was built for.
    #[error("{path} is for {}, not for {arch}; remove it, and build it again", .found.map_or("another processor".to_owned(), |found| found.to_string()))]
    OtherArch {
        /// The binary.
        path: PathBuf,
        /// What it should be for.
        arch: Arch,
        /// What it is for, if that is known.
        found: Option<Arch>,
    },
    /// The compiler cannot build for the processor.
    #[error(
        "there is no Rust library for {target} here; add it with `rustup target add {target}`, or with `.ci/rust-debian {}` of the \
         source tree, which takes Debian's compiler (`make setup ARCH={arch}` tries both)", .arch.debian()
    )]
    NoTarget {
        /// The processor.
        arch: Arch,
        /// The compiler's name for it.
        target: &'static str,
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
