//! What stands in a stream.

use std::io::{self, Read, Write};

use crate::TreeError;

/// The longest path, and the longest target of a link, in bytes: as Linux has it.
pub const MOST_PATH: usize = 4096;
/// Bytes of an entry in front of its path.
const HEAD: usize = 35;
/// Bits of a mode that are no type.
const MODE: u32 = 0o7777;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// Another name of a file that came before, whose path is the data.
    HardLink,
    /// A device, a FIFO or a socket, which is not copied.
    Skipped,
    /// The end of the stream.
    End,
}

/// One entry; its data follows it in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// When it was changed last: seconds since 1970, and nanoseconds below 10⁹.
    pub changed: (i64, u32),
    /// Bytes of data.
    pub size: u64,
    /// Where it is in the tree, without a slash in front; empty for the tree itself.
    pub path: Vec<u8>,
}

impl Entry {
    /// The end of a stream.
    #[must_use]
    pub fn end() -> Self {
        Self { kind: Kind::End, mode: 0, uid: 0, gid: 0, changed: (0, 0), size: 0, path: Vec::new() }
    }
}

/// Writes an entry, without its data.
///
/// # Errors
/// [`TreeError::Stream`] when the stream takes no more; [`TreeError::Malformed`] for a path longer than [`MOST_PATH`].
pub fn write_entry(out: &mut dyn Write, entry: &Entry) -> Result<(), TreeError> {
    let length = u16::try_from(entry.path.len()).ok().filter(|&length| usize::from(length) <= MOST_PATH);
    let Some(length) = length else { return Err(TreeError::Malformed("a path that is too long")) };
    let kind = match entry.kind {
        Kind::Directory => b'd',
        Kind::File => b'f',
        Kind::Symlink => b'l',
        Kind::HardLink => b'h',
        Kind::Skipped => b's',
        Kind::End => b'.',
    };
    let mut head = Vec::with_capacity(HEAD + entry.path.len());
    head.push(kind);
    for number in [entry.mode, entry.uid, entry.gid] {
        head.extend(number.to_le_bytes());
    }
    head.extend(entry.changed.0.to_le_bytes());
    head.extend(entry.changed.1.to_le_bytes());
    head.extend(entry.size.to_le_bytes());
    head.extend(length.to_le_bytes());
    head.extend(&entry.path);
    out.write_all(&head).map_err(TreeError::Stream)
}

/// Reads an entry, without its data.
///
/// # Errors
/// [`TreeError::Stream`] at an early end; [`TreeError::Malformed`] for what is no entry.
pub fn read_entry(input: &mut dyn Read) -> Result<Entry, TreeError> {
    let mut head = [0; HEAD];
    input.read_exact(&mut head).map_err(TreeError::Stream)?;
    let kind = match head[0] {
        b'd' => Kind::Directory,
        b'f' => Kind::File,
        b'l' => Kind::Symlink,
        b'h' => Kind::HardLink,
        b's' => Kind::Skipped,
        b'.' => Kind::End,
        _ => return Err(TreeError::Malformed("something that is no tree of files")),
    };
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let long = |at: usize| u64::from(number(at)) | u64::from(number(at + 4)) << 32;
    let length = usize::from(u16::from_le_bytes([head[33], head[34]]));
    let (mode, nanoseconds) = (number(1), number(21));
    if mode & !MODE != 0 || nanoseconds >= 1_000_000_000 {
        return Err(TreeError::Malformed("a mode or a time that no file has"));
    }
    if length > MOST_PATH {
        return Err(TreeError::Malformed("a path that is too long"));
    }
    let mut path = vec![0; length];
    input.read_exact(&mut path).map_err(TreeError::Stream)?;
    Ok(Entry {
        kind,
        mode,
        uid: number(5),
        gid: number(9),
        changed: (long(13).cast_signed(), nanoseconds),
        size: long(25),
        path,
    })
}

/// Reads the target of a link.
pub(crate) fn read_target(input: &mut dyn Read, size: u64) -> Result<Vec<u8>, TreeError> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size == 0 || size > MOST_PATH {
        return Err(TreeError::Malformed("a link without a target, or with one that is too long"));
    }
    let mut target = vec![0; size];
    input.read_exact(&mut target).map_err(TreeError::Stream)?;
    if target.contains(&0) {
        return Err(TreeError::Malformed("a link whose target has a NUL byte"));
    }
    Ok(target)
}

/// Copies at most `size` bytes, and says how many there were.
pub(crate) fn copy(
    size: u64,
    buffer: &mut [u8],
    read: &mut dyn FnMut(&mut [u8]) -> Result<usize, TreeError>,
    write: &mut dyn FnMut(&[u8]) -> Result<(), TreeError>,
) -> Result<u64, TreeError> {
    let mut left = size;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = read(&mut buffer[..most])?;
        if got == 0 {
            break;
        }
        write(&buffer[..got])?;
        left -= got as u64;
    }
    Ok(size - left)
}

/// A read that signals do not interrupt.
pub(crate) fn again(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
