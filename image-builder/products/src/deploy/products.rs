//! The products of a directory, as they are taken from there: each is compared with the manifest first.

use std::path::PathBuf;

use store::arch::Arch;
use store::digest::Digest;
use store::layout::Layout;
use store::product::{FileSystem, Form};

use super::error::DeployError;
use crate::kernel;
use crate::kernel::config::Config;
use crate::manifest::{DiskPart, Manifest};

/// What the guest's own files are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum RootKind {
    /// An initrd. No disk is attached.
    #[default]
    Initrd,
    /// A disk whose blocks the guest checks (dm-verity).
    Disk,
}

impl RootKind {
    /// Refuses a file system for what has none.
    pub(super) fn admits(self, root_fs: FileSystem) -> Result<(), DeployError> {
        if self == Self::Initrd && root_fs != FileSystem::default() {
            return Err(DeployError::Impossible(
                "an initrd has no file system to choose; add --root-as disk",
            ));
        }
        Ok(())
    }
}

/// Products of a directory, checked against their manifest.
#[derive(Debug)]
pub struct Products<'a> {
    pub(super) layout: &'a Layout,
    pub(super) manifest: Manifest,
}

impl<'a> Products<'a> {
    /// Reads the manifest of the product directory.
    pub fn of(layout: &'a Layout) -> Self {
        Self { layout, manifest: Manifest::read(layout) }
    }

    /// The product and its digest, which was compared.
    fn get(&self, path: PathBuf, command: &str) -> Result<(PathBuf, Digest), DeployError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let missing = || DeployError::Missing { path: path.clone(), command: command.to_owned() };
        let expected = self.manifest.products.get(&name).ok_or_else(missing)?.sha256;
        let (found, _) = Digest::of_file(&path).map_err(|_| missing())?;
        if found == expected {
            Ok((path, found))
        } else {
            Err(DeployError::Changed { path, expected, found })
        }
    }

    pub(super) fn kernel(&self, file: &str, profile: &str) -> Result<(PathBuf, Digest), DeployError> {
        let command = format!("image-builder kernel build --profile {profile}");
        self.get(self.layout.kernel_file(file, profile), &command)
    }

    /// What a kernel was configured with: by this it is known what it can do, whatever its profile is called.
    pub(super) fn kernel_config(&self, profile: &str) -> Result<Config, DeployError> {
        let (path, _) = self.kernel(kernel::CONFIG, profile)?;
        let text = std::fs::read_to_string(&path).map_err(DeployError::io("read", &path))?;
        Ok(Config::parse(&text))
    }

    /// What commands need for products of another architecture than the host's.
    fn option(&self) -> String {
        let arch = self.layout.arch();
        if arch == Arch::host() { String::new() } else { format!(" --arch {arch}") }
    }

    pub(super) fn initrd(&self, flavour: &str) -> Result<(PathBuf, Digest), DeployError> {
        let command = format!("image-builder initrd --flavour {flavour}{}", self.option());
        self.get(self.layout.flavour_initrd(flavour), &command)
    }

    pub(super) fn disk(
        &self,
        flavour: &str,
        form: Form,
        root_fs: FileSystem,
    ) -> Result<(PathBuf, Digest, &DiskPart), DeployError> {
        let mut command = format!("image-builder disk --flavour {flavour} --form {form}{}", self.option());
        if root_fs != FileSystem::default() {
            command += &format!(" --root-fs {root_fs}");
        }
        let (path, digest) = self.get(self.layout.disk(flavour, form, root_fs), &command)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let part = self.manifest.disks.get(name.as_ref());
        let part = part.ok_or_else(|| DeployError::Missing { path: path.clone(), command })?;
        Ok((path, digest, part))
    }
}
