//! The per-user cache of things that are dear to make, addressed by the digest of all that went into them.
//!
//! Layout: `CACHE/<kind>/<key>/…`. An entry is brought to the disk and sealed (`seal`), appears by a rename of its
//! finished directory and is never changed after that, so a reader sees all of it or nothing, and two builders that race
//! both succeed; only what was measured about an entry may be added later, as a file that is written at once. Whoever
//! finds an entry compares it with its seal; one that is broken is thrown away with a note, and made anew.
//! Unfinished work lives in `CACHE/work/` and is removed when its owner drops it. Must never hold what cannot be made
//! again.

mod error;
mod seal;
mod write;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::digest::Digest;
pub use error::CacheError;
pub use seal::MEASURED;
use seal::Verdict;
use write::remove_abandoned;
pub use write::{install, replace, sync_dir, write_atomically};

/// How often two builders that find the same broken entry may meet.
const TRIES: u32 = 5;
/// A handle on the cache directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    note: fn(&str),
}

impl Cache {
    /// Uses `root`, which need not exist yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root, note: |_| {} }
    }

    /// Tells `note` when an entry is thrown away.
    #[must_use]
    pub fn with_notes(self, note: fn(&str)) -> Self {
        Self { note, ..self }
    }

    /// Finds the place by `PITH_CACHE`, `XDG_CACHE_HOME/pith` or `HOME/.cache/pith`, asking `variable` for each.
    ///
    /// # Errors
    /// [`CacheError::NoPlace`] when none is an absolute path.
    pub fn locate(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, CacheError> {
        let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("PITH_CACHE")
            .or_else(|| Some(absolute("XDG_CACHE_HOME")?.join("pith")))
            .or_else(|| Some(absolute("HOME")?.join(".cache/pith")))
            .map(Self::new)
            .ok_or(CacheError::NoPlace)
    }

    /// The cache directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the entry of this kind and key is, if it is there and whole. One that is not is thrown away.
    pub fn entry(&self, kind: &str, key: &Digest) -> Option<PathBuf> {
        self.entry_or_older(kind, key, |_| false)
    }

    /// As [`Cache::entry`]; an entry of a version that sealed none is sealed now, if `is_whole` says that nothing of it is
    /// missing.
    pub fn entry_or_older(
        &self,
        kind: &str,
        key: &Digest,
        is_whole: impl Fn(&Path) -> bool,
    ) -> Option<PathBuf> {
        let entry = Some(self.entry_path(kind, key)).filter(|path| path.is_dir())?;
        if seal::look_at(&entry) == Verdict::Whole {
            return Some(entry);
        }
        self.settle(kind, &entry, is_whole)
    }

    /// Seals or throws away an entry that is not whole. Only one process at a time does so, and looks again before: another
    /// one may have put a whole entry there.
    fn settle(&self, kind: &str, entry: &Path, is_whole: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        let kind = File::open(self.root.join(kind)).ok()?;
        let _lock = Flock::lock(kind, FlockArg::LockExclusive).ok()?;
        let problem = match seal::look_at(entry) {
            Verdict::Whole => return Some(entry.to_path_buf()),
            Verdict::Unsealed if is_whole(entry) && seal::seal(entry).is_ok() => {
                return Some(entry.to_path_buf());
            }
            Verdict::Unsealed => "was made by an older version, which kept no list of its files".to_owned(),
            Verdict::Broken(problem) => format!("is broken: {problem}"),
        };
        // Another builder may have thrown it away while we waited.
        if entry.is_dir() {
            (self.note)(&format!("{} {problem}; it is made anew", entry.display()));
            // Out of the way by one rename. What is left of it in a workspace goes with that, or with a later one.
            match self.workspace() {
                Ok(work) => drop(fs::rename(entry, work.path().join("broken"))),
                Err(_) => drop(fs::remove_dir_all(entry)),
            }
        }
        None
    }

    /// All entries of a kind, newest first by modification time.
    pub fn entries(&self, kind: &str) -> Vec<PathBuf> {
        let Ok(dir) = fs::read_dir(self.root.join(kind)) else { return Vec::new() };
        let mut found: Vec<_> = dir
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, path)| path).collect()
    }

    /// An empty directory to build in, on the cache's file system. Removed when dropped; what a killed builder left
    /// behind is removed by the next call.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn workspace(&self) -> Result<Workspace, CacheError> {
        Workspace::new_in(&self.root.join("work"), "build-")
    }

    /// Makes the directory `finished` (inside a [`Cache::workspace`]) the entry of this kind and key, and answers
    /// where it now is. When another builder was faster, its entry stays and `finished` is left to its owner.
    ///
    /// # Errors
    /// When it cannot be brought to the disk, or the rename fails for any other reason.
    pub fn publish(&self, kind: &str, key: &Digest, finished: &Path) -> Result<PathBuf, CacheError> {
        let entry = self.entry_path(kind, key);
        let parent = self.root.join(kind);
        fs::create_dir_all(&parent).map_err(CacheError::io("create", &parent))?;
        seal::seal(finished)?;
        let mut tries = 0;
        loop {
            tries += 1;
            match fs::rename(finished, &entry) {
                Ok(()) => break,
                // What stands there is whole, or is thrown away by this.
                Err(_) if entry.is_dir() && self.entry(kind, key).is_some() => return Ok(entry),
                Err(_) if tries < TRIES && !entry.is_dir() => {}
                Err(source) => {
                    return Err(CacheError::Io {
                        operation: "rename the finished entry to",
                        path: entry,
                        source,
                    });
                }
            }
        }
        sync_dir(&parent)?;
        sync_dir(&self.root)?;
        Ok(entry)
    }

    /// Seals an entry anew whose files were changed on purpose, as tests do that want to see what comes of it.
    ///
    /// # Errors
    /// When the seal cannot be written.
    pub fn reseal(entry: &Path) -> Result<(), CacheError> {
        seal::seal(entry)
    }

    fn entry_path(&self, kind: &str, key: &Digest) -> PathBuf {
        self.root.join(kind).join(key.to_string())
    }
}

