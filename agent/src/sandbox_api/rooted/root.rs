//! A container's root as a descriptor, and the ways from there to entries below it.
//!
//! Every path is resolved by the kernel inside of the root, so neither `..` nor a link, nor one that is swapped meanwhile,
//! leads out of it; links of `/proc` that lead anywhere are refused. No file is opened before it is known to be a regular
//! one, since to open a device or a pipe can block, and can do something.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::path::{self, Owner};
use super::{FileError, errno};
pub(crate) use crate::container::{magic, reopen};
use crate::sandbox_api::account::{Accounts, Names};

/// As many links as the kernel follows.
const MOST_LINKS: u32 = 40;
/// Mode of what is made for a owner: directories.
const DIRECTORY_MODE: u32 = 0o755;
/// And files.
pub(crate) const FILE_MODE: u32 = 0o644;

/// See the module. A clone is the same root.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    directory: Arc<OwnedFd>,
    /// Its users, if they are known already.
    accounts: Option<Arc<Accounts>>,
}

/// An entry found without being opened.
#[derive(Debug)]
pub(crate) struct Found {
    /// An `O_PATH` descriptor.
    pub(crate) fd: OwnedFd,
    /// What it is.
    pub(crate) stat: Stat,
}

impl Found {
    /// Its type.
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// A directory, and the name of an entry in it that may be there or not.
#[derive(Debug)]
pub(crate) struct Location<'a> {
    /// An `O_PATH` descriptor.
    pub(crate) parent: OwnedFd,
    /// Without slashes; neither `.` nor `..`.
    pub(crate) name: &'a str,
}

impl Root {
    /// The root that this descriptor of a directory is.
    pub(crate) fn new(directory: Arc<OwnedFd>) -> Root {
        Root { directory, accounts: None }
    }

    /// As [`Root::new`], with the users that were just read of it.
    pub(crate) fn with_accounts(directory: Arc<OwnedFd>, accounts: Arc<Accounts>) -> Root {
        Root { directory, accounts: Some(accounts) }
    }

