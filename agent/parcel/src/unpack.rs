//! From a stream to a tree. The stream is hostile.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown,
    futimens, linkat, mkdirat, openat, openat2, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::entry::{Entry, Kind, MOST_PATH, again, copy, read_entry, read_target};
use crate::{Copied, TreeError};

/// How much is written at once.
const PIECE: usize = 64 << 10;
/// What is done to what is made, for messages.
const DRESS: &str = "set owner, mode and time of";
/// What a hostile stream has.
const OUT: &str = "a path that leads out of the tree";
/// Mode of directories that the stream does not have, and that are on the way.
const ON_THE_WAY: u32 = 0o755;

/// Who owns what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Whoever runs this.
    Own,
    /// The numbers of the stream.
    Stream,
    /// A user and a group.
    These(u32, u32),
}

/// How a stream is unpacked.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Who owns what is made.
    pub owner: Owner,
    /// Whether set-user-id and set-group-id bits of files are kept.
    pub set_id: bool,
    /// The most bytes of data.
    pub most_bytes: u64,
    /// The most entries.
    pub most_entries: u64,
}

/// Makes the tree of a stream in the directory `into`: under `name`, or its content in the directory itself.
///
/// A directory that is there already stays as it is, and gets more files. A file or link takes the place of one that is there.
/// Nothing is written through a symbolic link. When this fails, what is whole stays, and nothing half-written does.
///
/// # Errors
/// When the stream ends early, is no stream of this form, has more than `options` allow, or when something cannot be made.
pub fn unpack(
    input: &mut dyn Read,
    into: BorrowedFd<'_>,
    name: Option<&OsStr>,
    options: &Options,
) -> Result<Copied, TreeError> {
    let name = name.map(OsStr::as_bytes);
    if name.is_some_and(|name| !is_plain(name) || name.contains(&b'/')) {
        return Err(TreeError::Malformed("a name that no file can have"));
    }
    let mut unpacker = Unpacker {
        input,
        into,
        name,
        options,
        buffer: vec![0; PIECE],
        unfinished: Vec::new(),
        done: Copied::default(),
        number: 0,
    };
    loop {
        let mut entry = read_entry(unpacker.input)?;
        if entry.kind == Kind::End {
            break;
        }
        unpacker.count(&entry)?;
        if !entry.path.is_empty() && !is_plain(&entry.path) {
            return Err(TreeError::Malformed(OUT));
        }
        if name.is_none() && entry.path.is_empty() {
            match entry.kind {
                // The directory that is there.
                Kind::Directory => continue,
                _ => return Err(TreeError::Malformed("a file in place of a directory")),
            }
        }
        entry.path = unpacker.named(entry.path);
        unpacker.make(entry)?;
    }
    unpacker.finish(&[])?;
    Ok(unpacker.done)
}

/// Whether a path stays below where it begins.
fn is_plain(path: &[u8]) -> bool {
    path.len() <= MOST_PATH
        && !path.contains(&0)
        && path.split(|&byte| byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

struct Unpacker<'a> {
    input: &'a mut dyn Read,
    into: BorrowedFd<'a>,
    /// Of the tree, if it has one.
    name: Option<&'a [u8]>,
    options: &'a Options,
    buffer: Vec<u8>,
    /// Directories that were made, each in the one before; what is made in them changes their times.
    unfinished: Vec<Entry>,
    done: Copied,
    /// Of the next temporary name.
    number: u64,
}

/// A file that has no name of its own yet. Dropped, it is removed.
struct Unnamed<'a> {
    directory: BorrowedFd<'a>,
    name: CString,
}

impl Drop for Unnamed<'_> {
    fn drop(&mut self) {
        // After a rename there is nothing of that name.
        unlinkat(self.directory, &*self.name, AtFlags::empty()).ok();
    }
}

