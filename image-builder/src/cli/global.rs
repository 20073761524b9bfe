//! Options that every command understands, and what follows from them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use pith::global::installed_data;
use store::arch::Arch;
use store::cache::Cache;
use store::layout::Layout;
use store::progress::Progress;

/// For which processor.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ArchArgs {
    /// The processor that the products are for [default: the host's]. Names of products for aarch64 have it at their end, for
    /// example agent-aarch64 and initrd-aarch64.img.
    #[arg(long, value_enum, value_name = "ARCH", default_value_t = Arch::host(), hide_default_value = true)]
    pub(crate) arch: Arch,
}

/// Options that every command understands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Print results as JSON on standard output, and show no progress.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The source tree [default: the working directory or the nearest one above it with kernel-config/kernel.toml; else the
    /// recipes and fragments that are installed with this program].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// The directory for products [default: ROOT/out. Without a source tree: `out` in the working directory, and for commands that
    /// build nothing, the products that `pith doctor` finds].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

impl Global {
    /// The source tree and product directory these options name. Without a source tree: the recipes that came with the package
    /// of this program, if there are any, and `out` in the working directory.
    pub(crate) fn layout(&self) -> anyhow::Result<Layout> {
        let here = std::env::current_dir().context("cannot read the working directory")?;
        let found = match &self.root {
            Some(root) => Ok(root.clone()),
            None => Layout::find_root(&here),
        };
        let layout = match found {
            Ok(root) => Layout::new(root, self.out.clone()),
            Err(no_tree) => self.installed(&here).ok_or(no_tree)?,
        };
        // `.ci/packages` puts them there.
        Ok(match Cache::locate(|name| std::env::var_os(name)) {
            Ok(cache) => layout.with_foreign_packages(cache.root().join("debian")),
            Err(_) => layout,
        })
    }

    /// What came with the package of this program.
    fn installed(&self, here: &Path) -> Option<Layout> {
        let data = installed_data(&std::env::current_exe().ok()?)?;
        let products = pith::global::Global { json: self.json, out: None }.products().ok()?;
        let out = self.out.clone().unwrap_or_else(|| here.join("out"));
        Some(Layout::installed(data, products.out().to_path_buf(), out))
    }

    /// The product directory. One that is named needs no source tree around it.
    pub(crate) fn products(&self) -> anyhow::Result<Layout> {
        match &self.out {
            Some(out) => Ok(Layout::new(self.root.clone().unwrap_or_else(|| out.clone()), Some(out.clone()))),
            None => match self.layout() {
                Ok(layout) if layout.has_source() => Ok(layout),
                Ok(_) => anyhow::bail!("no product directory: name one with --out"),
                Err(error) => Err(error).context("no product directory: name one with --out"),
            },
        }
    }

    /// Products that are there already: those that are named, those of the source tree, or where `pith` finds them.
    pub(crate) fn found(&self) -> anyhow::Result<Layout> {
        match self.products() {
            Ok(layout) => Ok(layout),
            // Nothing is named, and there is no source tree.
            Err(_) => self.of_pith().products(),
        }
    }

    /// These options as the verbs of `pith` take them. Its source tree's products come first here, as they always did.
    pub(crate) fn of_pith(&self) -> pith::global::Global {
        let out = self.out.clone().or_else(|| self.products().ok().map(|layout| layout.out().to_path_buf()));
        pith::global::Global { json: self.json, out }
    }

    /// The cache directory of this user.
    pub(crate) fn cache(&self) -> anyhow::Result<Cache> {
        self.of_pith().cache()
    }

    /// How to show progress, given `--json` and where standard error goes.
    pub(crate) fn progress(&self) -> Progress {
        Progress::detect(self.json)
    }

    /// Prints a result: as JSON with `--json`, else as `words`. A closed pipe is not an error of ours.
    pub(crate) fn print<T: serde::Serialize>(
        &self,
        value: &T,
        words: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        pith::global::Global { json: self.json, out: None }.print(value, words)
    }
}