    /// Finds what has a path. A link at its end is followed, or found itself.
    pub(crate) fn find(&self, path: &str, follow: bool) -> rustix::io::Result<Found> {
        let last = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let fd = self.open(path, OFlags::PATH | last)?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Found { fd, stat })
    }

    /// Opens a directory so that it can be read.
    pub(crate) fn directory(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn open(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        retry(|| rustix::fs::openat2(&*self.directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
    }

    /// Finds the directory of a path's last name.
    pub(crate) fn locate<'a>(&self, path: &'a str) -> Result<Location<'a>, FileError> {
        let (directory, name) = names(path)?;
        let parent = self.open(directory, OFlags::PATH | OFlags::DIRECTORY);
        Ok(Location { parent: parent.map_err(FileError::during("find", path))?, name })
    }

    /// As [`Root::locate`], and makes the directories that are missing.
    pub(crate) fn locate_or_make<'a>(&self, path: &'a str, owner: &Owner) -> Result<Location<'a>, FileError> {
        let (directory, name) = names(path)?;
        Ok(Location { parent: self.make(directory, owner)?, name })
    }

    /// Gives a directory that has this path, and makes what is missing of it. What is made is the owner's.
    pub(crate) fn make(&self, path: &str, owner: &Owner) -> Result<OwnedFd, FileError> {
        const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);
        let failed = || FileError::during::<Errno>("make directory", path);
        match self.open(path, FLAGS) {
            Err(Errno::NOENT) => {}
            opened => return opened.map_err(failed()),
        }
        let mut walked = String::from("/");
        let mut here = self.open("/", FLAGS).map_err(failed())?;
        for name in path.split('/').filter(|name| !matches!(*name, "" | ".")) {
            walked = path::join(&walked, name);
            // From the root each time: a link on the way may be an absolute one.
            here = match self.open(&walked, FLAGS) {
                Err(Errno::NOENT) if name != ".." => {
                    make_directory(&here, name, owner).map_err(failed())?;
                    self.open(&walked, FLAGS).map_err(failed())?
                }
                opened => opened.map_err(failed())?,
            };
        }
        Ok(here)
    }

    /// Opens a regular file for reading.
    pub(crate) fn read(&self, path: &str) -> Result<(File, Stat), FileError> {
        let found = self.find(path, true).map_err(FileError::lookup("open", path))?;
        match found.kind() {
            FileType::RegularFile => {}
            FileType::Directory => return Err(FileError::Directory(format!("path '{path}' is a directory"))),
            _ => return Err(FileError::Special(path.to_owned())),
        }
        let file = reopen(&found.fd, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY);
        Ok((file.map_err(FileError::during("open", path))?, found.stat))
    }

    /// Opens a regular file for writing, empties it, and gives it to the owner. If there is none it is made, and its
    /// directories with it.
    pub(crate) fn write(&self, path: &str, owner: &Owner) -> Result<File, FileError> {
        let failed = |operation| FileError::during::<Errno>(operation, path);
        let is_directory = || FileError::Directory(format!("path is a directory: {path}"));
        if path.ends_with('/') || path::split(path).is_none() {
            return Err(is_directory());
        }
        let mut place = path.to_owned();
        for _ in 0..MOST_LINKS {
            let found = match self.find(&place, true) {
                Err(Errno::NOENT) => match self.make_file(&place, owner)? {
                    Made::File(file) => {
                        give(&file, owner).map_err(failed("change the owner of"))?;
                        return Ok(file);
                    }
                    Made::Else => continue,
                    Made::Link(target) => {
                        place = target;
                        continue;
                    }
                },
                found => found.map_err(failed("open"))?,
            };
            match found.kind() {
                FileType::RegularFile => {}
                FileType::Directory => return Err(is_directory()),
                _ => return Err(FileError::Special(path.to_owned())),
            }
            let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NONBLOCK | OFlags::NOCTTY;
            let file = reopen(&found.fd, flags).map_err(failed("open"))?;
            give(&file, owner).map_err(failed("change the owner of"))?;
            return Ok(file);
        }
        Err(FileError::Loop(path.to_owned()))
    }

    /// Makes a file where none is, also where a link leads to nothing.
    fn make_file(&self, path: &str, owner: &Owner) -> Result<Made, FileError> {
        let place = self.locate_or_make(path, owner)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&place.parent, place.name, flags, Mode::from_raw_mode(FILE_MODE)) {
            Ok(fd) => Ok(Made::File(File::from(fd))),
            Err(Errno::EXIST) => match rustix::fs::readlinkat(&place.parent, place.name, Vec::new()) {
                Ok(target) => {
                    let target = target.into_string().map_err(|_| FileError::Path {
                        path: path.to_owned(),
                        reason: "is a link to a name that is no UTF-8",
                    })?;
                    let (directory, _) = names(path)?;
                    let is_absolute = target.starts_with('/');
                    Ok(Made::Link(if is_absolute { target } else { path::join(directory, &target) }))
                }
                // Somebody was faster, and a file or nothing is there by now.
                Err(Errno::INVAL | Errno::NOENT) => Ok(Made::Else),
                Err(errno) => Err(FileError::io("open", path, errno)),
            },
            Err(errno) => Err(FileError::io("make", path, errno)),
        }
    }

    /// The path, from this root, of what a descriptor refers to; none if it is not below this root any more, or the path is
    /// no UTF-8.
    pub(crate) fn path_of(&self, fd: impl AsFd) -> Option<String> {
        let real =
            |fd: BorrowedFd<'_>| rustix::fs::readlinkat(CWD, magic(fd), Vec::new()).ok()?.into_string().ok();
        let (root, path) = (real(self.directory.as_fd())?, real(fd.as_fd())?);
        let below = path.strip_prefix(root.trim_end_matches('/'))?;
        match below {
            "" => Some("/".to_owned()),
            below => below.starts_with('/').then(|| below.to_owned()),
        }
    }

    /// Names of the container's users and groups. Blocks.
    pub(crate) fn names(&self) -> Names {
        match &self.accounts {
            Some(accounts) => accounts.names(),
            None => Accounts::read(&*self.directory).names(),
        }
    }
}

enum Made {
    File(File),
    /// The name is a link to this path.
    Link(String),
    /// Something was made by somebody else.
    Else,
}

/// A path's directory and name, or what is wrong with the path.
fn names(path: &str) -> Result<(&str, &str), FileError> {
    path::split(path)
        .ok_or_else(|| FileError::Path { path: path.to_owned(), reason: "names no entry of a directory" })
}

/// Makes a directory that is the owner's, unless somebody was faster.
pub(crate) fn make_directory(parent: impl AsFd, name: &str, owner: &Owner) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
        Err(Errno::EXIST) => return Ok(()),
        made => made?,
    }
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if own == (owner.uid, owner.gid) {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
        // Replaced by something of somebody else's, who may not have that given away.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        made => made?,
    };
    let stat = rustix::fs::fstat(&made)?;
    // A new directory has no other below it, and is not somebody else's.
    if stat.st_uid != own.0 || stat.st_nlink > 2 {
        return Ok(());
    }
    rustix::fs::fchown(&made, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
}

/// Makes a file the owner's.
pub(crate) fn give(file: &File, owner: &Owner) -> rustix::io::Result<()> {
    rustix::fs::fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
}

/// The kernel asks for a new try when something was renamed while it resolved a path.
fn retry<T>(mut open: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    const TRIES: u32 = 100;
    for _ in 1..TRIES {
        match open() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
    open()
}

/// Opens a directory below another one, by a path without links.
pub(crate) fn below(directory: impl AsFd, relative: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let relative = if relative.as_os_str().as_bytes().is_empty() { Path::new(".") } else { relative };
    retry(|| rustix::fs::openat2(&directory, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
}

/// Whether an error says that an entry is not there (any more).
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(errno(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::STALE))
}
