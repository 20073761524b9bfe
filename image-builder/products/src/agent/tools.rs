//! The compiler and the linker that programs for a processor are built with on this machine.
//!
//! Promises that what is missing is found out before cargo runs, and named with the ways to it. Must never install anything.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::AgentError;
use crate::program::Program;
use store::arch::Arch;
use store::layout::Layout;

pub(crate) const INSTALL: &str = "install Rust by rustup";

/// The compiler and the linker for a processor.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tools {
    /// The compiler, if it is not the one that the source tree selects.
    rustc: Option<PathBuf>,
    /// What cargo must be told in its environment.
    pub(super) env: Vec<(String, OsString)>,
}

impl Tools {
    /// Finds what builds programs for the processor of `layout` here: the source tree's own compiler if it has the library, else
    /// Debian's. A linker that the user has named to cargo stays.
    pub(super) async fn find(layout: &Layout, root: &Path) -> Result<Self, AgentError> {
        let (arch, mut tools) = (layout.arch(), Self::default());
        if arch == Arch::host() {
            return Ok(tools);
        }
        let target = arch.rust();
        let program = |operation| move |source| AgentError::Program { operation, source };
        let library = Program::new("rustc", INSTALL).current_dir(root);
        let library = library.args(["--print", "target-libdir", "--target", target]).lines().await;
        let library = library.map_err(program("ask rustc for its library"))?;
        if !library.first().is_some_and(|directory| has_std(Path::new(directory))) {
            let of_debian = layout.rustc().ok_or(AgentError::NoTarget { arch, target })?;
            tools.env.push(("RUSTC".to_owned(), of_debian.clone().into()));
            tools.rustc = Some(of_debian);
        }
        let name = format!("CARGO_TARGET_{}_LINKER", target.replace('-', "_").to_uppercase());
        if std::env::var_os(&name).is_none_or(|linker| linker.is_empty()) {
            let linker = format!("{}gcc", arch.tools());
            let asked = Program::new(&linker, &arch.compiler_hint()).arg("--version").lines().await;
            asked.map_err(program("link for another processor"))?;
            tools.env.push((name, linker.into()));
        }
        Ok(tools)
    }

    /// The compiler's own word about itself.
    pub(super) async fn version(&self, root: &Path) -> Result<String, AgentError> {
        let rustc = self.rustc.as_ref().map_or("rustc".into(), |path| path.to_string_lossy());
        let lines = Program::new(&rustc, INSTALL).arg("--version").current_dir(root).lines().await;
        let lines =
            lines.map_err(|source| AgentError::Program { operation: "ask rustc for its version", source })?;
        Ok(lines.into_iter().next().unwrap_or_default())
    }
}

/// Whether Rust's standard library is in a directory of libraries.
fn has_std(directory: &Path) -> bool {
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().into_string().ok()).any(|name| name.starts_with("libstd-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_of_a_processor_is_there_or_both_ways_to_it_are_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_std(dir.path()) && !has_std(&dir.path().join("none")));
        std::fs::write(dir.path().join("libstd-0123.rlib"), "").unwrap();
        assert!(has_std(dir.path()));
        let (arch, target) = (Arch::Aarch64, Arch::Aarch64.rust());
        let error = AgentError::NoTarget { arch, target }.to_string();
        for way in [
            "rustup target add aarch64-unknown-linux-gnu",
            ".ci/rust-debian arm64",
            "make setup ARCH=aarch64",
        ] {
            assert!(error.contains(way), "{error}");
        }
    }

    #[test]
    fn make_setup_knows_every_processor() {
        let script = |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci").join(name);
            std::fs::read_to_string(path).unwrap()
        };
        let (setup, compiler, packages) = (script("setup"), script("rust-debian"), script("packages"));
        for arch in Arch::ALL {
            let debian = arch.debian();
            assert!(setup.contains(&format!("[{arch}]={debian}")), "{arch}");
            assert!(compiler.contains(&format!("{debian}) target={} ;;", arch.rust())), "{arch}");
            assert!(packages.contains(debian), "{arch}");
            if arch != Arch::host() {
                assert!(setup.contains(&format!("[{arch}]='{} ", arch.compiler_package())), "{arch}");
            }
        }
    }

    #[tokio::test]
    async fn the_hosts_own_processor_needs_no_other_tools() {
        let layout = Layout::new("/".into(), None);
        assert_eq!(Tools::find(&layout, Path::new("/")).await.unwrap(), Tools::default());
    }
}
