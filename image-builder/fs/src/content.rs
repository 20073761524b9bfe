//! What is in a regular file: bytes in memory, a piece of a file on disk, or a file that is opened when it is needed.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::copy_file_range;
use rustix::io::Errno;

/// How much is copied at once, in bytes. No less than what writers of file systems collect: they pass it on without another copy.
pub(crate) const PIECE: usize = 1 << 17;

/// A piece of a file that is kept open. Copies share the file; its own position is neither used nor changed.
#[derive(Debug, Clone)]
pub struct Extent {
    file: Arc<File>,
    /// Its first byte in the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

impl Extent {
    /// `len` bytes of `file` from `offset` on. They must not change as long as a tree has them.
    pub fn new(file: Arc<File>, offset: u64, len: u64) -> Self {
        Self { file, offset, len }
    }
}

impl PartialEq for Extent {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && (self.offset, self.len) == (other.offset, other.len)
    }
}

impl Eq for Extent {}

/// Opens a file each time it is read, for trees of more files than a process may have open.
pub trait Open: std::fmt::Debug + Send + Sync {
    /// Opens it. The answer has the same bytes each time, as many as the [`Later`] says.
    ///
    /// # Errors
    /// When it cannot be opened, or is another file than it was.
    fn open(&self) -> io::Result<File>;
}

/// A whole file that is opened when it is read.
#[derive(Debug, Clone)]
pub struct Later {
    file: Arc<dyn Open>,
    /// How many bytes.
    pub len: u64,
}

impl Later {
    /// The first `len` bytes of what `file` opens.
    pub fn new(file: Arc<dyn Open>, len: u64) -> Self {
        Self { file, len }
    }
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.len == other.len
    }
}

impl Eq for Later {}

/// The content of a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In memory: for what is small, or made up.
    Bytes(Vec<u8>),
    /// On disk, in a file that is open.
    Extent(Extent),
    /// On disk, in a file that is not.
    Later(Later),
}

impl Content {
    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Extent(extent) => extent.len,
            Self::Later(later) => later.len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it.
    ///
    /// # Errors
    /// When the file cannot be read, or has become shorter.
    pub fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.into()),
            Self::Extent(extent) => read(&extent.file, extent.offset, extent.len),
            Self::Later(later) => read(&later.file.open()?, 0, later.len),
        }
    }

    /// Copies `len` bytes from `start` on to `out`. No more than 128 KiB of it are in memory at a time.
    ///
    /// # Errors
    /// When there are not as many, or one side fails.
    pub fn copy(&self, start: u64, len: u64, out: &mut impl Write) -> io::Result<()> {
        self.open()?.copy(start, len, out)
    }

    /// Opens it, for those who want more than one piece.
    pub(crate) fn open(&self) -> io::Result<Opened<'_>> {
        Ok(match self {
            Self::Bytes(bytes) => Opened::Bytes(bytes.into()),
            Self::Extent(Extent { file, offset, len }) => Opened::Kept { file, offset: *offset, len: *len },
            Self::Later(later) => Opened::Own { file: later.file.open()?, len: later.len },
        })
    }
}

