//! Paths of the source tree and of the product directory.
//!
//! Each step finds the products of other steps through this module. Must never touch the file system, except to ask whether a
//! marker file exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use crate::product::FLAVOUR as SHIPPED;
use crate::product::{FileSystem, Form, Product};

/// Where packages put products and daemons, below the directory (`/usr`) that has the programs in its `bin`.
pub const INSTALLED_PRODUCTS: &str = "lib/pith";
/// Where packages put recipes and kernel fragments, below the same directory.
pub const INSTALLED_DATA: &str = "share/pith";

/// Why the source tree could not be found.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// No directory upwards holds the marker file.
    #[error("no kernel-config/kernel.toml in {0} or above it; run inside the source tree or pass --root")]
    NoRoot(PathBuf),
}

/// The source tree and its product directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
    out: PathBuf,
    /// Products that came with a package.
    installed: Option<PathBuf>,
}

impl Layout {
    /// Describes the tree at `root`; products go to `out`, or to `root/out`.
    pub fn new(root: PathBuf, out: Option<PathBuf>) -> Self {
        let out = out.unwrap_or_else(|| root.join("out"));
        Self { root, out, installed: None }
    }

    /// As an installed package has it: recipes and fragments below `data`, and agents in `products`. What is made goes to `out`.
    pub fn installed(data: PathBuf, products: PathBuf, out: PathBuf) -> Self {
        Self { root: data, out, installed: Some(products) }
    }

    /// Whether programs can be compiled: an installed package has recipes, but no source.
    pub fn has_source(&self) -> bool {
        self.installed.is_none()
    }

    /// The agent with these cargo features that a recipe takes: the one that was built, or the one that came with a package.
    pub fn agent_to_pack(&self, features: &BTreeSet<String>) -> PathBuf {
        let built = self.agent_with(features);
        match &self.installed {
            Some(products) if !built.is_file() => products.join(Product::Agent(features.clone()).file_name()),
            _ => built,
        }
    }

    /// Looks for the tree's root from `start` upwards.
    ///
    /// # Errors
    /// [`LayoutError::NoRoot`] when no directory on the way holds `kernel-config/kernel.toml`.
    pub fn find_root(start: &Path) -> Result<PathBuf, LayoutError> {
        start
            .ancestors()
            .find(|dir| dir.join("kernel-config/kernel.toml").is_file())
            .map(Path::to_path_buf)
            .ok_or_else(|| LayoutError::NoRoot(start.to_path_buf()))
    }

    /// The root of the source tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Kernel fragments, profiles and the forbid list.
    pub fn kernel_config(&self) -> PathBuf {
        self.root.join("kernel-config")
    }

    /// Recipes and overlays of root file systems.
    pub fn rootfs(&self) -> PathBuf {
        self.root.join("rootfs")
    }

    /// The recipe of the flavour called `name`.
    pub fn flavour(&self, name: &str) -> PathBuf {
        self.rootfs().join("flavour").join(format!("{name}.toml"))
    }

    /// A static program of the workspace besides the agent.
    pub fn program(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// Where a product is.
    pub fn product(&self, product: &Product) -> PathBuf {
        self.out.join(product.file_name())
    }

    /// The product directory.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// One file of the kernel of a profile: `vmlinuz` of the one that ships, `vmlinuz-<profile>` of others; `Image` in
    /// place of `vmlinuz` where VMMs boot that.
    pub fn kernel_file(&self, file: &str, profile: &str) -> PathBuf {
        self.product(&Product::kernel(file, profile))
    }

    /// The compressed kernel.
    pub fn vmlinuz(&self) -> PathBuf {
        self.out.join("vmlinuz")
    }

    /// The uncompressed ELF kernel with the PVH note.
    pub fn vmlinux(&self) -> PathBuf {
        self.out.join("vmlinux")
    }

    /// The configuration that both kernels were built with.
    pub fn config(&self) -> PathBuf {
        self.out.join("config")
    }

    /// The static agent binary.
    pub fn agent(&self) -> PathBuf {
        self.out.join("agent")
    }

    /// The static agent binary with these cargo features: `agent` without any, `agent-<feature>-…` with some.
    pub fn agent_with(&self, features: &BTreeSet<String>) -> PathBuf {
        self.product(&Product::Agent(features.clone()))
    }

    /// The initrd that ships.
    pub fn initrd(&self) -> PathBuf {
        self.flavour_initrd(SHIPPED)
    }

    /// The initrd of the flavour called `name`: `initrd.img` for the one that ships, `initrd-<name>.img` for others.
    pub fn flavour_initrd(&self, name: &str) -> PathBuf {
        self.product(&Product::initrd(name))
    }

    /// The disk of the flavour called `name` in this form: `disk-<name>-<form>.img` with the usual file system,
    /// `disk-<name>-<form>-<file system>.img` with others.
    pub fn disk(&self, name: &str, form: Form, root_fs: FileSystem) -> PathBuf {
        self.product(&Product::Disk { flavour: name.to_owned(), form, root_fs })
    }

    /// The unified kernel image with the initrd of the flavour called `name`.
    pub fn uki(&self, name: &str) -> PathBuf {
        self.product(&Product::Uki { flavour: name.to_owned() })
    }

    /// What went into the products.
    pub fn manifest(&self) -> PathBuf {
        self.out.join("manifest.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_from_below_and_missed_outside() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        assert!(matches!(Layout::find_root(&deep), Err(LayoutError::NoRoot(path)) if path == deep));
        std::fs::create_dir_all(dir.path().join("kernel-config")).unwrap();
        std::fs::write(dir.path().join("kernel-config/kernel.toml"), "").unwrap();
        assert_eq!(Layout::find_root(&deep).unwrap(), dir.path());
    }

    #[test]
    fn an_installed_package_lends_its_agent_until_one_is_built() {
        let dir = tempfile::tempdir().unwrap();
        let (data, products, out) = (dir.path().join("data"), dir.path().join("lib"), dir.path().join("out"));
        let layout = Layout::installed(data, products.clone(), out.clone());
        let features = BTreeSet::from(["policy".to_owned()]);
        assert_eq!(layout.agent_to_pack(&features), products.join("agent-policy"));
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("agent-policy"), "").unwrap();
        assert_eq!(layout.agent_to_pack(&features), out.join("agent-policy"));
        assert!(!layout.has_source() && Layout::new("/r".into(), None).has_source());
        assert_eq!(Layout::new("/r".into(), None).agent_to_pack(&features), Path::new("/r/out/agent-policy"));
    }

    #[test]
    fn out_is_below_the_root_unless_named() {
        assert_eq!(Layout::new("/r".into(), None).vmlinuz(), Path::new("/r/out/vmlinuz"));
        assert_eq!(Layout::new("/r".into(), Some("/o".into())).initrd(), Path::new("/o/initrd.img"));
    }
}
