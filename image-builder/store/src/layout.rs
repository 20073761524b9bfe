//! Paths of the source tree and of the product directory.
//!
//! Each step finds the products of other steps through this module. Must never touch the file system, except to ask whether a
//! marker file exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::arch::Arch;
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
    /// Whose products are meant.
    arch: Arch,
    /// Debian packages for other processors.
    foreign: Option<PathBuf>,
}

impl Layout {
    /// Describes the tree at `root`; products go to `out`, or to `root/out`. They are those for the processor of this host.
    pub fn new(root: PathBuf, out: Option<PathBuf>) -> Self {
        let out = out.unwrap_or_else(|| root.join("out"));
        Self { root, out, installed: None, arch: Arch::host(), foreign: None }
    }

    /// As an installed package has it: recipes and fragments below `data`, and agents in `products`. What is made goes to `out`.
    pub fn installed(data: PathBuf, products: PathBuf, out: PathBuf) -> Self {
        Self { root: data, out, installed: Some(products), arch: Arch::host(), foreign: None }
    }

    /// The same tree, with products in another directory.
    #[must_use]
    pub fn at(&self, out: PathBuf) -> Self {
        Self { out, ..self.clone() }
    }

    /// With the directory that has Debian packages for other processors, unpacked: those for aarch64 in `arm64`.
    #[must_use]
    pub fn with_foreign_packages(self, directory: PathBuf) -> Self {
        Self { foreign: Some(directory), ..self }
    }

    /// The root directory with the files and the database of Debian packages for the processor of its products: this machine's
    /// own, or one of another processor.
    pub fn packages(&self) -> PathBuf {
        match &self.foreign {
            _ if self.arch == Arch::host() => "/".into(),
            Some(directory) => directory.join(self.arch.debian()),
            None => self.out.join("packages").join(self.arch.debian()),
        }
    }

    /// Debian's Rust compiler for the processor of its products, where one was unpacked for it.
    pub fn rustc(&self) -> Option<PathBuf> {
        let of_debian = self.foreign.as_ref()?.join(format!("rust-{}", self.arch.debian())).join("rustc");
        (self.arch != Arch::host() && of_debian.is_file()).then_some(of_debian)
    }

    /// The same directories, with the products for another processor.
    #[must_use]
    pub fn for_arch(&self, arch: Arch) -> Self {
        Self { arch, ..self.clone() }
    }

    /// The processor that its products are for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Whether programs can be compiled: an installed package has recipes, but no source.
    pub fn has_source(&self) -> bool {
        self.installed.is_none()
    }

    /// The agent with these cargo features that a recipe takes: the one that was built, or the one that came with a package.
    pub fn agent_to_pack(&self, features: &BTreeSet<String>) -> PathBuf {
        let built = self.agent_with(features);
        match &self.installed {
            Some(products) if !built.is_file() => {
                products.join(Product::Agent(features.clone()).file_name(self.arch))
            }
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
        self.product(&Product::Program(name.to_owned()))
    }

    /// Where a product is.
    pub fn product(&self, product: &Product) -> PathBuf {
        self.out.join(product.file_name(self.arch))
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

    /// The kernel that ships, in the form that all VMMs for the processor boot: `vmlinux` with the PVH note for x86_64,
    /// `Image-aarch64` for aarch64.
    pub fn kernel(&self) -> PathBuf {
        match self.arch {
            Arch::X86_64 => self.vmlinux(),
            Arch::Aarch64 => self.vmlinuz(),
        }
    }

    /// The image of the kernel that ships: `vmlinuz` (compressed) for x86_64, `Image-aarch64` for aarch64.
    pub fn vmlinuz(&self) -> PathBuf {
        self.kernel_file(self.arch.image(), self.arch.profile())
    }

    /// The uncompressed ELF kernel that ships; that for x86_64 has the PVH note.
    pub fn vmlinux(&self) -> PathBuf {
        self.kernel_file("vmlinux", self.arch.profile())
    }

    /// The configuration that both kernels were built with.
    pub fn config(&self) -> PathBuf {
        self.kernel_file("config", self.arch.profile())
    }

    /// The static agent binary.
    pub fn agent(&self) -> PathBuf {
        self.agent_with(&BTreeSet::new())
    }

    /// The static agent binary with these cargo features: `agent` without any, `agent-<feature>-…` with some. This name and those
    /// below are of x86_64; [`Product::file_name`] has the rule for others.
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
        let layout = Layout::installed(data, products.clone(), out.clone()).for_arch(Arch::X86_64);
        let features = BTreeSet::from(["policy".to_owned()]);
        assert_eq!(layout.agent_to_pack(&features), products.join("agent-policy"));
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("agent-policy"), "").unwrap();
        assert_eq!(layout.agent_to_pack(&features), out.join("agent-policy"));
        assert!(!layout.has_source() && Layout::new("/r".into(), None).has_source());
        let tree = Layout::new("/r".into(), None).for_arch(Arch::Aarch64);
        assert_eq!(tree.agent_to_pack(&features), Path::new("/r/out/agent-policy-aarch64"));
    }

    #[test]
    fn each_processor_has_products_of_its_own() {
        let layout = Layout::new("/r".into(), None);
        assert_eq!(layout.arch(), Arch::host());
        let names = |arch| {
            let layout = layout.for_arch(arch);
            [
                layout.kernel(),
                layout.vmlinux(),
                layout.vmlinuz(),
                layout.config(),
                layout.agent(),
                layout.program("jail"),
                layout.initrd(),
            ]
            .map(|path| path.strip_prefix("/r/out").unwrap().display().to_string())
        };
        assert_eq!(
            names(Arch::X86_64),
            ["vmlinux", "vmlinux", "vmlinuz", "config", "agent", "jail", "initrd.img"]
        );
        assert_eq!(
            names(Arch::Aarch64),
            [
                "Image-aarch64",
                "vmlinux-aarch64",
                "Image-aarch64",
                "config-aarch64",
                "agent-aarch64",
                "jail-aarch64",
                "initrd-aarch64.img"
            ]
        );
    }

    #[test]
    fn packages_of_another_processor_are_not_this_machines() {
        let layout = Layout::new("/r".into(), None).with_foreign_packages("/c/debian".into());
        assert_eq!(layout.packages(), Path::new("/"));
        let other = if Arch::host() == Arch::Aarch64 { Arch::X86_64 } else { Arch::Aarch64 };
        let theirs = layout.for_arch(other).at("/elsewhere".into());
        assert_eq!(theirs.packages(), Path::new("/c/debian").join(other.debian()));
        assert_eq!(theirs.out(), Path::new("/elsewhere"));
        assert_eq!(theirs.rustc(), None);
        let dir = tempfile::tempdir().unwrap();
        let rustc = dir.path().join(format!("rust-{}", other.debian())).join("rustc");
        std::fs::create_dir_all(rustc.parent().unwrap()).unwrap();
        std::fs::write(&rustc, "").unwrap();
        let layout = Layout::new("/r".into(), None).with_foreign_packages(dir.path().into());
        assert_eq!((layout.rustc(), layout.for_arch(other).rustc()), (None, Some(rustc)));
    }

    #[test]
    fn out_is_below_the_root_unless_named() {
        let arch = Arch::X86_64;
        assert_eq!(Layout::new("/r".into(), None).for_arch(arch).vmlinuz(), Path::new("/r/out/vmlinuz"));
        let elsewhere = Layout::new("/r".into(), Some("/o".into())).for_arch(arch);
        assert_eq!(elsewhere.initrd(), Path::new("/o/initrd.img"));
    }
}
