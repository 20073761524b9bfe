//! A container's root while it is built: every path of the spec resolves inside it, whatever links it holds.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Step, refuse};

/// Links followed on one way, as many as the kernel follows (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

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

    /// As [`Root::lookup_plain`], but a link at the very end is opened itself.
    fn lookup_link(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.resolve(path, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::NO_SYMLINKS)
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
        self.walk(path, |parent, name| rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)))
    }

    /// Opens a mount point, making a directory or an empty file where there is nothing. What exists is left as it is:
    /// a file that a mount covers keeps its content.
    pub(super) fn mount_point(&self, path: &Path, directory: bool) -> rustix::io::Result<OwnedFd> {
        if directory {
            return self.directory(path);
        }
        self.walk(path, |parent, name| {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        })
    }

    /// Follows a path, making what is missing: directories on the way, and `make` the last one. A link that leads
    /// nowhere is no obstacle, since what it names is made (an image's `/etc/resolv.conf` often is such a link).
    fn walk(
        &self,
        path: &Path,
        make: impl Fn(BorrowedFd<'_>, &Path) -> rustix::io::Result<()>,
    ) -> rustix::io::Result<OwnedFd> {
        let mut links = 0;
        // Without links and dots, below the root.
        let mut sofar = PathBuf::from("/");
        let mut current = self.lookup_plain(&sofar)?;
        let mut rest = path.to_owned();
        loop {
            let mut parts = rest.components();
            let Some(part) = parts.next() else { return Ok(current) };
            let tail = parts.as_path().to_owned();
            match part {
                Component::Normal(name) => {
                    sofar.push(name);
                    current = match self.lookup_link(&sofar) {
                        Err(Errno::NOENT) => {
                            let name = Path::new(name);
                            let made = if tail.as_os_str().is_empty() {
                                make(current.as_fd(), name)
                            } else {
                                rustix::fs::mkdirat(&current, name, Mode::from_raw_mode(0o755))
                            };
                            match made {
                                Ok(()) | Err(Errno::EXIST) => self.lookup_link(&sofar)?,
                                Err(errno) => return Err(errno),
                            }
                        }
                        other => other?,
                    };
                    rest = tail;
                    if FileType::from_raw_mode(rustix::fs::fstat(&current)?.st_mode) == FileType::Symlink {
                        if matches!(self.lookup(&sofar), Err(Errno::LOOP)) {
                            // A magic link, whose text is not where it leads.
                            return Err(Errno::LOOP);
                        }
                        links += 1;
                        if links > MOST_LINKS {
                            return Err(Errno::LOOP);
                        }
                        let target = rustix::fs::readlinkat(&current, c"", Vec::new())?;
                        rest = Path::new(OsStr::from_bytes(target.as_bytes())).join(rest);
                        sofar.pop();
                        current = self.lookup_plain(&sofar)?;
                    }
                }
                Component::RootDir | Component::ParentDir => {
                    if part == Component::RootDir {
                        sofar = PathBuf::from("/");
                    } else {
                        sofar.pop();
                    }
                    current = self.lookup_plain(&sofar)?;
                    rest = tail;
                }
                Component::CurDir | Component::Prefix(_) => rest = tail,
            }
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
