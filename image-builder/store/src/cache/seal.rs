//! What an entry of the cache consists of, written down when it was made, and looked at when it is found again.
//!
//! ```text
//! entry/.seal     size and digest of each file, written last
//! entry/.checked  a stamp: all digests were found right in this boot of the host, and no file was touched since
//! ```
//!
//! Promises that [`seal`] returns when all of an entry is on the disk. Sizes are compared at every look; content is
//! read again only after the host was booted anew, or when a file's inode or change time is another: what a power
//! failure takes is gone by then, and what anyone writes changes the time. Files that the seal does not name are
//! nobody's business here.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::CacheError;
use super::write::{replace, sync_dir, write_atomically};
use crate::digest::Digest;

/// What was measured about an entry: the one file in it that may come, or change, after it was sealed.
pub const MEASURED: &str = "sizes.json";
const SEAL: &str = ".seal";
const CHECKED: &str = ".checked";
/// Changes with every boot of the host (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// With more files than this, one call for the whole file system is cheaper than one for each.
const FEW: usize = 32;

/// What was found of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All is there and right.
    Whole,
    /// It has no seal: it comes from a version that made none.
    Unsealed,
    /// In words, what is wrong.
    Broken(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Seal {
    files: BTreeMap<PathBuf, Part>,
}

/// A file, or where a link leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    size: u64,
    sha256: Digest,
}

impl Part {
    fn of(path: &Path, is_link: bool) -> io::Result<Self> {
        let (sha256, size) = if is_link {
            let target = fs::read_link(path)?;
            let bytes = target.as_os_str().as_bytes();
            (Digest::of(bytes), bytes.len() as u64)
        } else {
            Digest::of_file(path)?
        };
        Ok(Self { size, sha256 })
    }
}

/// Brings all of `entry` to the disk, and writes down what it is.
pub(super) fn seal(entry: &Path) -> Result<(), CacheError> {
    let (paths, directories) = walk(entry)?;
    let mut files = BTreeMap::new();
    for path in &paths {
        let at = entry.join(path);
        let is_link = at.is_symlink();
        files.insert(path.clone(), Part::of(&at, is_link).map_err(CacheError::io("read", &at))?);
        if !is_link && paths.len() <= FEW {
            File::open(&at).and_then(|file| file.sync_all()).map_err(CacheError::io("write", &at))?;
        }
    }
    if paths.len() > FEW {
        File::open(entry)
            .and_then(|dir| nix::unistd::syncfs(dir).map_err(Into::into))
            .map_err(CacheError::io("write", entry))?;
    } else {
        directories.iter().try_for_each(|dir| sync_dir(&entry.join(dir)))?;
    }
    let seal = Seal { files };
    let path = entry.join(SEAL);
    let text = serde_json::to_vec(&seal).map_err(|error| CacheError::io("write", &path)(error.into()))?;
    write_atomically(&path, &text)?;
    remember(entry, stamp(entry, &seal).ok().flatten());
    Ok(())
}

