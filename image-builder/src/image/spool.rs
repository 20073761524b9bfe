//! The content of files, kept out of memory until the disk is written.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where a file's content is in the [`Spool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// The content of all files, one after the other in one unnamed file.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    len: u64,
}

impl Spool {
    /// An empty spool on the file system of `dir`.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(dir)?, len: 0 })
    }

    /// Takes all that `content` has.
    pub(crate) fn append(&mut self, content: &mut impl Read) -> io::Result<Extent> {
        let offset = self.len;
        self.len += io::copy(content, &mut self.file)?;
        Ok(Extent { offset, len: self.len - offset })
    }

    /// Copies `len` bytes at `start` of an extent to `out`.
    pub(crate) fn copy(&self, extent: Extent, start: u64, len: u64, out: &mut impl Write) -> io::Result<()> {
        let mut buffer = vec![0; usize::try_from(len.min(1 << 17)).unwrap_or(1 << 17)];
        let mut done = 0;
        while done < len {
            let piece = usize::try_from(len - done).unwrap_or(usize::MAX).min(buffer.len());
            self.file.read_exact_at(&mut buffer[..piece], extent.offset + start + done)?;
            out.write_all(&buffer[..piece])?;
            done += piece as u64;
        }
        Ok(())
    }

    /// All of an extent.
    pub(crate) fn read(&self, extent: Extent) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.copy(extent, 0, extent.len, &mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spool_gives_back_what_it_took() {
        let mut spool = Spool::new(&std::env::temp_dir()).unwrap();
        spool.append(&mut &b"first"[..]).unwrap();
        let extent = spool.append(&mut &b"second"[..]).unwrap();
        assert_eq!(spool.read(extent).unwrap(), b"second");
        let mut piece = Vec::new();
        spool.copy(extent, 2, 3, &mut piece).unwrap();
        assert_eq!(piece, b"con");
    }
}