impl Unpacker<'_> {
    /// Where a path of the stream is in the directory.
    fn named(&self, path: Vec<u8>) -> Vec<u8> {
        match self.name {
            None => path,
            Some(name) if path.is_empty() => name.to_vec(),
            Some(name) => [name, b"/", path.as_slice()].concat(),
        }
    }

    fn count(&mut self, entry: &Entry) -> Result<(), TreeError> {
        if entry.kind == Kind::Skipped {
            self.done.skipped += 1
        } else {
            self.done.entries += 1
        }
        if self.done.entries + self.done.skipped > self.options.most_entries {
            return Err(TreeError::TooMuch { most: self.options.most_entries, what: "files" });
        }
        let bytes = self.done.bytes.saturating_add(if entry.kind == Kind::File { entry.size } else { 0 });
        if bytes > self.options.most_bytes {
            return Err(TreeError::TooMuch { most: self.options.most_bytes, what: "bytes" });
        }
        self.done.bytes = bytes;
        Ok(())
    }

    fn make(&mut self, entry: Entry) -> Result<(), TreeError> {
        self.finish(&entry.path)?;
        let (parent, name) = self.place(&entry.path)?;
        match entry.kind {
            Kind::Directory => {
                if self.directory(parent.as_fd(), &name, &entry)? {
                    self.unfinished.push(entry);
                }
                Ok(())
            }
            Kind::File => self.file(parent.as_fd(), &name, &entry),
            Kind::Symlink | Kind::HardLink => self.link(parent.as_fd(), &name, &entry),
            Kind::Skipped | Kind::End => Ok(()),
        }
    }

    /// Opens the directory of a path, and gives the path's last name.
    fn place(&self, path: &[u8]) -> Result<(OwnedFd, CString), TreeError> {
        let Some(at) = path.iter().rposition(|&byte| byte == b'/') else {
            let into = self.into.try_clone_to_owned().map_err(|error| TreeError::file("open", b"", error))?;
            return Ok((into, c_string(path)?));
        };
        let (parent, name) = (&path[..at], c_string(&path[at + 1..])?);
        let opened = match self.open(parent, OFlags::PATH) {
            Err(Errno::NOENT) => {
                let ends = parent.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
                for end in ends.chain([parent.len()]) {
                    let (above, name) = self.place(&parent[..end])?;
                    match mkdirat(&above, &*name, Mode::from_raw_mode(ON_THE_WAY)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(TreeError::call("make", &parent[..end], errno)),
                    }
                }
                self.open(parent, OFlags::PATH)
            }
            opened => opened,
        };
        Ok((opened.map_err(|errno| TreeError::call("open", parent, errno))?, name))
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let path = CString::new(path).map_err(|_| Errno::INVAL)?;
        openat2(self.into, &*path, flags | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// Whether it was made, and was not there before.
    fn directory(&self, parent: BorrowedFd<'_>, name: &CStr, entry: &Entry) -> Result<bool, TreeError> {
        // Nobody else's until it is finished.
        let made = match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) => statat(parent, name, AtFlags::SYMLINK_NOFOLLOW),
            Err(errno) => Err(errno),
        };
        match made {
            Ok(there) if FileType::from_raw_mode(there.st_mode) == FileType::Directory => Ok(false),
            other => {
                let errno = other.err().unwrap_or(Errno::NOTDIR);
                Err(TreeError::call("make the directory", &entry.path, errno))
            }
        }
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, entry: &Entry) -> Result<(), TreeError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = |temporary: &CStr| openat(parent, temporary, flags, Mode::RUSR | Mode::WUSR).map(Some);
        let (unnamed, file) = self.unnamed(parent, &entry.path, &make)?;
        let Some(mut file) = file.map(File::from) else { return Ok(()) };
        let path = &entry.path;
        let input = &mut self.input;
        let mut read = |buffer: &mut [u8]| again(|| input.read(buffer)).map_err(TreeError::Stream);
        let mut write =
            |bytes: &[u8]| file.write_all(bytes).map_err(|error| TreeError::file("write", path, error));
        let copied = copy(entry.size, &mut self.buffer, &mut read, &mut write)?;
        if copied < entry.size {
            return Err(TreeError::Stream(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.dress(file.as_fd(), entry)?;
        self.name(unnamed, name, entry)
    }

    fn link(&mut self, parent: BorrowedFd<'_>, name: &CStr, entry: &Entry) -> Result<(), TreeError> {
        let target = read_target(self.input, entry.size)?;
        let unnamed = if entry.kind == Kind::Symlink {
            let target = c_string(&target)?;
            let make = |temporary: &CStr| symlinkat(&*target, parent, temporary).map(|()| None);
            let (unnamed, _) = self.unnamed(parent, &entry.path, &make)?;
            let (link, follow) = (&*unnamed.name, AtFlags::SYMLINK_NOFOLLOW);
            let (user, group) = self.owner(entry);
            chownat(parent, link, user, group, follow)
                .and_then(|()| utimensat(parent, link, &times(entry), follow))
                .map_err(|errno| TreeError::call(DRESS, &entry.path, errno))?;
            unnamed
        } else {
            if !is_plain(&target) {
                return Err(TreeError::Malformed(OUT));
            }
            let (from, old) = self.place(&self.named(target))?;
            // Without AT_SYMLINK_FOLLOW this names a link itself, and follows none.
            let make =
                |temporary: &CStr| linkat(&from, &*old, parent, temporary, AtFlags::empty()).map(|()| None);
            self.unnamed(parent, &entry.path, &make)?.0
        };
        self.name(unnamed, name, entry)
    }

    /// Makes something under a name that nobody has.
    fn unnamed<'a>(
        &mut self,
        directory: BorrowedFd<'a>,
        path: &[u8],
        make: &dyn Fn(&CStr) -> Result<Option<OwnedFd>, Errno>,
    ) -> Result<(Unnamed<'a>, Option<OwnedFd>), TreeError> {
        let process = rustix::process::getpid().as_raw_pid();
        loop {
            let name = c_string(format!(".pith-copy-{process}-{}", self.number).as_bytes())?;
            self.number += 1;
            match make(&name) {
                Ok(made) => return Ok((Unnamed { directory, name }, made)),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(TreeError::call("make", path, errno)),
            }
        }
    }

    /// Gives it its name; what had that name is gone.
    fn name(&self, unnamed: Unnamed<'_>, name: &CStr, entry: &Entry) -> Result<(), TreeError> {
        renameat(unnamed.directory, &*unnamed.name, unnamed.directory, name)
            .map_err(|errno| TreeError::call("replace", &entry.path, errno))
    }

    /// Finishes directories that `path` is not in.
    fn finish(&mut self, path: &[u8]) -> Result<(), TreeError> {
        while let Some(last) = self.unfinished.last() {
            let is_in =
                path.strip_prefix(last.path.as_slice()).is_some_and(|rest| rest.first() == Some(&b'/'));
            if is_in {
                break;
            }
            if let Some(entry) = self.unfinished.pop() {
                let opened = self.open(&entry.path, OFlags::RDONLY);
                let opened = opened.map_err(|errno| TreeError::call("open", &entry.path, errno))?;
                self.dress(opened.as_fd(), &entry)?;
            }
        }
        Ok(())
    }

    /// Nothing where the owner stays who it is.
    fn owner(&self, entry: &Entry) -> (Option<Uid>, Option<Gid>) {
        let (user, group) = match self.options.owner {
            Owner::Own => return (None, None),
            Owner::Stream => (entry.uid, entry.gid),
            Owner::These(user, group) => (user, group),
        };
        (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
    }

    /// Owner, mode and time.
    fn dress(&self, file: BorrowedFd<'_>, entry: &Entry) -> Result<(), TreeError> {
        let kept = if self.options.set_id { 0o7777 } else { 0o1777 };
        let (user, group) = self.owner(entry);
        fchown(file, user, group)
            .and_then(|()| fchmod(file, Mode::from_raw_mode(entry.mode & kept)))
            .and_then(|()| futimens(file, &times(entry)))
            .map_err(|errno| TreeError::call(DRESS, &entry.path, errno))
    }
}

fn c_string(bytes: &[u8]) -> Result<CString, TreeError> {
    CString::new(bytes).map_err(|_| TreeError::Malformed("a name with a NUL byte"))
}

fn times(entry: &Entry) -> Timestamps {
    let changed = Timespec { tv_sec: entry.changed.0, tv_nsec: entry.changed.1.into() };
    Timestamps { last_access: changed, last_modification: changed }
}
