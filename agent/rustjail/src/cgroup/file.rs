//! Control files, by directory descriptor.
//!
//! Owns: opening, reading, writing and walking below one held directory. Promises: no symlink is followed, every
//! descriptor is close-on-exec, a value goes to the kernel in one write(2), an absent file is a value (`None`,
//! `false`), not an error. Must never: create a file, or know what a file means.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::Error;

/// Marks the directories that [`super::Cgroup::create`] made above a container. The mark lives as long as the
/// directory, so whoever removes the last container below it knows that it may go too.
const MADE: &str = "trusted.pith.made";

/// Bytes that are read at once at least.
const PAGE: usize = 4096;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Whether the kernel gives the file's text in one piece: then a read that does not fill its buffer was the last one. Lists of
/// processes are given line by line (`seq_file`), and a line that does not fit is left for the next read.
fn is_one_record(name: &str) -> bool {
    !matches!(name, "cgroup.procs" | "cgroup.threads")
}

/// An open directory, with its path for messages.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Directory> for OwnedFd {
    fn from(directory: Directory) -> OwnedFd {
        directory.fd
    }
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Directory, Error> {
        // The root may be reached through a symlink: it is ours, not the spec's.
        match rustix::fs::open(path, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty()) {
            Ok(fd) => Ok(Directory { fd, path: path.to_owned() }),
            Err(errno) => Err(io_error("open", path.to_owned(), errno)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory `name` in this one, if it is there.
    pub(super) fn child(&self, name: impl AsRef<OsStr>) -> Result<Option<Directory>, Error> {
        let name = name.as_ref();
        let path = self.path.join(name);
        match rustix::fs::openat(&self.fd, name, DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Some(Directory { fd, path })),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(io_error("open", path, errno)),
        }
    }

    /// The directory above. Sound below a cgroup2 mount, where directories are never renamed.
    fn parent(&self) -> Result<Directory, Error> {
        let path = self.path.parent().unwrap_or(&self.path).to_owned();
        match rustix::fs::openat(&self.fd, "..", DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Directory { fd, path }),
            Err(errno) => Err(io_error("open", path, errno)),
        }
    }

    /// Another handle on the same directory.
    pub(super) fn reopen(&self) -> Result<Directory, Error> {
        match rustix::fs::openat(&self.fd, ".", DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Directory { fd, path: self.path.clone() }),
            Err(errno) => Err(io_error("open", self.path.clone(), errno)),
        }
    }

    /// Makes the directory `name`. False if something of that name is there.
    pub(super) fn make(&self, name: &str) -> Result<bool, Error> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(io_error("create", self.path.join(name), errno)),
        }
    }

    /// Removes the directory `name`. False while it holds processes or directories.
    pub(super) fn remove(&self, name: impl AsRef<OsStr>) -> Result<bool, Error> {
        let name = name.as_ref();
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(true),
            Err(Errno::BUSY | Errno::NOTEMPTY) => Ok(false),
            Err(errno) => Err(io_error("remove", self.path.join(name), errno)),
        }
    }

    /// Whether `other` is this very directory, not a later one of the same name.
    pub(super) fn is(&self, other: &Directory) -> Result<bool, Error> {
        let identity = |directory: &Directory| match rustix::fs::fstat(&directory.fd) {
            Ok(stat) => Ok((stat.st_dev, stat.st_ino)),
            Err(errno) => Err(io_error("stat", directory.path.clone(), errno)),
        };
        Ok(identity(self)? == identity(other)?)
    }

    /// Marks the directory as made by us. A file system without extended attributes just keeps no mark.
    pub(super) fn mark_made(&self) -> Result<(), Error> {
        match rustix::fs::fsetxattr(&self.fd, MADE, b"1", XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
            Err(errno) => Err(io_error("mark", self.path.clone(), errno)),
        }
    }

    /// Whether the directory bears the mark.
    pub(super) fn is_marked_made(&self) -> bool {
        rustix::fs::fgetxattr(&self.fd, MADE, &mut [0u8; 8]).is_ok()
    }

    /// The file's text; none if there is no such file, or no such cgroup any more.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(fd) = self.open_file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        loop {
            // Most files come as a whole. Their size is not asked for: the kernel says 0.
            bytes.reserve(PAGE);
            let room = bytes.capacity() - bytes.len();
            let read = rustix::io::retry_on_intr(|| {
                rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes))
            });
            match read {
                Ok(0) => break,
                Ok(count) if count < room && is_one_record(name) => break,
                Ok(_) => {}
                // EOPNOTSUPP: cgroup.procs of a threaded cgroup; its processes are listed further up.
                Err(Errno::NODEV | Errno::OPNOTSUPP) => return Ok(None),
                Err(errno) => return Err(io_error("read", self.path.join(name), errno)),
            }
        }
        let text = String::from_utf8(bytes);
        Ok(Some(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())))
    }

    /// The file, open for reading and for polling; none if it is not there.
    pub(super) fn open_file(&self, name: &str) -> Result<Option<OwnedFd>, Error> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(io_error("open", self.path.join(name), errno)),
        }
    }

    /// Writes `value` in one go. False if there is no such file.
    pub(super) fn write(&self, name: &str, value: &str) -> Result<bool, Error> {
        // O_TRUNC means nothing to the kernel's files; it makes plain ones hold the last value.
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let refused = |source| Error::Write { value: value.to_owned(), path: self.path.join(name), source };
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(refused(errno.into())),
        };
        match rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes())) {
            Ok(written) if written == value.len() => Ok(true),
            Ok(_) => Err(refused(io::ErrorKind::WriteZero.into())),
            Err(errno) => Err(refused(errno.into())),
        }
    }

    /// Whether the file is there.
    pub(super) fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The names in the directory with their types, sorted, without `.` and `..`.
    pub(super) fn entries(&self) -> Result<Vec<(OsString, FileType)>, Error> {
        let failed = |errno| io_error("list", self.path.clone(), errno);
        let mut entries = Vec::new();
        let mut dir = match Dir::read_from(&self.fd) {
            Err(Errno::NOENT | Errno::NODEV) => return Ok(entries),
            dir => dir.map_err(failed)?,
        };
        while let Some(entry) = dir.read() {
            match entry {
                Ok(entry) => match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => entries.push((OsStr::from_bytes(name).to_owned(), entry.file_type())),
                },
                // The cgroup went away: it has no entries any more.
                Err(Errno::NOENT | Errno::NODEV) => break,
                Err(errno) => return Err(failed(errno)),
            }
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    /// Names a container chose, so not necessarily text.
    fn subdirectories(&self) -> Result<Vec<OsString>, Error> {
        let entries = self.entries()?.into_iter();
        Ok(entries.filter(|(_, kind)| *kind == FileType::Directory).map(|(name, _)| name).collect())
    }

    /// Calls `visit` on this directory and every one below, parents first. A container may nest its cgroups as
    /// deep as it likes, so this holds two descriptors at any depth and does not recurse.
    pub(super) fn walk(&self, mut visit: impl FnMut(&Directory) -> Result<(), Error>) -> Result<(), Error> {
        visit(self)?;
        let mut here = self.reopen()?;
        let mut pending = vec![here.subdirectories()?];
        while let Some(names) = pending.last_mut() {
            if let Some(name) = names.pop() {
                if let Some(child) = here.child(&name)? {
                    visit(&child)?;
                    pending.push(child.subdirectories()?);
                    here = child;
                }
            } else {
                pending.pop();
                if !pending.is_empty() {
                    here = match here.parent() {
                        // All of it went away under the walk, and with it what was still to be seen.
                        Err(error) if error.vanished() => return Ok(()),
                        parent => parent?,
                    };
                }
            }
        }
        Ok(())
    }

    /// Removes every directory below this one, deepest first, and lists each at most once: a container may have thousands
    /// side by side. False when some are busy, or the time is over; what went is gone all the same.
    pub(super) fn remove_below(&self, until: Instant) -> Result<bool, Error> {
        let mut here = self.reopen()?;
        let mut is_empty = true;
        // Of each level its name, and the names in it that are left.
        let mut pending = vec![(OsString::new(), here.subdirectories()?)];
        while let Some((_, names)) = pending.last_mut() {
            if Instant::now() >= until {
                return Ok(false);
            }
            if let Some(name) = names.pop() {
                // Most have nothing below them and go at once.
                if !here.remove(&name)?
                    && let Some(child) = here.child(&name)?
                {
                    pending.push((name, child.subdirectories()?));
                    here = child;
                }
            } else if let Some((name, _)) = pending.pop()
                && !pending.is_empty()
            {
                here = here.parent()?;
                is_empty &= here.remove(&name)?;
            }
        }
        Ok(is_empty)
    }
}

