//! Why there is no kernel.

use std::io;
use std::path::{Path, PathBuf};

use super::config::Fault;
use super::data::DataError;
use super::requirement::Missing;
use crate::elf::ElfError;
use crate::install::InstallError;
use crate::program::ProgramError;
use crate::source::SourceError;
use store::cache::CacheError;

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
    /// It cannot be put into its place.
    #[error(transparent)]
    Install(#[from] InstallError),
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
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }

    pub(super) fn program(operation: &'static str) -> impl FnOnce(ProgramError) -> Self {
        move |source| Self::Program { operation, source }
    }
}

fn list<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("  {item}")).collect::<Vec<_>>().join("\n")
}
