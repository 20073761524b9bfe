//! Container images as disks.
//!
//! Owns the way from an image as the tools of the world save it (layouts, archives, directories) or a root file system to one
//! read-only EROFS disk plus the image's configuration. Promises that digests are verified, that the
//! same image gives the same disk, that it is made once (the cache remembers), and that no privilege is needed.
//! Must never write outside the cache, nor follow anything in an image out of it.
//!
//! ```text
//! source: layout | archive | dir | bundle ──► tree (layers applied) ──► erofs ──► cache/images/<key>/{disk.erofs,image.json}
//! ```

mod archive;
mod blobs;
mod bundle;
mod ceiling;
mod config;
mod directory;
mod document;
mod error;
mod layer;
mod name;
mod platform;
mod rootfs;
mod select;
mod source;
mod spool;
mod tar;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fs_image::{Tree, erofs};
use serde::{Deserialize, Serialize};

pub use ceiling::Ceiling;
pub use config::{Account, ImageConfig, SignalError, UserError, signal_number};
pub use error::ImageError;
pub use platform::parse_platform;
pub use rootfs::contents;

use source::Opened;
use spool::Spool;
use store::arch::Arch;
use store::cache::Cache;
use store::digest::Digest;

/// Changes whenever the same image would become a different disk.
const WRITER: &[u8] = b"erofs 2";
const KIND: &str = "images";
const DISK: &str = "disk.erofs";
const RECORD: &str = "image.json";

/// An image that a guest can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The EROFS disk.
    pub disk: PathBuf,
    /// Size of the disk in bytes.
    pub size: u64,
    /// The architecture of its programs, where the image says that: a root file system does not.
    pub arch: Option<Arch>,
    /// What the image says about running it.
    pub config: ImageConfig,
    /// Whether the disk was in the cache already.
    pub cached: bool,
}

/// What is kept beside a disk.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    source: String,
    config: ImageConfig,
}

/// Makes a disk of the image for guests of the host's architecture at `reference`: a directory or file, with `:NAME` or `@DIGEST` behind it when it holds more than
/// one image. See `docs/images.md` for all that is read.
///
/// # Errors
/// Names the file and what is wrong with it: not an image, a digest that does not match, an entry that leads out
/// of the image.
pub fn prepare(reference: &str, cache: &Cache) -> Result<Image, ImageError> {
    prepare_within(reference, cache, Ceiling::default())
}

/// As [`prepare`], with a ceiling of one's own.
///
/// # Errors
/// As [`prepare`]; also when the image is larger than that.
pub fn prepare_within(reference: &str, cache: &Cache, ceiling: Ceiling) -> Result<Image, ImageError> {
    prepare_for(reference, Some(Arch::host()), cache, ceiling)
}

/// As [`prepare_within`], for guests of another architecture. Without one, for any that guests can have: of several, the host's
/// own before others. [`Image::arch`] says which.
///
/// # Errors
/// As [`prepare_within`]; also when there is no image for that architecture.
pub fn prepare_for(
    reference: &str,
    arch: Option<Arch>,
    cache: &Cache,
    ceiling: Ceiling,
) -> Result<Image, ImageError> {
    let opened = source::open(reference, arch, cache, ceiling)?;
    let key = opened.key()?;
    make(reference, key, &opened, cache, ceiling)
}

/// The architecture of the image that [`prepare_for`] would make a disk of, where the image says that. Reads its documents only.
///
/// # Errors
/// As [`prepare_for`].
pub fn arch_of(
    reference: &str,
    wanted: Option<Arch>,
    cache: &Cache,
    ceiling: Ceiling,
) -> Result<Option<Arch>, ImageError> {
    Ok(source::open(reference, wanted, cache, ceiling)?.arch())
}

/// Writes the disk of the image at `reference` to a new file, and answers how the image is run. This is the part of [`prepare`]
/// that other programs that make file systems do, too: nothing is kept in the cache, nothing is digested for it, and nobody waits
/// for the disk's hardware.
///
/// # Errors
/// As [`prepare`]; also when there is a file `disk` already.
pub fn pack(reference: &str, disk: &Path, cache: &Cache) -> Result<ImageConfig, ImageError> {
    let ceiling = Ceiling::default();
    let opened = source::open(reference, Some(Arch::host()), cache, ceiling)?;
    let work = cache.workspace()?;
    write(reference, opened.key()?, &opened, disk, work.path(), ceiling)
}

