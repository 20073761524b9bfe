//! What installations wrote: one receipt each, `PREFIX/installed/NAME.json`.
//!
//! A receipt is written before the first file it names, with every content that the file may have until the end, and again in
//! the end. So whatever stops an installation, even a power failure, all that it made can be told from what was there before.
//! Must never name a file that somebody else wrote.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DeployError;
use super::root::Root;
use store::digest::Digest;

/// The only version there is of the file's form.
const FORMAT: u32 = 1;
/// More than any receipt has, in bytes.
const LIMIT: u64 = 4 << 20;

/// What one installation wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    format: u32,
    /// The installation's name.
    pub name: String,
    /// Whether it was written below a staging directory: then directories outside of its own are a package's.
    pub staged: bool,
    /// The directories that are its own; those in which others may have files are not.
    pub own: Vec<PathBuf>,
    /// Its files, with the digests that they may have.
    pub files: Vec<Written>,
    /// The directories that it made, outermost first.
    pub directories: Vec<PathBuf>,
}

/// A file that an installation wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Where it is, below the root.
    pub path: PathBuf,
    /// What its content was when it was written. More than one while an installation is under way.
    pub sha256: Vec<Digest>,
}

impl Receipt {
    /// An empty one.
    pub(super) fn new(name: &str, staged: bool, own: Vec<PathBuf>) -> Self {
        Self {
            format: FORMAT,
            name: name.to_owned(),
            staged,
            own,
            files: Vec::new(),
            directories: Vec::new(),
        }
    }

    /// The directory that receipts are in.
    pub(super) fn directory(prefix: &Path) -> PathBuf {
        prefix.join("installed")
    }

    /// Where the receipt of the installation called `name` is.
    pub(super) fn path(prefix: &Path, name: &str) -> PathBuf {
        Self::directory(prefix).join(format!("{name}.json"))
    }

    /// All receipts below `prefix`, in order of name.
    ///
    /// # Errors
    /// When one cannot be read or has another form: whose files are whose is not known then.
    pub(super) fn all(root: &Root, prefix: &Path) -> Result<Vec<Self>, DeployError> {
        let directory = root.at(&Self::directory(prefix));
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(DeployError::io("list", &directory)(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(DeployError::io("list", &directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".json") && !name.starts_with('.') {
                paths.push(path);
            }
        }
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Result<Self, DeployError> {
        let bad = |reason: String| DeployError::BadReceipt { path: path.to_path_buf(), reason };
        let metadata = std::fs::symlink_metadata(path).map_err(DeployError::io("inspect", path))?;
        if !metadata.is_file() || metadata.len() > LIMIT {
            return Err(bad("it is no regular file of a receipt's size".into()));
        }
        let text = std::fs::read(path).map_err(DeployError::io("read", path))?;
        let receipt: Self = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        let named = path.file_stem().is_some_and(|stem| stem == receipt.name.as_str());
        if receipt.format != FORMAT || !named {
            return Err(bad(format!("it is of format {} and for {:?}", receipt.format, receipt.name)));
        }
        Ok(receipt)
    }

    /// Writes it in the place of the one before.
    pub(super) fn write(&self, root: &Root, prefix: &Path) -> Result<(), DeployError> {
        let path = Self::path(prefix, &self.name);
        let new = path.with_file_name(format!(".{}.json.new", self.name));
        root.remove(&new)?;
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| DeployError::io("encode", &path)(error.into()))?;
        text.push(b'\n');
        let mut file = root.create(&new)?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .map_err(DeployError::io("write", &root.at(&new)))?;
        root.rename(&new, &path)
    }

    /// What the file at `path` may be, if it is this installation's.
    pub(super) fn digests(&self, path: &Path) -> Option<&[Digest]> {
        self.files.iter().find(|file| file.path == path).map(|file| file.sha256.as_slice())
    }
}
