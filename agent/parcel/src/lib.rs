//! A tree of files as a stream of bytes.
//!
//! Both ends of `pith cp` use this: the agent's program in the guest, and `pith` on the host. Each end treats the other one's
//! stream as hostile. Promises that nothing outside of the destination is written, that a file appears whole or not at all,
//! and that a stream cannot grow beyond the bounds of whoever reads it. Must never know what a container is.
//!
//! ```text
//! stream  = entry* end
//! entry   = kind:u8 mode:u32 uid:u32 gid:u32 seconds:i64 nanoseconds:u32 size:u64 length:u16 path:length data:size
//! kind    = 'd' directory, 'f' file, 'l' symbolic link, 'h' hard link, 's' skipped, '.' end
//! ```
//!
//! Numbers are little-endian. The data of a link is its target. The path of the first entry is empty: it is the tree itself.
//! A directory comes before what is in it.

mod entry;
mod pack;
mod unpack;

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

pub use entry::{Entry, Kind, MOST_PATH, read_entry, write_entry};
pub use pack::{MOST_DEPTH, pack};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
pub use unpack::{Options, Owner, unpack};

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Devices, FIFOs and sockets that were left out.
    pub skipped: u64,
}

/// Why a tree could not be packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A call for a file failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file, relative to the tree.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The stream cannot be read or written.
    #[error("the copy was interrupted: {0}")]
    Stream(io::Error),
    /// The stream is not one of this form.
    #[error("the other side sent {0}")]
    Malformed(&'static str),
    /// The stream has more than its reader takes.
    #[error("there is more to copy than {most} {what}")]
    TooMuch {
        /// How much may come.
        most: u64,
        /// Of what.
        what: &'static str,
    },
    /// A tree is deeper than its packer goes.
    #[error("{} is deeper than {MOST_DEPTH} directories, or its path is longer than {MOST_PATH} bytes", .0.display())]
    TooDeep(PathBuf),
}

impl TreeError {
    /// The error of a file operation.
    #[cold]
    #[inline(never)]
    pub(crate) fn file(operation: &'static str, path: &[u8], source: io::Error) -> Self {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        Self::File { operation, path: PathBuf::from(OsStr::from_bytes(path)), source }
    }

    /// The error of a system call.
    #[cold]
    #[inline(never)]
    pub(crate) fn call(operation: &'static str, path: &[u8], errno: Errno) -> Self {
        Self::file(operation, path, errno.into())
    }
}

/// Opens a path as a process would for which `root` is the root directory: no link leads out.
///
/// # Errors
/// What the system says.
pub fn open_in(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

#[cfg(test)]
mod tests;
