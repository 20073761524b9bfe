//! Copies one file, directory or symbolic link into the tree.
//!
//! A regular file may come in several requests, each with the next piece. What has come so far is a file without a name
//! (`O_TMPFILE`), so a copy that is never finished leaves nothing behind.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::FileError;
use super::path::{self, Location, ParentOwner};

/// Unfinished copies that are kept; the one that waits longest is forgotten beyond.
pub(super) const UNFINISHED: usize = 64;

/// A request.
#[derive(Debug, Clone, Default)]
pub(crate) struct CopyRequest {
    /// Where it goes.
    pub(crate) path: PathBuf,
    /// Bytes of the whole file.
    pub(crate) size: i64,
    /// Type and permission bits, as `st_mode` has them; no type is a regular file.
    pub(crate) mode: u32,
    /// Permission bits of directories made on the way.
    pub(crate) directory_mode: u32,
    /// Owner; -1 leaves it.
    pub(crate) uid: i32,
    /// Group; -1 leaves it.
    pub(crate) gid: i32,
    /// Where `data` begins in the file.
    pub(crate) offset: i64,
    /// Contents, or a link's target.
    pub(crate) data: Vec<u8>,
}

/// The unfinished copies.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    open: Mutex<Open>,
    /// For names that nobody else has.
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    copies: HashMap<PathBuf, Arc<Mutex<Unfinished>>>,
    /// Oldest first.
    order: Vec<PathBuf>,
}

#[derive(Debug)]
struct Unfinished {
    file: File,
    size: u64,
    written: u64,
}

impl Open {
    fn take(&mut self, path: &Path) {
        self.copies.remove(path);
        self.order.retain(|other| other != path);
    }

    /// Forgets a copy, if it is still the one that its path stands for: a client that lost an answer may have begun anew.
    fn end(&mut self, path: &Path, copy: &Arc<Mutex<Unfinished>>) {
        if self.copies.get(path).is_some_and(|current| Arc::ptr_eq(current, copy)) {
            self.take(path);
        }
    }

    fn put(&mut self, path: &Path, copy: Unfinished) -> Arc<Mutex<Unfinished>> {
        self.take(path);
        if self.order.len() >= UNFINISHED {
            let oldest = self.order.remove(0);
            tracing::warn!(path = %oldest.display(), "a copy was never finished and is forgotten");
            self.copies.remove(&oldest);
        }
        let copy = Arc::new(Mutex::new(copy));
        self.order.push(path.to_owned());
        self.copies.insert(path.to_owned(), Arc::clone(&copy));
        copy
    }
}

impl Copies {
    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many copies are unfinished.
    #[cfg(any(test, fuzzing))]
    pub(super) fn unfinished(&self) -> usize {
        let open = self.open();
        assert_eq!(open.copies.len(), open.order.len(), "each has its turn");
        open.order.len()
    }

    /// Copies an entry to its place below `root`. Blocks.
    pub(crate) fn copy(&self, root: &Path, entry: &CopyRequest) -> Result<(), FileError> {
        let (uid, gid) = (entry.uid as u32, entry.gid as u32);
        let owner = ParentOwner { mode: entry.directory_mode & 0o777, uid, gid };
        let refuse = |reason: String| FileError::Numbers { path: entry.path.clone(), reason };
        match FileType::from_raw_mode(entry.mode) {
            FileType::Directory => self.directory(&path::place(root, &entry.path, owner)?, entry),
            FileType::Symlink => self.link(&path::place(root, &entry.path, owner)?, entry),
            FileType::RegularFile => self.regular(root, entry, owner),
            _ if entry.mode & 0o170_000 == 0 => self.regular(root, entry, owner),
            other => Err(refuse(format!("a {other:?} cannot be copied"))),
        }
    }

    fn regular(&self, root: &Path, entry: &CopyRequest, owner: ParentOwner) -> Result<(), FileError> {
        let refuse = |reason: String| Err(FileError::Numbers { path: entry.path.clone(), reason });
        let (Ok(size), Ok(offset)) = (u64::try_from(entry.size), u64::try_from(entry.offset)) else {
            return refuse(format!("{} bytes at {}", entry.size, entry.offset));
        };
        let end = offset + entry.data.len() as u64;
        if end > size {
            return refuse(format!("{} bytes at {offset} go beyond a file of {size}", entry.data.len()));
        }
        if entry.data.is_empty() && size > 0 {
            return refuse(format!("no data for a file of {size} bytes"));
        }
        path::below(root, &entry.path)?;
        let copy = if offset == 0 {
            let place = path::place(root, &entry.path, owner)?;
            let copy = Unfinished { file: unnamed(&place.parent, entry)?, size, written: 0 };
            self.open().put(&entry.path, copy)
        } else {
            let known = self.open().copies.get(&entry.path).map(Arc::clone);
            match known {
                Some(copy) => copy,
                None => return refuse(format!("a piece at {offset}, but none at 0 came before")),
            }
        };
        let known = copy;
        let mut copy = known.lock().unwrap_or_else(PoisonError::into_inner);
        if copy.size != size || offset > copy.written {
            let (had, of) = (copy.written, copy.size);
            return refuse(format!("a piece at {offset} of {size}, where {had} bytes of {of} have come"));
        }
        let written = copy.file.write_all_at(&entry.data, offset);
        if let Err(source) = written {
            self.open().end(&entry.path, &known);
            return Err(FileError::Io { path: entry.path.clone(), operation: "write", source });
        }
        copy.written = copy.written.max(end);
        if copy.written < size {
            return Ok(());
        }
        self.open().end(&entry.path, &known);
        // The parent is looked up again: it may have been replaced since the first piece.
        let place = path::place(root, &entry.path, owner)?;
        self.publish(&place, &copy.file, entry)
    }

