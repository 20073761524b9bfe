//! Where files of an installation really are: below `/`, or below a directory that stands for it.
//!
//! Owns every access to a path outside the product directory. Promises that a link in the place of a file is never followed,
//! neither to write nor to change a mode, and that nothing below a staging directory leads out of it. Must never decide what
//! belongs to whom: receipts do.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;

use super::error::DeployError;
use store::digest::Digest;

/// The root that absolute paths are taken below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Root {
    staging: Option<PathBuf>,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A regular file with this content.
    File(Digest),
    /// A directory, a link, a socket: nothing that an installation writes.
    Other,
}

impl Root {
    /// `/`, or a directory that stands for it.
    pub fn new(staging: Option<PathBuf>) -> Self {
        Self { staging }
    }

    /// Whether a directory stands for `/`.
    pub fn is_staged(&self) -> bool {
        self.staging.is_some()
    }

    /// Where the absolute `path` is.
    pub fn at(&self, path: &Path) -> PathBuf {
        match &self.staging {
            Some(staging) => staging.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_path_buf(),
        }
    }

    /// What is at `path`; a link is not followed.
    pub(super) fn find(&self, path: &Path) -> Result<Found, DeployError> {
        let at = self.at(path);
        match fs::symlink_metadata(&at) {
            Ok(metadata) if metadata.is_file() => {
                let (digest, _) = Digest::of_file(&at).map_err(DeployError::io("read", &at))?;
                Ok(Found::File(digest))
            }
            Ok(_) => Ok(Found::Other),
            Err(error) if is_absent(&error) => Ok(Found::Nothing),
            Err(error) => Err(DeployError::io("inspect", &at)(error)),
        }
    }

    /// The directories on the way to `directory` that are not there yet, outermost first. `own` are directories in whose
    /// insides no link is followed; above them an administrator may have put some.
    pub(super) fn missing(&self, directory: &Path, own: &[PathBuf]) -> Result<Vec<PathBuf>, DeployError> {
        let mut missing = Vec::new();
        let mut path = PathBuf::from("/");
        if !self.at(&path).exists() {
            missing.push(path.clone());
        }
        for component in directory.components() {
            match component {
                Component::RootDir => continue,
                Component::Normal(name) => path.push(name),
                _ => return Err(DeployError::NotAbsolute(directory.to_path_buf())),
            }
            let at = self.at(&path);
            let metadata = match fs::symlink_metadata(&at) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing.push(path.clone());
                    continue;
                }
                Err(error) => return Err(DeployError::io("inspect", &at)(error)),
            };
            let inside = own.iter().any(|own| path != *own && path.starts_with(own));
            let link = metadata.is_symlink();
            if link && (self.is_staged() || inside) {
                return Err(DeployError::Link(at));
            }
            if !(metadata.is_dir() || link && at.is_dir()) {
                return Err(DeployError::Foreign(at));
            }
        }
        Ok(missing)
    }

    /// Makes one directory, for everybody to read whatever the umask is.
    pub(super) fn make_directory(&self, path: &Path) -> Result<(), DeployError> {
        let at = self.at(path);
        // Only a staging directory may lack its parents: it is named by the user, not found on the way.
        let recursive = path == Path::new("/");
        let mut builder = DirBuilder::new();
        builder.mode(0o755).recursive(recursive).create(&at).map_err(DeployError::io("create", &at))?;
        let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
        OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&at)
            .and_then(|directory| directory.set_permissions(Permissions::from_mode(0o755)))
            .map_err(DeployError::io("set the mode of", &at))
    }

    /// Makes a file that must not be there yet, for everybody to read.
    pub(super) fn create(&self, path: &Path) -> Result<File, DeployError> {
        let at = self.at(path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&at)
            .map_err(DeployError::io("create", &at))?;
        file.set_permissions(Permissions::from_mode(0o644))
            .map_err(DeployError::io("set the mode of", &at))?;
        Ok(file)
    }

    /// Puts the file `from` in the place of `to`. A link at `to` is replaced, not what it leads to.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), DeployError> {
        let (from, to) = (self.at(from), self.at(to));
        fs::rename(&from, &to).map_err(DeployError::io("rename a file to", &to))
    }

    /// Gives the file `from` the second name `to`, which nothing may have yet; a copy where the file system has one name for a
    /// file only.
    pub(super) fn second_name(&self, from: &Path, to: &Path) -> Result<(), DeployError> {
        let (from_at, to_at) = (self.at(from), self.at(to));
        match fs::hard_link(&from_at, &to_at) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(DeployError::Foreign(to_at)),
            Err(_) => {
                let mut source = File::open(&from_at).map_err(DeployError::io("read", &from_at))?;
                let mut copy = self.create(to)?;
                let copied = io::copy(&mut source, &mut copy).and_then(|_| copy.sync_all());
                copied.map_err(|error| {
                    // Half a copy is nobody's.
                    drop(fs::remove_file(&to_at));
                    DeployError::io("write", &to_at)(error)
                })
            }
        }
    }

    /// Removes a file, if it is there. Says whether it was.
    pub(super) fn remove(&self, path: &Path) -> Result<bool, DeployError> {
        let at = self.at(path);
        match fs::remove_file(&at) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(DeployError::io("remove", &at)(error)),
        }
    }

    /// Removes an empty directory. One that has something in it stays. Says whether it is gone.
    pub(super) fn remove_directory(&self, path: &Path) -> Result<bool, DeployError> {
        let at = self.at(path);
        match fs::remove_dir(&at) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(DeployError::io("remove", &at)(error)),
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
