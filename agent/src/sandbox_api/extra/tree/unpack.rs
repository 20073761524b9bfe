//! A tree on its way in.
//!
//! Everything lands below the directory that was named: a name with `..` in it is refused, and so is one that passes a link
//! which leads out of that directory, also if the archive brought the link.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use sandbox_api::tar::{Entry, Kind, Reader, TarError};

use crate::sandbox_api::rooted::{FileError, Owner, Root, Stop, make_directory};

/// Bytes that are written at once.
const PIECE: usize = 64 << 10;

/// Whose files they become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// Those of who asks. Without set-user-ID bits and their like.
    Caller,
    /// Those that the archive names by number.
    Archive,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// Unpacks an archive into a directory, which is made if it is not there. Blocks.
pub(super) fn unpack(
    root: &Root,
    owner: &Owner,
    path: &str,
    owners: Owners,
    input: &mut dyn Read,
    stop: &Stop,
) -> Result<Counts, FileError> {
    let top = Top { top: root.make(path, owner)?, owner, owners };
    let mut reader = Reader::new(input);
    let mut counts = Counts::default();
    while let Some(entry) = reader.next().map_err(malformed)? {
        stop.check()?;
        counts.bytes += top.entry(&entry, &mut reader, stop)?;
        counts.entries += 1;
    }
    // What follows the end of an archive is no part of it, but of the request.
    io::copy(&mut reader.into_inner(), &mut io::sink()).map_err(|error| malformed(error.into()))?;
    Ok(counts)
}

fn malformed(error: TarError) -> FileError {
    FileError::Invalid(crate::error::chain(&error))
}

struct Top<'a> {
    top: OwnedFd,
    owner: &'a Owner,
    owners: Owners,
}