/// Compares an entry with its seal.
pub(super) fn look_at(entry: &Path) -> Verdict {
    let seal: Seal = match fs::read(entry.join(SEAL)) {
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(seal) => seal,
            Err(_) => return Verdict::Broken("its list of files is damaged".to_owned()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Verdict::Unsealed,
        Err(error) => return Verdict::Broken(format!("its list of files cannot be read: {error}")),
    };
    let stamp = match stamp(entry, &seal) {
        Ok(stamp) => stamp,
        Err(problem) => return Verdict::Broken(problem),
    };
    if let Some(stamp) = &stamp
        && fs::read(entry.join(CHECKED)).is_ok_and(|known| known == stamp.as_bytes())
    {
        return Verdict::Whole;
    }
    for (path, part) in &seal.files {
        let at = entry.join(path);
        match Part::of(&at, at.is_symlink()) {
            Ok(found) if found == *part => {}
            Ok(_) => return Verdict::Broken(format!("{} has another digest", path.display())),
            Err(error) => return Verdict::Broken(format!("{} cannot be read: {error}", path.display())),
        }
    }
    remember(entry, stamp);
    Verdict::Whole
}

/// Where all files are on their disk and when they were changed, and in which boot of the host that was seen. Nothing where
/// boots cannot be told apart; in words what is wrong when a file is missing or has another size.
fn stamp(entry: &Path, seal: &Seal) -> Result<Option<String>, String> {
    let boot = fs::read_to_string(BOOT).unwrap_or_default();
    let mut parts = vec![("boot".to_owned(), boot.clone().into_bytes())];
    for (path, part) in &seal.files {
        let name = path.display().to_string();
        let metadata = match fs::symlink_metadata(entry.join(path)) {
            Ok(metadata) => metadata,
            Err(error) => return Err(format!("{name} cannot be found: {error}")),
        };
        if metadata.len() != part.size {
            return Err(format!("{name} has {} bytes where {} belong", metadata.len(), part.size));
        }
        let place = [metadata.ino(), metadata.ctime().cast_unsigned(), metadata.ctime_nsec().cast_unsigned()];
        parts.push((name, place.into_iter().flat_map(u64::to_le_bytes).collect()));
    }
    let digest = Digest::of_parts(parts.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
    Ok(Some(digest.to_string()).filter(|_| !boot.is_empty()))
}

/// Writes the stamp. Without it the next look reads all again, so a failure costs time and nothing else.
fn remember(entry: &Path, stamp: Option<String>) {
    if let Some(stamp) = stamp {
        drop(replace(&entry.join(CHECKED), stamp.as_bytes()));
    }
}

/// Everything in an entry that is no directory, and its directories with the entry itself last; both relative to it. What
/// belongs to the seal is left out, and what may be added later.
fn walk(entry: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), CacheError> {
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        let at = entry.join(&dir);
        for found in fs::read_dir(&at).map_err(CacheError::io("list", &at))? {
            let found = found.map_err(CacheError::io("list", &at))?;
            let path = dir.join(found.file_name());
            if found.file_type().map_err(CacheError::io("read", &at))?.is_dir() {
                pending.push(path);
            } else if ![SEAL, CHECKED, MEASURED].map(Path::new).contains(&path.as_path()) {
                files.push(path);
            }
        }
        directories.push(dir);
    }
    files.sort();
    directories.reverse();
    Ok((files, directories))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn sealed() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/file"), "content").unwrap();
        fs::write(dir.path().join("empty"), "").unwrap();
        symlink("deep/file", dir.path().join("link")).unwrap();
        assert_eq!(look_at(dir.path()), Verdict::Unsealed);
        seal(dir.path()).unwrap();
        dir
    }

    #[test]
    fn what_was_sealed_is_whole_and_stays_so_beside_new_files() {
        let dir = sealed();
        assert_eq!(look_at(dir.path()), Verdict::Whole);
        for name in ["new", MEASURED] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        seal(dir.path()).unwrap();
        fs::write(dir.path().join(MEASURED), "measured again").unwrap();
        fs::remove_file(dir.path().join(CHECKED)).unwrap();
        assert_eq!(look_at(dir.path()), Verdict::Whole);
        assert!(dir.path().join(CHECKED).exists(), "the next look reads no content");
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        type Damage = fn(&Path);
        let cases: [(&str, Damage); 6] = [
            ("deep/file has 3 bytes where 7 belong", |dir| fs::write(dir.join("deep/file"), "con").unwrap()),
            ("deep/file has another digest", |dir| fs::write(dir.join("deep/file"), "CONTENT").unwrap()),
            ("empty cannot be found", |dir| fs::remove_file(dir.join("empty")).unwrap()),
            ("empty has 1 bytes where 0 belong", |dir| fs::write(dir.join("empty"), "x").unwrap()),
            ("link has another digest", |dir| {
                fs::remove_file(dir.join("link")).unwrap();
                symlink("deep/elif", dir.join("link")).unwrap();
            }),
            ("its list of files is damaged", |dir| fs::write(dir.join(SEAL), "").unwrap()),
        ];
        for (problem, damage) in cases {
            let dir = sealed();
            // Change times are as coarse as the kernel's tick.
            std::thread::sleep(std::time::Duration::from_millis(20));
            damage(dir.path());
            match look_at(dir.path()) {
                Verdict::Broken(text) => assert!(text.contains(problem), "{text}"),
                other => panic!("{problem}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_stamp_of_another_boot_does_not_count() {
        let dir = sealed();
        // What a power failure does: other content of the same size, with the old times.
        fs::write(dir.path().join("deep/file"), "CONTENT").unwrap();
        fs::write(dir.path().join(CHECKED), "the stamp of a boot before").unwrap();
        assert!(matches!(look_at(dir.path()), Verdict::Broken(_)));
    }
}