/// Whether a reference leads to a file or a directory that is there.
pub fn is_there(reference: &str) -> bool {
    name::locate(reference).is_ok()
}

/// A disk in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// What it was made of.
    pub source: String,
    /// Its directory in the cache.
    pub path: PathBuf,
    /// Bytes of it.
    pub bytes: u64,
    /// When it was last used.
    #[serde(skip)]
    pub used: SystemTime,
}

/// All disks in the cache, those last used first.
pub fn made(cache: &Cache) -> Vec<Made> {
    let look = |path: PathBuf| {
        let record: Record = serde_json::from_slice(&fs::read(path.join(RECORD)).ok()?).ok()?;
        let bytes = fs::metadata(path.join(DISK)).ok()?.len();
        let used = fs::metadata(&path).ok()?.modified().ok()?;
        Some(Made { source: record.source, path, bytes, used })
    };
    cache.entries(KIND).into_iter().filter_map(look).collect()
}

/// Removes a disk from the cache. A guest that has it open keeps it until it ends.
///
/// # Errors
/// When a file cannot be removed.
pub fn discard(made: &Made, cache: &Cache) -> Result<(), ImageError> {
    // Out of the way by one rename, so that nobody finds half of it.
    let work = cache.workspace()?;
    let away = work.path().join("away");
    fs::rename(&made.path, &away).map_err(|error| ImageError::io("remove", &made.path, error))
}

/// Makes a disk of what was opened, unless the cache has it under `key`.
fn make(
    reference: &str,
    key: Digest,
    content: &Opened,
    cache: &Cache,
    ceiling: Ceiling,
) -> Result<Image, ImageError> {
    let key = Digest::of_parts([("writer", WRITER), ("image", key.to_string().as_bytes())]);
    if let Some(entry) = cache.entry(KIND, &key) {
        // Whoever makes room begins with what was not used for the longest time. A cache of somebody else has its own.
        drop(File::open(&entry).and_then(|entry| entry.set_modified(SystemTime::now())));
        return load(&entry, content.arch(), true);
    }
    let work = cache.workspace()?;
    let entry = work.path().join("entry");
    fs::create_dir(&entry).map_err(|error| ImageError::io("create", &entry, error))?;
    let disk = entry.join(DISK);
    let config = write(reference, key, content, &disk, work.path(), ceiling)?;
    let record = Record { source: reference.to_owned(), config };
    let text =
        serde_json::to_vec_pretty(&record).map_err(|error| ImageError::io("write", &disk, error.into()))?;
    fs::write(entry.join(RECORD), text)
        .map_err(|error| ImageError::io("write", entry.join(RECORD), error))?;
    load(&cache.publish(KIND, &key, &entry)?, content.arch(), false)
}

/// Writes the disk of what was opened, with `work` for files that are needed meanwhile.
fn write(
    reference: &str,
    key: Digest,
    content: &Opened,
    disk: &Path,
    work: &Path,
    ceiling: Ceiling,
) -> Result<ImageConfig, ImageError> {
    let mut spool = Spool::new(work, ceiling)
        .map_err(|error| ImageError::io("create a file in", work, error))?
        .referring();
    let mut tree = Tree::new();
    let mut config = content.fill(&mut tree, &mut spool)?;
    config.take_accounts(&tree);
    // As those who unpack images do: Linux knows no others.
    tree.retain_xattrs(erofs::is_attribute);
    let file = File::create_new(disk).map_err(|error| ImageError::io("create", disk, error))?;
    erofs::write(&tree, key.uuid(), &file).map_err(|source| ImageError::Disk {
        path: PathBuf::from(reference),
        place: disk.parent().unwrap_or(disk).to_path_buf(),
        source: Box::new(source),
    })?;
    directory::settle(&mut spool)?;
    Ok(config)
}

fn load(entry: &Path, arch: Option<Arch>, cached: bool) -> Result<Image, ImageError> {
    let path = entry.join(RECORD);
    let text = fs::read(&path).map_err(|error| ImageError::io("read", &path, error))?;
    let record: Record =
        serde_json::from_slice(&text).map_err(|source| ImageError::Json { path: path.clone(), source })?;
    let disk = entry.join(DISK);
    let size = fs::metadata(&disk).map_err(|error| ImageError::io("read", &disk, error))?.len();
    Ok(Image { disk, size, arch, config: record.config, cached })
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod saved;
#[cfg(test)]
mod tests;