impl Top<'_> {
    fn entry(&self, entry: &Entry, data: &mut impl Read, stop: &Stop) -> Result<u64, FileError> {
        let path = inside(&entry.path)?;
        let failed = || FileError::during::<Errno>("unpack", &path);
        let Some((directory, name)) = split(&path) else { return Ok(0) };
        let parent = self.make(directory).map_err(|errno| match errno {
            Errno::XDEV => leads_out(&path),
            errno => failed()(errno),
        })?;
        if entry.kind == Kind::Directory {
            return self.directory(&parent, name, entry).map(|()| 0).map_err(failed());
        }
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => return Err(FileError::Directory(format!("path is a directory: {path}"))),
            Err(errno) => return Err(failed()(errno)),
        }
        match entry.kind {
            Kind::File => return self.file(&parent, name, entry, data, &path, stop),
            Kind::Symlink => rustix::fs::symlinkat(entry.link.as_slice(), &parent, name),
            Kind::HardLink => {
                let to = inside(&entry.link)?;
                let (directory, target) =
                    split(&to).ok_or_else(|| FileError::Directory(format!("path is a directory: {to}")))?;
                let from = self.open(directory).map_err(|errno| match errno {
                    Errno::XDEV => leads_out(&to),
                    errno => FileError::io("link to", &to, errno),
                })?;
                return rustix::fs::linkat(&from, target, &parent, name, AtFlags::empty())
                    .map(|()| 0)
                    .map_err(FileError::during("link to", &to));
            }
            Kind::Fifo => rustix::fs::mknodat(&parent, name, FileType::Fifo, self.mode(entry), 0),
            Kind::Character | Kind::Block => {
                return Err(FileError::Invalid(format!("'{path}' is a device: devices are not unpacked")));
            }
            Kind::Directory => Ok(()),
        }
        .map_err(failed())?;
        let (uid, gid) = self.ids(entry);
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed())?;
        Ok(0)
    }

    fn ids(&self, entry: &Entry) -> (Uid, Gid) {
        let id = |number: u64, own: u32| match self.owners {
            Owners::Caller => own,
            // The largest number would leave the owner as it is.
            Owners::Archive => u32::try_from(number).ok().filter(|id| *id != u32::MAX).unwrap_or(own),
        };
        (Uid::from_raw(id(entry.uid, self.owner.uid)), Gid::from_raw(id(entry.gid, self.owner.gid)))
    }

    fn mode(&self, entry: &Entry) -> Mode {
        let kept = if self.owners == Owners::Archive { 0o7777 } else { 0o1777 };
        Mode::from_raw_mode(entry.mode & kept)
    }

    fn open(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.top, path, flags, Mode::empty(), resolve)
    }

    /// Opens a directory below the top, and makes what is missing of it.
    fn make(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        match self.open(path) {
            Err(Errno::NOENT) => {}
            opened => return opened,
        }
        let mut here = self.open("")?;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let mut begin = 0;
        for end in ends {
            here = match self.open(&path[..end]) {
                Err(Errno::NOENT) => {
                    make_directory(&here, &path[begin..end], self.owner)?;
                    self.open(&path[..end])?
                }
                opened => opened?,
            };
            begin = end + 1;
        }
        Ok(here)
    }

    /// A directory that is there keeps what it is; anything else that has its name makes room.
    fn directory(&self, parent: &OwnedFd, name: &str, entry: &Entry) -> rustix::io::Result<()> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
            Ok(_) => return Ok(()),
            Err(Errno::NOENT) => {}
            Err(_) => rustix::fs::unlinkat(parent, name, AtFlags::empty())?,
        }
        rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        let (uid, gid) = self.ids(entry);
        rustix::fs::fchown(&made, Some(uid), Some(gid))?;
        rustix::fs::fchmod(&made, self.mode(entry))
    }

    fn file(
        &self,
        parent: &OwnedFd,
        name: &str,
        entry: &Entry,
        data: &mut impl Read,
        path: &str,
        stop: &Stop,
    ) -> Result<u64, FileError> {
        let failed = || FileError::during::<Errno>("unpack", path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(rustix::fs::openat(parent, name, flags, private).map_err(failed())?);
        let (mut piece, mut written) = (vec![0; PIECE], 0);
        loop {
            stop.check()?;
            let count = match data.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count.map_err(|error| malformed(error.into()))?,
            };
            if count == 0 {
                break;
            }
            io::Write::write_all(&mut file, &piece[..count]).map_err(FileError::during("unpack", path))?;
            written += count as u64;
        }
        let (uid, gid) = self.ids(entry);
        // The owner first: a change of owner takes set-user-ID bits away.
        rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(failed())?;
        rustix::fs::fchmod(&file, self.mode(entry)).map_err(failed())?;
        let time = Timespec { tv_sec: entry.modified, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        match rustix::fs::futimens(&file, &times) {
            // A time that the file system does not have.
            Ok(()) | Err(Errno::INVAL | Errno::RANGE | Errno::OVERFLOW) => Ok(written),
            Err(errno) => Err(failed()(errno)),
        }
    }
}

/// What passes a link to somewhere else.
fn leads_out(path: &str) -> FileError {
    FileError::Path { path: path.to_owned(), reason: "leads out of the directory by a link" }
}

/// A path of an archive as one below the top, without `.` and empty names.
fn inside(path: &[u8]) -> Result<String, FileError> {
    let shown = || String::from_utf8_lossy(path).into_owned();
    let text = std::str::from_utf8(path)
        .map_err(|_| FileError::Invalid(format!("'{}' in the archive is no UTF-8", shown())))?;
    let mut names = Vec::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => return Err(FileError::Path { path: shown(), reason: "leads out of the archive" }),
            name if name.contains('\0') => {
                return Err(FileError::Path { path: shown(), reason: "has a NUL" });
            }
            name => names.push(name),
        }
    }
    Ok(names.join("/"))
}

/// The directory and the name; none for the top itself.
fn split(path: &str) -> Option<(&str, &str)> {
    match path.rsplit_once('/') {
        Some(parts) => Some(parts),
        None => (!path.is_empty()).then_some(("", path)),
    }
}
