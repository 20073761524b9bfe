//! A tree on its way out.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use rustix::fs::{Dir, FileType, OFlags, Stat};
use rustix::io::Errno;
use sandbox_api::tar::{END, Entry, Kind};

use crate::sandbox_api::rooted::{FileError, Found, Root, base, below, last_first, reopen};

/// Bytes of a piece that is sent.
const PIECE: usize = 64 << 10;
/// Bytes of the names of directories that are under way.
pub(crate) const MOST_NAMES: usize = 8 << 20;
/// Files of which a further name is told as a link. What is beyond is told as a file of its own.
pub(crate) const MOST_LINKED: usize = 16 << 10;

/// What is to be sent.
pub(super) enum Top {
    /// A directory with what is in it.
    Directory(OwnedFd),
    /// One file, and what it is called.
    File(Found, String),
}

impl Top {
    /// Finds it. Blocks, as all of it does.
    pub(super) fn find(root: &Root, path: &str) -> Result<Top, FileError> {
        let found = root.find(path, true).map_err(FileError::during("pack", path))?;
        match found.kind() {
            FileType::Directory => {
                root.directory(path).map(Top::Directory).map_err(FileError::during("pack", path))
            }
            FileType::RegularFile => Ok(Top::File(found, base(path).to_owned())),
            _ => Err(FileError::Special(path.to_owned())),
        }
    }

    /// Packs it. `send` says whether somebody still wants the next piece.
    pub(super) fn pack(self, send: impl FnMut(Bytes) -> bool) -> Result<(), FileError> {
        self.pack_within(MOST_NAMES, send)
    }

    pub(super) fn pack_within(self, most: usize, send: impl FnMut(Bytes) -> bool) -> Result<(), FileError> {
        let mut out =
            Out { send, buffer: BytesMut::with_capacity(PIECE), linked: HashMap::new(), room: most };
        match self {
            Top::File(found, name) => out.found(Path::new(&name), &found, None)?,
            Top::Directory(top) => out.directory(&top)?,
        }
        out.put(&END)?;
        out.flush()
    }
}

struct Out<S> {
    send: S,
    buffer: BytesMut,
    /// First path of each file that has several names.
    linked: HashMap<(u64, u64), PathBuf>,
    /// Bytes of names that may still be held.
    room: usize,
}

impl<S: FnMut(Bytes) -> bool> Out<S> {
    fn directory(&mut self, top: &OwnedFd) -> Result<(), FileError> {
        let mut levels = vec![names(top, PathBuf::new(), &mut self.room)?];
        while let Some((directory, names_here)) = levels.last_mut() {
            let Some(name) = names_here.pop() else {
                levels.pop();
                continue;
            };
            self.room += cost(&name);
            let path = directory.join(OsStr::from_bytes(&name));
            let found = match below(top, &path, OFlags::PATH | OFlags::NOFOLLOW) {
                // Gone since its directory was read.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                fd => {
                    let fd = fd.map_err(failed(&path))?;
                    let stat = rustix::fs::fstat(&fd).map_err(failed(&path))?;
                    Found { fd, stat }
                }
            };
            self.found(&path, &found, Some(top))?;
            if found.kind() == FileType::Directory {
                match below(top, &path, OFlags::RDONLY | OFlags::DIRECTORY) {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    opened => levels.push(names(&opened.map_err(failed(&path))?, path, &mut self.room)?),
                }
            }
        }
        Ok(())
    }

    fn found(&mut self, path: &Path, found: &Found, top: Option<&OwnedFd>) -> Result<(), FileError> {
        let kind = match found.kind() {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            // Sockets belong to a living program, devices to a machine.
            _ => return Ok(()),
        };
        let Stat { st_mode, st_uid, st_gid, st_mtime, .. } = found.stat;
        let mut entry = Entry {
            path: path.as_os_str().as_bytes().to_vec(),
            kind,
            mode: st_mode & 0o7777,
            uid: st_uid.into(),
            gid: st_gid.into(),
            size: 0,
            modified: st_mtime,
            link: Vec::new(),
        };
        match kind {
            Kind::Symlink => {
                let target = rustix::fs::readlinkat(&found.fd, "", Vec::new()).map_err(failed(path))?;
                entry.link = target.into_bytes();
            }
            Kind::File => {
                if top.is_some() && found.stat.st_nlink > 1 {
                    let id = (found.stat.st_dev, found.stat.st_ino);
                    if let Some(first) = self.linked.get(&id) {
                        (entry.kind, entry.link) = (Kind::HardLink, first.as_os_str().as_bytes().to_vec());
                        return self.put(&entry.encode());
                    }
                    if self.linked.len() < MOST_LINKED {
                        self.linked.insert(id, path.to_owned());
                    }
                }
                entry.size = u64::try_from(found.stat.st_size).unwrap_or(0);
                return self.file(path, &entry, found);
            }
            _ => {}
        }
        self.put(&entry.encode())
    }

    /// A file of as many bytes as its header says: one that becomes shorter meanwhile goes on with zeros, as with other tars.
    fn file(&mut self, path: &Path, entry: &Entry, found: &Found) -> Result<(), FileError> {
        let file = reopen(&found.fd, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY);
        let mut file = file.map_err(failed(path))?.take(entry.size);
        self.put(&entry.encode())?;
        let (mut left, mut piece) = (entry.size, vec![0; PIECE]);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let mut count = match file.read(&mut piece[..most]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                count => count.map_err(FileError::during("read", &path.to_string_lossy()))?,
            };
            if count == 0 {
                piece[..most].fill(0);
                count = most;
            }
            self.put(&piece[..count])?;
            left -= count as u64;
        }
        self.put(&END[..Entry::padding(entry.size)])
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), FileError> {
        while !bytes.is_empty() {
            let count = bytes.len().min(PIECE - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.buffer.len() == PIECE {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), FileError> {
        let piece = self.buffer.split().freeze();
        self.buffer.reserve(PIECE);
        if piece.is_empty() || (self.send)(piece) { Ok(()) } else { Err(FileError::Abandoned) }
    }
}

fn failed(path: &Path) -> impl FnOnce(Errno) -> FileError {
    move |errno| FileError::io("pack", &path.to_string_lossy(), errno)
}

/// What a name takes while it waits.
fn cost(name: &[u8]) -> usize {
    name.len() + std::mem::size_of::<Vec<u8>>()
}

/// The names in a directory, the first one last.
fn names(
    directory: impl AsFd,
    path: PathBuf,
    room: &mut usize,
) -> Result<(PathBuf, Vec<Vec<u8>>), FileError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(failed(&path))? {
        let entry = entry.map_err(failed(&path))?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        *room = room.checked_sub(cost(name)).ok_or_else(|| {
            let path = path.to_string_lossy();
            FileError::Exhausted(format!("the directory './{path}' has too many entries to be packed"))
        })?;
        names.push(name.to_vec());
    }
    last_first(&mut names);
    Ok((path, names))
}
