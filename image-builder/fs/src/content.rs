//! What is in a regular file: bytes in memory, a piece of a file on disk, or a file that is opened when it is needed.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

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
        if start.checked_add(len).is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match self {
            // Both fit: they are within the bytes' length.
            Self::Bytes(bytes) => out.write_all(&bytes[start as usize..(start + len) as usize]),
            Self::Extent(extent) => copy(&extent.file, extent.offset + start, len, out),
            Self::Later(later) => copy(&later.file.open()?, start, len, out),
        }
    }
}

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