    /// Gives a complete file its owner, its mode and then its name.
    fn publish(&self, place: &Location, file: &File, entry: &CopyRequest) -> Result<(), FileError> {
        let (uid, gid) = ids(entry);
        // The owner first: a change of owner takes set-user-ID bits away.
        rustix::fs::fchown(file, uid, gid).map_err(failed(entry, "give away"))?;
        rustix::fs::fchmod(file, permissions(entry)).map_err(failed(entry, "set the mode of"))?;
        let mine = format!("/proc/self/fd/{}", file.as_raw_fd());
        self.replace(place, entry, |name| {
            rustix::fs::linkat(CWD, &mine, &place.parent, name, AtFlags::SYMLINK_FOLLOW)
        })
    }

    fn link(&self, place: &Location, entry: &CopyRequest) -> Result<(), FileError> {
        let (uid, gid) = ids(entry);
        let target = OsStr::from_bytes(&entry.data);
        if target.is_empty() || entry.data.contains(&0) {
            let reason = "a link's target is empty or has a NUL".to_owned();
            return Err(FileError::Numbers { path: entry.path.clone(), reason });
        }
        self.replace(place, entry, |name| {
            rustix::fs::symlinkat(target, &place.parent, name)?;
            rustix::fs::chownat(&place.parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    /// A directory keeps what is in it; anything else that has its name makes room.
    fn directory(&self, place: &Location, entry: &CopyRequest) -> Result<(), FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&place.parent, &place.name, flags, Mode::empty());
        let directory = match open() {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                path::remove(&place.parent, Path::new(&place.name))
                    .map_err(io_failed(entry, "make room for"))?;
                let private = Mode::from_raw_mode(0o700);
                rustix::fs::mkdirat(&place.parent, &place.name, private).map_err(failed(entry, "make"))?;
                open()
            }
            opened => opened,
        };
        let directory = directory.map_err(failed(entry, "open"))?;
        path::own(&directory, entry.uid as u32, entry.gid as u32).map_err(failed(entry, "give away"))?;
        rustix::fs::fchmod(&directory, permissions(entry)).map_err(failed(entry, "set the mode of"))
    }

    /// Makes an entry under a name of its own, then renames it over whatever has the right one.
    fn replace(
        &self,
        place: &Location,
        entry: &CopyRequest,
        make: impl Fn(&str) -> rustix::io::Result<()>,
    ) -> Result<(), FileError> {
        let own = format!(".pith-copy-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let rename = || rustix::fs::renameat(&place.parent, own.as_str(), &place.parent, &place.name);
        let replaced = make(&own).map_err(failed(entry, "make")).and_then(|()| match rename() {
            // A directory does not give way to a rename.
            Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => {
                path::remove(&place.parent, Path::new(&place.name))
                    .map_err(io_failed(entry, "make room for"))?;
                rename().map_err(failed(entry, "name"))
            }
            renamed => renamed.map_err(failed(entry, "name")),
        });
        if replaced.is_err()
            && let Err(error) = path::remove(&place.parent, Path::new(&own))
        {
            tracing::warn!(path = %entry.path.display(), %error, "a failed copy leaves a file");
        }
        replaced
    }
}

/// A file without a name in a directory.
fn unnamed(parent: &OwnedFd, entry: &CopyRequest) -> Result<File, FileError> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, ".", flags, Mode::from_raw_mode(0o600));
    Ok(file.map_err(failed(entry, "begin"))?.into())
}

fn ids(entry: &CopyRequest) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    let (uid, gid) = (entry.uid as u32, entry.gid as u32);
    (path::id(uid, rustix::fs::Uid::from_raw), path::id(gid, rustix::fs::Gid::from_raw))
}

fn permissions(entry: &CopyRequest) -> Mode {
    Mode::from_raw_mode(entry.mode & 0o7777)
}

fn failed(entry: &CopyRequest, operation: &'static str) -> impl FnOnce(Errno) -> FileError {
    let path = entry.path.clone();
    move |errno| FileError::Io { path, operation, source: errno.into() }
}

fn io_failed(entry: &CopyRequest, operation: &'static str) -> impl FnOnce(io::Error) -> FileError {
    let path = entry.path.clone();
    move |source| FileError::Io { path, operation, source }
}

#[cfg(test)]
#[path = "copy_test.rs"]
mod tests;
