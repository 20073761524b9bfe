//! Products put where VMMs and shims take them from, and the configuration that names them.
//!
//! Owns what is written outside the product directory. Promises that a plan is made before anything is written, that
//! nothing is overwritten that was not written from here, and that [`Plan::remove`] takes away what [`Plan::install`] put
//! there. Must never change a file of anybody else.

pub mod kata;
pub mod vmm;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::cache::{self, CacheError};
use crate::digest::Digest;
use crate::disk::{FileSystem, Form};
use crate::layout::Layout;
use crate::manifest::{DiskPart, Manifest};

/// The first line of every text that is written: by it the file is known to be ours.
const MARK: &str = "# Written by image-builder; changes are lost with the next installation.";

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
    /// Kata's own configuration was not found.
    #[error("no configuration of Kata Containers is at {}; name one with --base", places.join(", "))]
    NoBase {
        /// Where it was looked for.
        places: Vec<String>,
    },
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
    /// A file cannot be written.
    #[error("cannot install")]
    Write(#[from] CacheError),
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
    /// An initrd: nothing to attach.
    #[default]
    Initrd,
    /// A disk whose blocks the guest checks.
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

/// One file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub content: Content,
}

/// What a file is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A copy of a product.
    Copy(PathBuf),
    /// This text, below a mark that says where it is from.
    Text(String),
}

/// Files to be written, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// All of them.
    pub files: Vec<Planned>,
}

impl Plan {
    fn copy(&mut self, product: PathBuf, path: PathBuf) {
        self.files.push(Planned { path, content: Content::Copy(product) });
    }

    fn text(&mut self, path: PathBuf, text: impl AsRef<str>) {
        self.files.push(Planned { path, content: Content::Text(format!("{MARK}\n{}", text.as_ref())) });
    }

    /// Writes all files, each at once and whole. Configuration comes after what it names.
    ///
    /// # Errors
    /// [`DeployError::Foreign`] before anything is written, when a text would replace one that is not ours.
    pub fn install(&self) -> Result<(), DeployError> {
        for Planned { path, content } in &self.files {
            if matches!(content, Content::Text(_)) && path.exists() && !is_ours(path)? {
                return Err(DeployError::Foreign(path.clone()));
            }
        }
        for Planned { path, content } in &self.files {
            match content {
                Content::Copy(product) => cache::install(product, path)?,
                Content::Text(text) => cache::write_atomically(path, text.as_bytes())?,
            }
            // Whoever installs may have a strict umask; a shim may run as somebody else.
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))
                .map_err(DeployError::io("set the mode of", path))?;
        }
        Ok(())
    }

    /// Removes the files again, and directories that are empty then. Gives the files that were there.
    ///
    /// # Errors
    /// [`DeployError::Foreign`] before anything is removed, when a text is not ours.
    pub fn remove(&self) -> Result<Vec<PathBuf>, DeployError> {
        let present: Vec<&Planned> = self.files.iter().rev().filter(|file| file.path.exists()).collect();
        for Planned { path, content } in &present {
            if matches!(content, Content::Text(_)) && !is_ours(path)? {
                return Err(DeployError::Foreign(path.clone()));
            }
        }
        for Planned { path, .. } in &present {
            fs::remove_file(path).map_err(DeployError::io("remove", path))?;
        }
        for Planned { path, .. } in &present {
            for directory in path.ancestors().skip(1).take(2) {
                // One that has something else in it stays.
                if fs::remove_dir(directory).is_err() {
                    break;
                }
            }
        }
        Ok(present.into_iter().map(|file| file.path.clone()).collect())
    }
}

fn is_ours(path: &Path) -> Result<bool, DeployError> {
    Ok(fs::read(path).map_err(DeployError::io("read", path))?.starts_with(MARK.as_bytes()))
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

    fn get(&self, path: PathBuf, command: &str) -> Result<PathBuf, DeployError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let missing = || DeployError::Missing { path: path.clone(), command: command.to_owned() };
        let expected = self.manifest.products.get(&name).ok_or_else(missing)?.sha256;
        let (found, _) = Digest::of_file(&path).map_err(|_| missing())?;
        if found == expected { Ok(path) } else { Err(DeployError::Changed { path, expected, found }) }
    }

    fn kernel(&self, file: &str, profile: &str) -> Result<PathBuf, DeployError> {
        let command = format!("image-builder kernel build --profile {profile}");
        self.get(self.layout.kernel_file(file, profile), &command)
    }

    fn initrd(&self, flavour: &str) -> Result<PathBuf, DeployError> {
        let command = format!("image-builder initrd --flavour {flavour}");
        self.get(self.layout.flavour_initrd(flavour), &command)
    }

    fn disk(
        &self,
        flavour: &str,
        form: Form,
        root_fs: FileSystem,
    ) -> Result<(PathBuf, &DiskPart), DeployError> {
        let mut command = format!("image-builder disk --flavour {flavour} --form {form}");
        if root_fs != FileSystem::default() {
            command += &format!(" --root-fs {root_fs}");
        }
        let path = self.get(self.layout.disk(flavour, form, root_fs), &command)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let part = self.manifest.disks.get(name.as_ref());
        let part = part.ok_or_else(|| DeployError::Missing { path: path.clone(), command })?;
        Ok((path, part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(dir: &Path) -> Plan {
        let mut plan = Plan::default();
        fs::write(dir.join("product"), "bytes").unwrap();
        plan.copy(dir.join("product"), dir.join("to/share/kernel"));
        plan.text(dir.join("to/etc/x.toml"), "a = 1\n");
        plan
    }

    #[test]
    fn what_was_installed_is_removed_again_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path());
        fs::create_dir_all(dir.path().join("to/etc")).unwrap();
        fs::write(dir.path().join("to/etc/other"), "").unwrap();
        for _ in 0..2 {
            plan.install().unwrap();
        }
        assert_eq!(fs::read(dir.path().join("to/share/kernel")).unwrap(), b"bytes");
        let text = fs::read_to_string(dir.path().join("to/etc/x.toml")).unwrap();
        assert!(text.starts_with(MARK) && text.ends_with("\na = 1\n"), "{text}");
        assert_eq!(plan.remove().unwrap().len(), 2);
        assert!(!dir.path().join("to/share").exists() && dir.path().join("to/etc/other").exists());
        assert_eq!(plan.remove().unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_file_of_somebody_else_stops_it_before_anything_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path());
        fs::create_dir_all(dir.path().join("to/etc")).unwrap();
        fs::write(dir.path().join("to/etc/x.toml"), "mine = 1\n").unwrap();
        assert!(matches!(plan.install(), Err(DeployError::Foreign(path)) if path.ends_with("etc/x.toml")));
        assert!(!dir.path().join("to/share").exists());
        assert!(matches!(plan.remove(), Err(DeployError::Foreign(_))));
        assert_eq!(fs::read(dir.path().join("to/etc/x.toml")).unwrap(), b"mine = 1\n");
    }
}
