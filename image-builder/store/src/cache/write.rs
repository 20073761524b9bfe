//! Files that are absent, old or complete at all times, also after a power failure.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use super::error::CacheError;

/// Where [`replace`] writes before it renames.
const NEW: &str = ".new-";
/// How old a workspace or an unfinished file must be before it can be taken for abandoned.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// Copies `from` to `to` so that `to` is at all times absent, old or complete, also after a power failure: through a
/// temporary file beside it. Permission bits come along.
///
/// # Errors
/// When any step fails; the temporary file is gone then.
pub fn install(from: &Path, to: &Path) -> Result<(), CacheError> {
    let bytes = fs::read(from).map_err(CacheError::io("read", from))?;
    let permissions = fs::metadata(from).map_err(CacheError::io("inspect", from))?.permissions();
    // Left alone when it is the same already, so that what depends on its time is not made again.
    if fs::read(to).ok().as_ref() != Some(&bytes) {
        put(to, &bytes, permissions.clone(), true)?;
    }
    fs::set_permissions(to, permissions).map_err(CacheError::io("set the mode of", to))
}

/// Writes `bytes` to `path` so that `path` is at all times absent, old or complete, also after a power failure. Mode
/// 0644; parents are made.
///
/// # Errors
/// When any step fails; the temporary file is gone then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
    put(path, bytes, fs::Permissions::from_mode(0o644), true)
}

/// As [`write_atomically`], for what means nothing after the next boot of the host: nobody waits for the disk.
///
/// # Errors
/// As [`write_atomically`].
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
    put(path, bytes, fs::Permissions::from_mode(0o644), false)
}

fn put(path: &Path, bytes: &[u8], permissions: fs::Permissions, durable: bool) -> Result<(), CacheError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(CacheError::io("create", parent))?;
    remove_abandoned(parent, NEW);
    let mut file = tempfile::Builder::new()
        .prefix(NEW)
        .permissions(permissions)
        .tempfile_in(parent)
        .map_err(CacheError::io("create a file in", parent))?;
    let handle = file.as_file().try_clone().map_err(CacheError::io("write", path))?;
    // Tells others that somebody still writes it. Where files cannot be locked, only its age does.
    let _lock = Flock::lock(handle, FlockArg::LockExclusiveNonblock).ok();
    file.write_all(bytes).map_err(CacheError::io("write", path))?;
    if durable {
        file.as_file().sync_all().map_err(CacheError::io("write", path))?;
    }
    file.persist(path).map_err(|error| CacheError::io("replace", path)(error.error))?;
    if durable { sync_dir(parent) } else { Ok(()) }
}

/// Brings the names in a directory to the disk: a rename is there for good only then (rename(2), fsync(2)).
pub fn sync_dir(dir: &Path) -> Result<(), CacheError> {
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        // Some file systems have nothing to bring.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other.map_err(CacheError::io("write the names in", dir)),
    }
}

/// Removes what is called `prefix…` in `dir` and nobody holds a lock on. What was just made may not be locked yet, so
/// young ones are left alone; and so is what cannot be removed, since tidying up is not worth an error.
pub(super) fn remove_abandoned(dir: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().as_bytes().starts_with(prefix.as_bytes()))
    {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
        if age.is_none_or(|age| age < GRACE) || !(metadata.is_dir() || metadata.is_file()) {
            continue;
        }
        let Ok(handle) = File::open(&path) else { continue };
        if let Ok(_held) = Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
            drop(if metadata.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) });
        }
    }
}
