//! The files of one installation, before any of them is written.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::error::DeployError;
use super::root::Root;
use store::digest::Digest;

/// The first line of every text that is written, so that a reader knows where it is from.
pub(super) const MARK: &str = "# Written by image-builder; changes are lost with the next installation.";

/// One file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Where, as an absolute path below the root.
    pub path: PathBuf,
    /// What.
    pub content: Content,
}

/// What a file is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A copy of a product, which has this digest.
    Copy {
        /// The product.
        from: PathBuf,
        /// Its digest.
        sha256: Digest,
    },
    /// This text.
    Text(String),
}

impl Content {
    /// The digest that the file will have.
    pub fn sha256(&self) -> Digest {
        match self {
            Self::Copy { sha256, .. } => *sha256,
            Self::Text(text) => Digest::of(text.as_bytes()),
        }
    }

    /// Writes it to `file`, called `at` in messages, down to the disk.
    pub(super) fn write(&self, file: &mut File, at: &Path) -> Result<(), DeployError> {
        match self {
            Self::Text(text) => file.write_all(text.as_bytes()).map_err(DeployError::io("write", at))?,
            Self::Copy { from, sha256 } => {
                let mut bytes = Vec::new();
                File::open(from)
                    .and_then(|mut product| product.read_to_end(&mut bytes))
                    .map_err(DeployError::io("read", from))?;
                let found = Digest::of(&bytes);
                if found != *sha256 {
                    return Err(DeployError::Changed { path: from.clone(), expected: *sha256, found });
                }
                file.write_all(&bytes).map_err(DeployError::io("write", at))?;
            }
        }
        file.sync_all().map_err(DeployError::io("write", at))
    }
}

/// All of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its name, by which it is removed again.
    pub name: String,
    /// Where its products go, which others may share, and its receipt.
    pub prefix: PathBuf,
    /// Where its configuration goes.
    pub config: PathBuf,
    /// What the paths are below.
    pub root: Root,
    /// The files, in the order in which they appear.
    pub files: Vec<Planned>,
}

impl Plan {
    /// A plan without files.
    ///
    /// # Errors
    /// When the name cannot be one of a runtime handler, or a path is not absolute.
    pub fn new(name: &str, prefix: &Path, config: &Path, root: Root) -> Result<Self, DeployError> {
        check_name(name)?;
        for path in [prefix, config] {
            let plain = path.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
            if !path.is_absolute() || !plain || path.parent().is_none() {
                return Err(DeployError::NotAbsolute(path.to_path_buf()));
            }
        }
        let (prefix, config) = (prefix.to_path_buf(), config.to_path_buf());
        Ok(Self { name: name.to_owned(), prefix, config, root, files: Vec::new() })
    }

    pub(super) fn copy(&mut self, from: PathBuf, sha256: Digest, path: PathBuf) {
        self.files.push(Planned { path, content: Content::Copy { from, sha256 } });
    }

    pub(super) fn text(&mut self, path: PathBuf, text: impl AsRef<str>) {
        self.files.push(Planned { path, content: Content::Text(format!("{MARK}\n{}", text.as_ref())) });
    }

    /// Directories that are the installation's own.
    pub(super) fn own(&self) -> Vec<PathBuf> {
        vec![self.prefix.clone(), self.config.clone()]
    }
}

/// Refuses what is no name of a runtime handler (RFC 1123: a label in lower case), before it becomes part of a path.
pub(super) fn check_name(name: &str) -> Result<(), DeployError> {
    let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inside = name.bytes().all(|byte| label(byte) || byte == b'-');
    let ends = [name.bytes().next(), name.bytes().last()];
    if inside && name.len() <= 63 && ends.iter().all(|end| end.is_some_and(label)) {
        return Ok(());
    }
    Err(DeployError::Name(name.to_owned()))
}
