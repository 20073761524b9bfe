//! A container's root while it is built: every path of the spec resolves inside it, whatever links it holds.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Step, refuse};

/// An open container root. Resolution stays below it (`openat2(2)`, `RESOLVE_IN_ROOT`) and follows no magic links.
pub(super) struct Root {
    fd: OwnedFd,
}

impl Root {
    pub(super) fn open(path: &Path) -> Step<Root> {
        let fd = super::open_directory(path)
            .map_err(|errno| refuse(format!("open the root {}", path.display()), errno))?;
        Ok(Root { fd })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens what a path names, as a place only.
    pub(super) fn lookup(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.resolve(path, OFlags::PATH, ResolveFlags::empty())
    }

    /// As [`Root::lookup`], but refuses symbolic links anywhere on the way.
    pub(super) fn lookup_plain(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.resolve(path, OFlags::PATH, ResolveFlags::NO_SYMLINKS)
    }

    fn resolve(&self, path: &Path, flags: OFlags, more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        rustix::fs::openat2(
            &self.fd,
            relative,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more,
        )
    }

    /// Opens a directory, making it and its parents (0755) where they are missing.
    pub(super) fn directory(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let mut sofar = PathBuf::from("/");
        let mut current = self.lookup(&sofar)?;
        for part in path.strip_prefix("/").unwrap_or(path) {
            sofar.push(part);
            current = match self.lookup(&sofar) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&current, part, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                    self.lookup(&sofar)?
                }
                other => other?,
            };
        }
        Ok(current)
    }

    /// Opens a mount point, making a directory or an empty file where there is nothing. What exists is left as it is:
    /// a file that a mount covers keeps its content.
    pub(super) fn mount_point(&self, path: &Path, directory: bool) -> rustix::io::Result<OwnedFd> {
        if directory {
            return self.directory(path);
        }
        match self.lookup(path) {
            Err(Errno::NOENT) => {
                let (parent, name) = self.parent(path)?;
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644))?;
                self.lookup(path)
            }
            other => other,
        }
    }

    /// Opens the parent of a path, making it where it is missing, and gives the last name.
    pub(super) fn parent<'a>(&self, path: &'a Path) -> rustix::io::Result<(OwnedFd, &'a Path)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        Ok((self.directory(path.parent().ok_or(Errno::INVAL)?)?, Path::new(name)))
    }
}

/// Whether a descriptor is of a directory.
pub(super) fn is_directory(fd: impl AsFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
