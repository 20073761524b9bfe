//! Products put where VMMs and shims take them from, and the configuration that names them.
//!
//! Owns what is written outside the product directory. Promises that all of an installation is written or nothing, that what
//! somebody else made is neither replaced nor removed nor followed where it is a link, and that an installation can be removed by
//! its receipt alone. Must never change a file of anybody else.

mod install;
pub mod kata;
mod plan;
mod receipt;
mod remove;
mod root;
pub mod vmm;

use std::io;
use std::path::{Path, PathBuf};

pub use install::{How, Kept, Report, install};
pub use plan::{Content, Plan, Planned};
pub use receipt::{Receipt, Written};
pub use remove::remove;
pub use root::Root;

use crate::kernel;
use crate::kernel::config::Config;
use crate::manifest::{DiskPart, Manifest};
use store::digest::Digest;
use store::layout::Layout;
use store::product::{FileSystem, Form};

/// Why a file stays that was changed since it was written.
const EDITED: &str = "it was changed since it was installed (--force takes it all the same)";

/// Why products cannot be put in their places.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A product is not there.
    #[error("there is no {path}; make it with: {command}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What makes it.
        command: String,
    },
    /// A product is not what the manifest says.
    #[error("{path} has sha256 {found}, but the manifest beside it says {expected}; build it anew")]
    Changed {
        /// The file.
        path: PathBuf,
        /// What the manifest says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Something is in the way.
    #[error("{0} is there already and was not written from here; move it away, or choose another directory")]
    Foreign(PathBuf),
    /// A link leads somewhere else.
    #[error(
        "{0} is a link, and links are not followed there; replace it by a directory, or choose another one"
    )]
    Link(PathBuf),
    /// A file is not as it was written.
    #[error(
        "{0} was changed since it was installed; move your changes to a file of your own, or add --force"
    )]
    Edited(PathBuf),
    /// Another installation has another file of this name.
    #[error(
        "{path} is also of the installation {other:?} and would change under it; uninstall that one first, or choose another directory"
    )]
    Shared {
        /// The file.
        path: PathBuf,
        /// The other installation's name.
        other: String,
    },
    /// There is no such installation.
    #[error("there is no {receipt}, so nothing is known of such an installation; {}", hint(known))]
    NotInstalled {
        /// Where its receipt would be.
        receipt: PathBuf,
        /// The names of those that there are.
        known: Vec<String>,
    },
    /// A receipt cannot be understood.
    #[error("{path} is no receipt of an installation that this program can read: {reason}")]
    BadReceipt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A name that no runtime handler can have.
    #[error(
        "{0:?} cannot be the name of a runtime handler: take lower-case letters, digits and hyphens, at most 63"
    )]
    Name(String),
    /// A directory that is not named from the root.
    #[error("{0} must be an absolute path without . and .., and not / itself")]
    NotAbsolute(PathBuf),
    /// Kata's own configuration was not found.
    #[error(
        "no configuration of Kata Containers for {wanted} was found; name one with --base. Looked at:{}",
        list(places)
    )]
    NoBase {
        /// Which VMM and shim.
        wanted: String,
        /// Where it was looked for, and why that was not it.
        places: Vec<String>,
    },
    /// What is given as Kata's configuration is none, or not the one that is wanted.
    #[error("{path} cannot be the base: {reason}")]
    BadBase {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// A version of Kata Containers that this does not know.
    #[error("{0}; say which version it is with --kata-version")]
    Version(String),
    /// A kernel that a VMM cannot use.
    #[error(
        "the kernel of the profile {profile:?} does not run under {vmm}: it lacks {option} ({why}); {way_out}"
    )]
    Kernel {
        /// The kernel's profile.
        profile: String,
        /// The VMM.
        vmm: &'static str,
        /// The option of the kernel's configuration.
        option: &'static str,
        /// What it is needed for.
        why: &'static str,
        /// What to do.
        way_out: &'static str,
    },
    /// The end was called for.
    #[error("stopped; nothing was left behind")]
    Stopped,
    /// A combination that no VMM can boot.
    #[error("{0}")]
    Impossible(&'static str),
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

fn hint(known: &[String]) -> String {
    match known {
        [] => "name its directory with --prefix and its name with --name".to_owned(),
        names => format!("there are: {}; choose one with --name", names.join(", ")),
    }
}

fn list(places: &[String]) -> String {
    places.iter().map(|place| format!("\n  {place}")).collect()
}

impl DeployError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }
}

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
    fn admits(self, root_fs: FileSystem) -> Result<(), DeployError> {
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
    layout: &'a Layout,
    manifest: Manifest,
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

    fn kernel(&self, file: &str, profile: &str) -> Result<(PathBuf, Digest), DeployError> {
        let command = format!("image-builder kernel build --profile {profile}");
        self.get(self.layout.kernel_file(file, profile), &command)
    }

    /// What a kernel was configured with: by this it is known what it can do, whatever its profile is called.
    fn kernel_config(&self, profile: &str) -> Result<Config, DeployError> {
        let (path, _) = self.kernel(kernel::CONFIG, profile)?;
        let text = std::fs::read_to_string(&path).map_err(DeployError::io("read", &path))?;
        Ok(Config::parse(&text))
    }

    fn initrd(&self, flavour: &str) -> Result<(PathBuf, Digest), DeployError> {
        let command = format!("image-builder initrd --flavour {flavour}");
        self.get(self.layout.flavour_initrd(flavour), &command)
    }

    fn disk(
        &self,
        flavour: &str,
        form: Form,
        root_fs: FileSystem,
    ) -> Result<(PathBuf, Digest, &DiskPart), DeployError> {
        let mut command = format!("image-builder disk --flavour {flavour} --form {form}");
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

#[cfg(test)]
mod tests;