/// A directory to build in. Its lock tells others that somebody still works in it.
#[derive(Debug)]
pub struct Workspace {
    dir: TempDir,
    _lock: Flock<File>,
}

impl Workspace {
    /// An empty directory in `parent`, which is made when absent, with a name that begins with `prefix`. What killed owners
    /// of such directories left behind is removed first.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new_in(parent: &Path, prefix: &str) -> Result<Self, CacheError> {
        fs::create_dir_all(parent).map_err(CacheError::io("create", parent))?;
        remove_abandoned(parent, prefix);
        let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(parent);
        let dir = dir.map_err(CacheError::io("create a directory in", parent))?;
        let handle = File::open(dir.path()).map_err(CacheError::io("open", dir.path()))?;
        let lock = Flock::lock(handle, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| CacheError::io("lock", dir.path())(errno.into()))?;
        Ok(Self { dir, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::write::GRACE;
    use super::*;

    #[test]
    fn the_place_follows_the_variables_in_order_and_ignores_relative_ones() {
        let with = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            Cache::locate(move |name| set.iter().find(|(k, _)| k == name).map(|(_, v)| v.into()))
        };
        let root = |set: &[(&str, &str)]| with(set).unwrap().root().to_path_buf();
        assert_eq!(root(&[("PITH_CACHE", "/p"), ("HOME", "/h")]), Path::new("/p"));
        assert_eq!(root(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]), Path::new("/x/pith"));
        assert_eq!(root(&[("XDG_CACHE_HOME", "x"), ("HOME", "/h")]), Path::new("/h/.cache/pith"));
        assert!(matches!(with(&[("HOME", "")]), Err(CacheError::NoPlace)));
    }

