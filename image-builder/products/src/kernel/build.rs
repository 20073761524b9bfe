//! One compilation: unpack, configure, make, strip, inspect, measure.
//!
//! Promises that the outcome is a directory with every product and its record, or an error; the environment that
//! make sees is spelled out here. Must never decide whether to build.

use std::fs;
use std::path::{Path, PathBuf};

use crate::elf;
use crate::program::Program;
use crate::source::Tarball;
use store::progress::{Progress, bytes};

use super::arch::{self, Arch};
use super::config::Config;
use super::error::KernelError;
use super::profile::Profile;
use super::record::Record;
use super::size::Sizes;
use super::toolchain::{self, INSTALL, Toolchain};

/// Names the way of building. Part of the cache key: change it when the steps below change their outcome.
pub(super) fn recipe(arch: Arch) -> String {
    format!("tinyconfig+fragments, in tree, {}+vmlinux, strip -s, version 1", arch::target(arch))
}

/// Everything that one compilation needs.
pub(super) struct Job<'a> {
    pub(super) profile: &'a Profile,
    pub(super) tarball: &'a Tarball,
    pub(super) toolchain: Toolchain,
    /// The verified configuration.
    pub(super) config: String,
    pub(super) jobs: usize,
    /// How many pieces an earlier build had.
    pub(super) expected: Option<u64>,
}

impl Job<'_> {
    /// Builds below `work` and answers the directory of products.
    pub(super) async fn run(self, work: &Path, progress: Progress) -> Result<PathBuf, KernelError> {
        let (tree, product) = (work.join("tree"), work.join("product"));
        for dir in [&tree, &product] {
            fs::create_dir(dir).map_err(KernelError::io("create", dir))?;
        }
        self.tarball.unpack(&tree, &[], progress).await?;
        let dot_config = tree.join(".config");
        fs::write(&dot_config, &self.config).map_err(KernelError::io("write", &dot_config))?;
        self.make(&tree, 1)
            .arg("olddefconfig")
            .run(|_| ())
            .await
            .map_err(KernelError::program("run kconfig"))?;
        let config = fs::read_to_string(&dot_config).map_err(KernelError::io("read", &dot_config))?;
        super::verified::verified(self.profile, &config)?;

        let jobs = match self.jobs {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            jobs => jobs,
        };
        let mut step = progress.step("compile the kernel", self.expected);
        let arch = self.profile.arch;
        let make = self.make(&tree, jobs).args([arch::target(arch), "vmlinux"]);
        make.run(|line| step.advance_if(piece(line)))
            .await
            .map_err(KernelError::program("compile the kernel"))?;
        let pieces = step.count();

        let vmlinux = product.join("vmlinux");
        let strip = Program::new(&format!("{}strip", arch.tools()), &toolchain::install(arch))
            .arg("--strip-all")
            .arg("-o")
            .arg(&vmlinux)
            .arg(tree.join("vmlinux"));
        strip.run(|_| ()).await.map_err(KernelError::program("strip vmlinux"))?;
        let pvh_entry = match arch {
            Arch::X86_64 => {
                let vmlinux = fs::read(&vmlinux).map_err(KernelError::io("read", &vmlinux))?;
                Some(elf::pvh_entry(&vmlinux)?)
            }
            Arch::Aarch64 => None,
        };
        let image = format!("arch/{}/boot/{}", arch.linux_directory(), arch::target(arch));
        for (from, to) in
            [(image.as_str(), arch.image()), (".config", "config"), ("System.map", "System.map")]
        {
            let from = tree.join(from);
            fs::copy(&from, product.join(to)).map_err(KernelError::io("copy", &from))?;
        }
        Sizes::measure(&tree, arch.linux_directory(), &Config::parse(&config))?.write(&product)?;
        let path = tree.join("include/config/kernel.release");
        let release = fs::read_to_string(&path).map_err(KernelError::io("read", &path))?.trim().to_string();
        let size =
            fs::metadata(product.join(arch.image())).map_err(KernelError::io("inspect", &product))?.len();
        let record = Record {
            release,
            profile: self.profile.name.clone(),
            source: self.tarball.name.clone(),
            source_sha256: self.tarball.sha256,
            toolchain: self.toolchain,
            pieces,
            pvh_entry,
        };
        let path = product.join("record.json");
        let text = serde_json::to_vec_pretty(&record)
            .map_err(|error| KernelError::io("write", &path)(error.into()))?;
        fs::write(&path, text).map_err(KernelError::io("write", &path))?;
        step.done(&format!("{pieces} pieces, {} {}", arch.image(), bytes(size)));
        Ok(product)
    }

    /// make with the environment that makes the outcome depend on the input alone.
    fn make(&self, tree: &Path, jobs: usize) -> Program {
        let build = &self.profile.kernel.build;
        arch::told(self.profile.arch, Program::new("make", INSTALL))
            .arg("--directory")
            .arg(tree)
            .arg(format!("--jobs={jobs}"))
            .env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970")
            .env("KBUILD_BUILD_VERSION", "1")
            .env("KBUILD_BUILD_USER", &build.user)
            .env("KBUILD_BUILD_HOST", &build.host)
            .env_remove("KCONFIG_ALLCONFIG")
            .env_remove("LOCALVERSION")
    }
}

/// What a line of make's output says has been made: `  CC      fs/open.o` is `fs/open.o`.
fn piece(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("  ")?;
    let (verb, subject) = rest.split_once(' ')?;
    let made = verb.bytes().next()?.is_ascii_uppercase()
        && verb.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    made.then(|| subject.trim()).filter(|subject| !subject.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_told_from_other_output() {
        assert_eq!(piece("  CC      fs/open.o"), Some("fs/open.o"));
        assert_eq!(
            piece("  ZSTD22  arch/x86/boot/compressed/vmlinux.bin.zst"),
            Some("arch/x86/boot/compressed/vmlinux.bin.zst")
        );
        for other in ["", "  ", "make[1]: Entering", "  warning: x", "  CC", "CC a.o", "  CC   "] {
            assert_eq!(piece(other), None, "{other:?}");
        }
    }
}
