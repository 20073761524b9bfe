//! From a tree to a stream.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::entry::{Entry, Kind, MOST_PATH, again, copy, write_entry};
use crate::{Copied, TreeError};

/// The deepest directory that is packed: each one on the way is held open.
pub const MOST_DEPTH: usize = 256;
/// How much is read at once.
const PIECE: usize = 64 << 10;

/// Writes the file or directory `root`, and all that is in it, to `out`. Symbolic links are copied, never followed. What is
/// removed meanwhile is left out. A file that changes meanwhile has the size that it had at first.
///
/// # Errors
/// When something cannot be read, or the stream takes no more.
pub fn pack(root: OwnedFd, out: &mut dyn Write) -> Result<Copied, TreeError> {
    let mut packer = Packer { out, buffer: vec![0; PIECE], path: Vec::new(), done: Copied::default() };
    packer.object(root, 0)?;
    write_entry(packer.out, &Entry::end())?;
    packer.out.flush().map_err(TreeError::Stream)?;
    Ok(packer.done)
}

struct Packer<'a> {
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
    path: Vec<u8>,
    done: Copied,
}

impl Packer<'_> {
    fn failed(&self, operation: &'static str, errno: Errno) -> TreeError {
        TreeError::call(operation, &self.path, errno)
    }

    fn head(&mut self, kind: Kind, stat: &Stat, size: u64) -> Result<(), TreeError> {
        let entry = Entry {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            changed: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            size,
            path: self.path.clone(),
        };
        if kind == Kind::Skipped {
            self.done.skipped += 1
        } else {
            self.done.entries += 1
        }
        write_entry(self.out, &entry)
    }

    /// A file or a directory that is open.
    fn object(&mut self, object: OwnedFd, depth: usize) -> Result<(), TreeError> {
        let stat = fstat(&object).map_err(|errno| self.failed("look at", errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(object, &stat),
            FileType::Directory => self.directory(object, &stat, depth),
            _ => self.head(Kind::Skipped, &stat, 0),
        }
    }

    fn file(&mut self, file: OwnedFd, stat: &Stat) -> Result<(), TreeError> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.head(Kind::File, stat, size)?;
        let mut file = File::from(file);
        let (path, out) = (&self.path, &mut self.out);
        let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(TreeError::Stream);
        let mut read = |buffer: &mut [u8]| {
            again(|| file.read(buffer)).map_err(|error| TreeError::file("read", path, error))
        };
        let copied = copy(size, &mut self.buffer, &mut read, &mut write)?;
        // It has become shorter: the rest reads as zeros, as in a hole.
        self.buffer.fill(0);
        let mut zeros = |buffer: &mut [u8]| Ok(buffer.len());
        copy(size - copied, &mut self.buffer, &mut zeros, &mut write)?;
        self.done.bytes += size;
        Ok(())
    }

    fn directory(&mut self, directory: OwnedFd, stat: &Stat, depth: usize) -> Result<(), TreeError> {
        self.head(Kind::Directory, stat, 0)?;
        let entries = Dir::read_from(&directory).map_err(|errno| self.failed("list", errno))?;
        for entry in entries {
            let entry = entry.map_err(|errno| self.failed("list", errno))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let length = self.path.len();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend(name.to_bytes());
            if depth >= MOST_DEPTH || self.path.len() > MOST_PATH {
                return Err(TreeError::TooDeep(PathBuf::from(OsStr::from_bytes(&self.path))));
            }
            self.child(&directory, name, depth + 1)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn child(&mut self, directory: &OwnedFd, name: &std::ffi::CStr, depth: usize) -> Result<(), TreeError> {
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            looked => looked.map_err(|errno| self.failed("look at", errno))?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Directory => {
                let flags =
                    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                match openat(directory, name, flags, Mode::empty()) {
                    // Removed, or replaced by a link or a socket.
                    Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(()),
                    opened => {
                        let opened = opened.map_err(|errno| self.failed("open", errno))?;
                        self.object(opened, depth)
                    }
                }
            }
            FileType::Symlink => match readlinkat(directory, name, Vec::new()) {
                Err(Errno::NOENT | Errno::INVAL) => Ok(()),
                target => {
                    let target = target.map_err(|errno| self.failed("read the link", errno))?;
                    let target = target.as_bytes();
                    self.head(Kind::Symlink, &stat, target.len() as u64)?;
                    self.out.write_all(target).map_err(TreeError::Stream)
                }
            },
            _ => self.head(Kind::Skipped, &stat, 0),
        }
    }
}
