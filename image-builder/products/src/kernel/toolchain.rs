//! The compiler and linker of this host, by what they say of themselves.
//!
//! Their versions are part of a kernel's cache key: another compiler makes another kernel. Must never choose a
//! compiler beyond its architecture; that is make's business, and PATH's.

pub use crate::manifest::Toolchain;
use crate::program::{Program, ProgramError};

use super::arch::Arch;

/// What to install when a build tool is missing.
pub(crate) const INSTALL: &str =
    "install gcc, make, binutils, flex, bison, bc, libelf-dev, xz-utils and zstd";

/// What to install when a tool of an architecture is missing.
pub(super) fn install(arch: Arch) -> String {
    if arch == Arch::host() { INSTALL.to_owned() } else { arch.compiler_hint() }
}

/// What else the build runs; some of it only after minutes, so their absence is better found out before.
const OTHERS: [&str; 5] = ["make", "flex", "bison", "bc", "zstd"];

impl Toolchain {
    /// Asks the compiler and the linker for `arch`, and makes sure that the other tools are there.
    ///
    /// # Errors
    /// When one of them is missing.
    pub async fn detect(arch: Arch) -> Result<Self, ProgramError> {
        for name in OTHERS {
            version(name, INSTALL).await?;
        }
        // The build has programs of its own that run here; where the kernel does too, its compiler is the same.
        if arch != Arch::host() {
            version("gcc", INSTALL).await?;
        }
        let hint = install(arch);
        let of_arch = |name: &str| format!("{}{name}", arch.tools());
        version(&of_arch("strip"), &hint).await?;
        Ok(Self {
            compiler: version(&of_arch("gcc"), &hint).await?,
            linker: version(&of_arch("ld"), &hint).await?,
        })
    }
}

async fn version(name: &str, hint: &str) -> Result<String, ProgramError> {
    let lines = Program::new(name, hint).arg("--version").lines().await?;
    Ok(lines.into_iter().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[tokio::test]
    async fn a_missing_cross_compiler_is_named_with_its_package() {
        for arch in Arch::ALL.into_iter().filter(|arch| *arch != Arch::host()) {
            let name = format!("{}no-such-tool", arch.tools());
            let error = version(&name, &install(arch)).await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&name), "{text}");
            assert!(text.contains(&format!("apt-get install {}", arch.compiler_package())), "{text}");
            assert!(error.source().is_some());
        }
    }
}