/// Content that can be read. What is on disk is closed with it, if it was opened for it.
#[derive(Debug)]
pub(crate) enum Opened<'a> {
    Bytes(Cow<'a, [u8]>),
    Kept { file: &'a File, offset: u64, len: u64 },
    Own { file: File, len: u64 },
}

impl Opened<'_> {
    fn check(&self, start: u64, len: u64) -> io::Result<()> {
        let all = match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Kept { len, .. } | Self::Own { len, .. } => *len,
        };
        let is_within = start.checked_add(len).is_some_and(|end| end <= all);
        if is_within { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// The file that has byte `start`, and where in it; or the bytes from there on.
    fn at(&self, start: u64) -> Result<(&File, u64), &[u8]> {
        match self {
            // It fits: it was checked to be within them.
            Self::Bytes(bytes) => Err(&bytes[start as usize..]),
            Self::Kept { file, offset, .. } => Ok((file, offset + start)),
            Self::Own { file, .. } => Ok((file, start)),
        }
    }

    /// As [`Content::copy`].
    pub(crate) fn copy(&self, start: u64, len: u64, out: &mut impl Write) -> io::Result<()> {
        self.check(start, len)?;
        match self.at(start) {
            Ok((file, offset)) => copy(file, offset, len, out),
            Err(bytes) => out.write_all(&bytes[..len as usize]),
        }
    }

    /// Fills `buffer` with what there is from `start` on.
    pub(crate) fn read(&self, start: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check(start, buffer.len() as u64)?;
        match self.at(start) {
            Ok((file, offset)) => file.read_exact_at(buffer, offset),
            Err(bytes) => {
                buffer.copy_from_slice(&bytes[..buffer.len()]);
                Ok(())
            }
        }
    }

    /// Copies a piece to `offset` of a file. The kernel does it alone, where both files allow that.
    pub(crate) fn send(&self, start: u64, len: u64, out: &File, mut offset: u64) -> io::Result<()> {
        self.check(start, len)?;
        let (file, mut from) = match self.at(start) {
            Ok(found) => found,
            Err(bytes) => return out.write_all_at(&bytes[..len as usize], offset),
        };
        let mut left = len;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(MOST_AT_ONCE);
            match copy_file_range(file, Some(&mut from), out, Some(&mut offset), most) {
                // Shorter than it was; or a file system whose files are empty until they are read.
                Ok(0) => break,
                Ok(count) => left -= count as u64,
                Err(Errno::INTR) => {}
                // Two file systems that do not know each other, a special file, an old kernel, a sandbox.
                Err(
                    Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::IO,
                ) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        copy(file, from, left, &mut At { out, offset })
    }
}

/// Writes to a file from an offset on.
pub(crate) struct At<'a> {
    pub(crate) out: &'a File,
    pub(crate) offset: u64,
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write_at(bytes, self.offset)?;
        self.offset += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How much the kernel is asked to copy in one call, in bytes: it can be interrupted in between.
const MOST_AT_ONCE: usize = 1 << 30;

fn read(file: &File, offset: u64, len: u64) -> io::Result<Cow<'static, [u8]>> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.into())
}

fn copy(file: &File, mut offset: u64, mut len: u64, out: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(len).unwrap_or(PIECE).min(PIECE)];
    while len > 0 {
        let piece = usize::try_from(len).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..piece], offset)?;
        out.write_all(&buffer[..piece])?;
        offset += piece as u64;
        len -= piece as u64;
    }
    Ok(())
}

impl From<Extent> for Content {
    fn from(extent: Extent) -> Self {
        Self::Extent(extent)
    }
}

impl From<Later> for Content {
    fn from(later: Later) -> Self {
        Self::Later(later)
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Bytes(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Named(std::path::PathBuf);

    impl Open for Named {
        fn open(&self) -> io::Result<File> {
            File::open(&self.0)
        }
    }

    #[test]
    fn a_piece_of_each_is_the_same() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before0123456789after").unwrap();
        let extent = Content::from(Extent::new(Arc::new(file), 6, 10));
        let mut named = tempfile::NamedTempFile::new().unwrap();
        named.write_all(b"0123456789").unwrap();
        let later = Content::from(Later::new(Arc::new(Named(named.path().to_path_buf())), 10));
        for content in [extent.clone(), Content::from("0123456789"), later.clone()] {
            assert_eq!((content.len(), &*content.bytes().unwrap()), (10, &b"0123456789"[..]));
            let mut piece = Vec::new();
            content.copy(3, 4, &mut piece).unwrap();
            assert_eq!(piece, b"3456");
            for (start, len) in [(0, 11), (10, 1), (u64::MAX, 1)] {
                assert!(content.copy(start, len, &mut piece).is_err(), "{start} {len}");
            }
        }
        assert_eq!(extent, extent.clone());
        assert_eq!(later, later.clone());
        named.close().unwrap();
        assert!(later.copy(0, 1, &mut io::sink()).is_err());
    }
}
