//! What is in a directory, and what changed there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};

/// How the only file of a source that is one is called in its listing, and in the copy.
pub(super) const ONLY: &str = "file";
/// More entries than any volume that is watched has.
const MOST_ENTRIES: usize = 4096;

/// A directory or file, open.
pub(super) struct Root {
    fd: OwnedFd,
    is_file: bool,
}

/// One file, directory or symlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileState {
    pub(super) kind: Content,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Of a file.
    size: u64,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    File,
    Directory,
    Symlink(PathBuf),
}

/// Entries by their path from the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Listing(pub(super) BTreeMap<PathBuf, FileState>);

/// What is to be done to a copy, in this order.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Changes<'a> {
    /// New or changed directories, outer ones first.
    pub(super) directories: Vec<(&'a Path, &'a FileState)>,
    /// New or changed files.
    pub(super) files: Vec<(&'a Path, &'a FileState)>,
    /// New or changed symlinks: after the files that they lead to.
    pub(super) links: Vec<(&'a Path, &'a FileState)>,
    /// What is not there any more, inner ones first: after the symlinks that led there.
    pub(super) gone: Vec<(&'a Path, &'a FileState)>,
}

impl Root {
    /// Opens a directory or a file.
    pub(super) fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
        match kind {
            FileType::Directory | FileType::RegularFile => {
                Ok(Root { fd, is_file: kind == FileType::RegularFile })
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a directory nor a file")),
        }
    }

    /// Whether it is a file.
    pub(super) fn is_file(&self) -> bool {
        self.is_file
    }

    /// Opens a file of it for reading; no symlink is followed on the way.
    pub(super) fn read(&self, path: &Path) -> io::Result<File> {
        if self.is_file {
            use std::os::fd::AsRawFd as _;
            return File::open(format!("/proc/self/fd/{}", self.fd.as_raw_fd()));
        }
        Ok(File::from(self.open_below(path, OFlags::RDONLY | OFlags::NONBLOCK)?))
    }

    fn open_below(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve)?)
    }

    /// Lists everything below it. Sockets, devices and the like are passed over.
    pub(super) fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        if self.is_file {
            listing.0.insert(ONLY.into(), FileState::of(&rustix::fs::fstat(&self.fd)?, Content::File));
            return Ok(listing);
        }
        self.list_into(Path::new(""), &mut listing)?;
        Ok(listing)
    }

    fn list_into(&self, inside: &Path, listing: &mut Listing) -> io::Result<()> {
        let directory = self.open_below(inside, OFlags::RDONLY | OFlags::DIRECTORY)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if listing.0.len() == MOST_ENTRIES {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too many entries"));
            }
            let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Gone again.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let path = inside.join(OsStr::from_bytes(name.to_bytes()));
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => {
                    listing.0.insert(path, FileState::of(&stat, Content::File));
                }
                FileType::Directory => {
                    listing.0.insert(path.clone(), FileState::of(&stat, Content::Directory));
                    self.list_into(&path, listing)?;
                }
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&directory, name, Vec::new())?;
                    let target = PathBuf::from(OsStr::from_bytes(target.to_bytes()));
                    listing.0.insert(path, FileState::of(&stat, Content::Symlink(target)));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl FileState {
    fn of(stat: &Stat, kind: Content) -> FileState {
        let size = if kind == Content::File { stat.st_size as u64 } else { 0 };
        // A directory's time changes with its entries, which are listed themselves.
        let modified =
            if kind == Content::File { (stat.st_mtime, stat.st_mtime_nsec as i64) } else { (0, 0) };
        FileState { kind, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, size, modified }
    }
}

impl Listing {
    /// How many files there are.
    pub(super) fn files(&self) -> usize {
        self.0.values().filter(|entry| entry.kind == Content::File).count()
    }

    /// How many bytes they have.
    pub(super) fn bytes(&self) -> u64 {
        self.0.values().map(|entry| entry.size).sum()
    }

    /// What makes `self` out of `before`.
    pub(super) fn changes<'a>(&'a self, before: &'a Listing) -> Changes<'a> {
        let mut changes = Changes::default();
        for (path, entry) in &self.0 {
            if before.0.get(path) == Some(entry) {
                continue;
            }
            let list = match entry.kind {
                Content::Directory => &mut changes.directories,
                Content::File => &mut changes.files,
                Content::Symlink(_) => &mut changes.links,
            };
            list.push((path.as_path(), entry));
        }
        for (path, entry) in before.0.iter().rev() {
            if !self.0.contains_key(path) {
                changes.gone.push((path, entry));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(list: &[(&Path, &FileState)]) -> Vec<String> {
        list.iter().map(|(path, _)| path.display().to_string()).collect()
    }

    /// A config map, as kubelets write it.
    fn config_map(root: &Path, stamp: &str, text: &str) {
        std::fs::create_dir(root.join(stamp)).unwrap();
        std::fs::write(root.join(stamp).join("key"), text).unwrap();
        std::os::unix::fs::symlink(stamp, root.join("..tmp")).unwrap();
        std::fs::rename(root.join("..tmp"), root.join("..data")).unwrap();
    }

    #[test]
    fn what_has_too_many_entries_is_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..MOST_ENTRIES {
            std::fs::write(dir.path().join(number.to_string()), "").unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(root.list().unwrap().files(), MOST_ENTRIES);
        std::fs::write(dir.path().join("one-more"), "").unwrap();
        assert_eq!(root.list().unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_config_map_that_was_swapped() {
        let dir = tempfile::tempdir().unwrap();
        config_map(dir.path(), "..1", "one");
        std::os::unix::fs::symlink("..data/key", dir.path().join("key")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let before = root.list().unwrap();
        assert_eq!((before.files(), before.bytes()), (1, 3));
        config_map(dir.path(), "..2", "two!");
        std::fs::remove_dir_all(dir.path().join("..1")).unwrap();
        let now = root.list().unwrap();
        let changes = now.changes(&before);
        assert_eq!(paths(&changes.directories), ["..2"]);
        assert_eq!(paths(&changes.files), ["..2/key"]);
        assert_eq!(paths(&changes.links), ["..data"]);
        assert_eq!(paths(&changes.gone), ["..1/key", "..1"]);
        assert_eq!(now.changes(&now), Changes::default());
    }

    #[test]
    fn symlinks_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("etc")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(root.list().unwrap().0.len(), 1);
        assert!(root.read(Path::new("etc/passwd")).is_err());
        assert!(root.read(Path::new("../../etc/passwd")).is_err());
    }
}
