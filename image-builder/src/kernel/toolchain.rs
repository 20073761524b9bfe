//! The compiler and linker of this host, by what they say of themselves.
//!
//! Their versions are part of a kernel's cache key: another compiler makes another kernel. Must never choose a
//! compiler; that is make's business, and PATH's.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::program::{Program, ProgramError};

/// What to install when a build tool is missing.
pub(crate) const INSTALL: &str =
    "install gcc, make, binutils, flex, bison, bc, libelf-dev, xz-utils and zstd";

/// First lines of the tools' `--version`.
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

/// What else the build runs; some of it only after minutes, so their absence is better found out before.
const OTHERS: [&str; 6] = ["make", "flex", "bison", "bc", "strip", "zstd"];

impl Toolchain {
    /// Asks the compiler and the linker, and makes sure that the other tools are there.
    ///
    /// # Errors
    /// When one of them is missing.
    pub async fn detect() -> Result<Self, ProgramError> {
        for name in OTHERS {
            version(name).await?;
        }
        Ok(Self { compiler: version("gcc").await?, linker: version("ld").await? })
    }
}

async fn version(name: &str) -> Result<String, ProgramError> {
    let lines = Program::new(name, INSTALL).arg("--version").lines().await?;
    Ok(lines.into_iter().next().unwrap_or_default())
}
