//! The per-user cache of things that are dear to make, addressed by the digest of all that went into them.
//!
//! Layout: `CACHE/<kind>/<key>/…`. An entry appears by a rename of a finished directory and is never changed after
//! that, so a reader sees all of it or nothing, and two builders that race both succeed; only what was measured about an
//! entry may be added later, as a file that is written at once. Unfinished work lives in
//! `CACHE/work/` and is removed when its owner drops it. Must never hold what cannot be made again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::digest::Digest;

/// How old a workspace must be before it can be taken for abandoned.
const GRACE: Duration = Duration::from_secs(60);

/// Why the cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// No variable says where caches live.
    #[error("no place for the cache: set PITH_CACHE, XDG_CACHE_HOME or HOME to an absolute path")]
    NoPlace,
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

impl CacheError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }
}

/// A handle on the cache directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Uses `root`, which need not exist yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
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

    /// Where the entry of this kind and key is, if it is there.
    pub fn entry(&self, kind: &str, key: &Digest) -> Option<PathBuf> {
        Some(self.entry_path(kind, key)).filter(|path| path.is_dir())
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
        let work = self.root.join("work");
        fs::create_dir_all(&work).map_err(CacheError::io("create", &work))?;
        remove_abandoned(&work);
        let dir = tempfile::Builder::new().prefix("build-").tempdir_in(&work);
        let dir = dir.map_err(CacheError::io("create a directory in", &work))?;
        let handle = File::open(dir.path()).map_err(CacheError::io("open", dir.path()))?;
        let lock = Flock::lock(handle, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| CacheError::io("lock", dir.path())(errno.into()))?;
        Ok(Workspace { dir, _lock: lock })
    }

    /// Makes the directory `finished` (inside a [`Cache::workspace`]) the entry of this kind and key, and answers
    /// where it now is. When another builder was faster, its entry stays and `finished` is left to its owner.
    ///
    /// # Errors
    /// When the rename fails for any other reason.
    pub fn publish(&self, kind: &str, key: &Digest, finished: &Path) -> Result<PathBuf, CacheError> {
        let entry = self.entry_path(kind, key);
        let parent = self.root.join(kind);
        fs::create_dir_all(&parent).map_err(CacheError::io("create", &parent))?;
        match fs::rename(finished, &entry) {
            Ok(()) => Ok(entry),
            Err(_) if entry.is_dir() => Ok(entry),
            Err(source) => {
                Err(CacheError::Io { operation: "rename the finished entry to", path: entry, source })
            }
        }
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
    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes the directories in `work` that nobody holds a lock on. One that was just made may not be locked yet, so
/// young ones are left alone; and so is what cannot be removed, since tidying up is not worth an error.
fn remove_abandoned(work: &Path) {
    let Ok(entries) = fs::read_dir(work) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let age = fs::metadata(&path)
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|at| at.elapsed().ok());
        if age.is_none_or(|age| age < GRACE) {
            continue;
        }
        if let Ok(lock) = File::open(&path).map(|dir| Flock::lock(dir, FlockArg::LockExclusiveNonblock)) {
            match lock {
                Ok(_held) => drop(fs::remove_dir_all(&path)),
                Err(_in_use) => {}
            }
        }
    }
}

/// Copies `from` to `to` so that `to` is at all times absent, old or complete: through a temporary file beside it.
/// Permission bits come along.
///
/// # Errors
/// When any step fails; the temporary file is gone then.
pub fn install(from: &Path, to: &Path) -> Result<(), CacheError> {
    let bytes = fs::read(from).map_err(CacheError::io("read", from))?;
    // Left alone when it is the same already, so that what depends on its time is not made again.
    if fs::read(to).ok().as_ref() != Some(&bytes) {
        write_atomically(to, &bytes)?;
    }
    let permissions = fs::metadata(from).map_err(CacheError::io("inspect", from))?.permissions();
    fs::set_permissions(to, permissions).map_err(CacheError::io("set the mode of", to))
}

/// Writes `bytes` to `path` so that `path` is at all times absent, old or complete. Mode 0644; parents are made.
///
/// # Errors
/// When any step fails; the temporary file is gone then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(CacheError::io("create", parent))?;
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(parent)
        .map_err(CacheError::io("create a file in", parent))?;
    file.write_all(bytes).map_err(CacheError::io("write", path))?;
    file.persist(path).map_err(|error| CacheError::io("replace", path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
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
        use std::os::unix::fs::PermissionsExt;
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