    #[test]
    fn an_entry_appears_whole_and_the_first_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("cache"));
        let key = Digest::of(b"key");
        assert_eq!(cache.entry("kernel", &key), None);
        for content in ["first", "second"] {
            let work = cache.workspace().unwrap();
            let product = work.path().join("product");
            fs::create_dir(&product).unwrap();
            fs::write(product.join("file"), content).unwrap();
            cache.publish("kernel", &key, &product).unwrap();
        }
        let entry = cache.entry("kernel", &key).unwrap();
        assert_eq!(fs::read_to_string(entry.join("file")).unwrap(), "first");
        assert_eq!(cache.entries("kernel"), [entry]);
        assert_eq!(fs::read_dir(cache.root().join("work")).unwrap().count(), 0, "workspaces are removed");
    }

    #[test]
    fn a_broken_entry_is_thrown_away_and_a_new_one_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("cache"));
        let key = Digest::of(b"key");
        let publish = |content: &str| {
            let work = cache.workspace().unwrap();
            let product = work.path().join("product");
            fs::create_dir(&product).unwrap();
            fs::write(product.join("file"), content).unwrap();
            cache.publish("kernel", &key, &product).unwrap()
        };
        let entry = publish("right");
        fs::write(entry.join("file"), "").unwrap();
        assert_eq!(cache.entry("kernel", &key), None);
        assert!(!entry.exists());
        publish("right");
        fs::write(entry.join("file"), "").unwrap();
        // Nobody looked before the next builder was done.
        assert_eq!(publish("right"), entry);
        assert_eq!(fs::read_to_string(entry.join("file")).unwrap(), "right");
        assert_eq!(fs::read_dir(cache.root().join("work")).unwrap().count(), 0);
    }

    #[test]
    fn an_entry_of_an_older_version_is_sealed_if_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().into());
        let key = Digest::of(b"key");
        let entry = dir.path().join("kernel").join(key.to_string());
        fs::create_dir_all(&entry).unwrap();
        fs::write(entry.join("file"), "whole").unwrap();
        let is_whole = |dir: &Path| fs::read(dir.join("file")).is_ok_and(|text| text == b"whole");
        assert_eq!(cache.entry_or_older("kernel", &key, is_whole), Some(entry.clone()));
        assert_eq!(cache.entry("kernel", &key), Some(entry.clone()), "it has a seal now");
        fs::remove_dir_all(&entry).unwrap();
        fs::create_dir_all(&entry).unwrap();
        fs::write(entry.join("file"), "who").unwrap();
        assert_eq!(cache.entry_or_older("kernel", &key, is_whole), None);
        assert!(!entry.exists());
    }

    #[test]
    fn what_a_killed_writer_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (old, young) = (dir.path().join(".new-old"), dir.path().join(".new-young"));
        fs::write(&young, "half").unwrap();
        fs::write(&old, "half").unwrap();
        File::open(&old).unwrap().set_modified(std::time::SystemTime::now() - 2 * GRACE).unwrap();
        write_atomically(&dir.path().join("file"), b"x").unwrap();
        assert!(!old.exists() && young.exists());
    }

    #[test]
    fn abandoned_workspaces_are_removed_and_busy_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().into());
        let busy = cache.workspace().unwrap();
        let work = dir.path().join("work");
        for name in ["build-old", "build-young"] {
            fs::create_dir_all(work.join(name).join("deep")).unwrap();
        }
        let past = std::time::SystemTime::now() - 2 * GRACE;
        for path in [busy.path().to_path_buf(), work.join("build-old")] {
            File::open(path).unwrap().set_modified(past).unwrap();
        }
        drop(cache.workspace().unwrap());
        assert!(busy.path().is_dir() && work.join("build-young").is_dir());
        assert!(!work.join("build-old").exists());
    }

    #[test]
    fn install_replaces_and_keeps_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("deep/to"));
        fs::write(&from, "new").unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o755)).unwrap();
        write_atomically(&to, b"old").unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o644);
        install(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "new");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 1, "no temporary file stays");
    }
}