fn io_error(operation: &'static str, path: PathBuf, errno: Errno) -> Error {
    Error::Io { operation, path, source: errno.into() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + std::time::Duration::from_secs(60)
    }

    #[test]
    fn a_value_replaces_the_last_and_an_absent_file_is_not_made() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("cpu.max"), "max 100000\n").unwrap();
        let directory = Directory::open(tree.path()).unwrap();
        assert!(directory.write("cpu.max", "5").unwrap());
        assert_eq!(directory.read("cpu.max").unwrap().as_deref(), Some("5"));
        assert!(!directory.write("pids.max", "5").unwrap());
        assert_eq!(directory.read("pids.max").unwrap(), None);
        assert!(!tree.path().join("pids.max").exists());
    }

    #[test]
    fn a_symlink_is_not_followed() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("real")).unwrap();
        fs::write(tree.path().join("real/file"), "x").unwrap();
        std::os::unix::fs::symlink("real", tree.path().join("link")).unwrap();
        std::os::unix::fs::symlink("real/file", tree.path().join("file")).unwrap();
        let directory = Directory::open(tree.path()).unwrap();
        assert!(directory.child("real").unwrap().is_some());
        assert!(directory.child("link").is_err());
        assert!(directory.read("file").is_err());
        assert!(directory.write("file", "y").is_err());
        assert_eq!(fs::read_to_string(tree.path().join("real/file")).unwrap(), "x");
    }

    #[test]
    fn walks_and_removes_a_tree_of_any_depth() {
        let tree = tempfile::tempdir().unwrap();
        let directory = Directory::open(tree.path()).unwrap();
        let mut deep = directory.reopen().unwrap();
        // Far more levels than this process may have descriptors, at a typical soft limit of 1024.
        for _ in 0..1500 {
            deep.make("d").unwrap();
            deep = deep.child("d").unwrap().unwrap();
        }
        for name in ["a", "b"] {
            directory.make(name).unwrap();
            directory.child(name).unwrap().unwrap().make("c").unwrap();
        }
        fs::create_dir(tree.path().join(OsStr::from_bytes(b"\xff"))).unwrap();
        let mut seen = Vec::new();
        directory
            .walk(|here| {
                seen.push(here.path().strip_prefix(tree.path()).unwrap().display().to_string());
                Ok(())
            })
            .unwrap();
        assert_eq!(seen.len(), 1 + 1500 + 4 + 1);
        assert!(["", "a", "a/c", "b", "b/c", "d", "d/d"].iter().all(|path| seen.iter().any(|s| s == path)));
        assert!(!directory.remove_below(Instant::now()).unwrap());
        assert!(directory.remove_below(soon()).unwrap());
        assert_eq!(directory.entries().unwrap(), []);
    }

    #[test]
    fn what_is_not_empty_is_busy() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("a/b")).unwrap();
        fs::write(tree.path().join("a/b/file"), "").unwrap();
        let directory = Directory::open(tree.path()).unwrap();
        fs::create_dir_all(tree.path().join("a/free/too")).unwrap();
        assert!(!directory.remove_below(soon()).unwrap());
        assert!(!directory.remove("a").unwrap());
        // One that is busy keeps no other.
        assert!(!tree.path().join("a/free").exists());
        fs::remove_file(tree.path().join("a/b/file")).unwrap();
        assert!(directory.remove_below(soon()).unwrap());
    }
}
