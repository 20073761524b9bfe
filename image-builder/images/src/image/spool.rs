//! The content of files, kept out of memory until the disk is written.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_image::Extent;

use super::Ceiling;
use store::digest::Digest;

/// How much is copied at once, in bytes.
const PIECE: usize = 1 << 17;

/// The most that the extended attributes of all files may take together, in bytes: they are kept in memory.
const MAX_ATTRIBUTES: u64 = 256 << 20;

/// The most that is kept in memory of small files of directories, in bytes: there would be two calls more for each of them.
const MEMORY: u64 = 16 << 20;
/// The largest small file, in bytes: it lies behind its inode.
const SMALL: u64 = 4032;

/// The content of all files, one after the other in one unnamed file.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    /// The same for those who read.
    shared: Arc<File>,
    len: u64,
    /// Bytes of content that is not in the file.
    counted: u64,
    /// How much content may still be kept in memory, in bytes.
    memory: u64,
    /// Bytes of extended attributes.
    attributes: u64,
    ceiling: Ceiling,
    /// Directories that content still lies in, and what they are known by; none where all content is copied.
    elsewhere: Option<Vec<(PathBuf, Digest)>>,
    /// Where the file is, for those who must make room.
    place: PathBuf,
}

impl Spool {
    /// An empty spool on the file system of `dir`, which takes as many bytes as the ceiling allows.
    pub(crate) fn new(dir: &Path, ceiling: Ceiling) -> io::Result<Self> {
        let file = tempfile::tempfile_in(dir)?;
        let shared = Arc::new(file.try_clone()?);
        Ok(Self {
            file,
            shared,
            len: 0,
            counted: 0,
            memory: MEMORY,
            attributes: 0,
            ceiling,
            elsewhere: None,
            place: dir.to_path_buf(),
        })
    }

    /// Content that lies in files of a directory already may stay there. Whoever reads it in the end has to look whether those
    /// directories are as they were.
    pub(crate) fn referring(mut self) -> Self {
        self.elsewhere = Some(Vec::new());
        self
    }

    /// Directories that content still lies in.
    pub(crate) fn elsewhere(&mut self) -> Option<&mut Vec<(PathBuf, Digest)>> {
        self.elsewhere.as_mut()
    }

    /// Counts content that does not come into the file.
    pub(crate) fn count(&mut self, len: u64) -> io::Result<()> {
        self.expect(len)?;
        self.counted += len;
        Ok(())
    }

    /// Room in memory for content of `len` bytes; nothing if it is too large, or too much together with the rest.
    pub(crate) fn keep(&mut self, len: u64) -> Option<Vec<u8>> {
        if len > SMALL {
            return None;
        }
        self.memory = self.memory.checked_sub(len)?;
        Some(vec![0; usize::try_from(len).ok()?])
    }

    /// All that it took.
    #[cfg(test)]
    pub(crate) fn content(&self) -> fs_image::Content {
        Extent::new(Arc::clone(&self.shared), 0, self.len).into()
    }

    /// How much may come together.
    pub(crate) fn ceiling(&self) -> Ceiling {
        self.ceiling
    }

    /// Takes all that `content` has.
    pub(crate) fn append(&mut self, content: &mut impl Read) -> io::Result<Extent> {
        let offset = self.len;
        let room = self.room();
        let len = spill(content, &mut self.file, room, self.ceiling, &self.place)?;
        self.len += len;
        Ok(Extent::new(Arc::clone(&self.shared), offset, len))
    }

    /// Takes a file of `size` bytes of which `content` has only the given stretches, each by its offset and its length, in
    /// order. What lies between them is zeros, and takes no room.
    pub(crate) fn append_sparse(
        &mut self,
        content: &mut impl Read,
        size: u64,
        stretches: impl Iterator<Item = (u64, u64)>,
    ) -> io::Result<Extent> {
        self.expect(size)?;
        let offset = self.len;
        for (start, len) in stretches {
            self.file.seek(SeekFrom::Start(offset + start))?;
            let taken =
                spill(&mut content.by_ref().take(len), &mut self.file, len, self.ceiling, &self.place)?;
            if taken < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.len += size;
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len))?;
        Ok(Extent::new(Arc::clone(&self.shared), offset, size))
    }

    /// Counts extended attributes, which are kept elsewhere, and refuses too many.
    pub(crate) fn count_attributes(&mut self, len: u64) -> io::Result<()> {
        self.attributes = self.attributes.saturating_add(len);
        if self.attributes <= MAX_ATTRIBUTES {
            return Ok(());
        }
        let text = format!("the extended attributes of all files take more than {MAX_ATTRIBUTES} bytes");
        Err(io::Error::new(io::ErrorKind::FileTooLarge, text))
    }

    /// Refuses content of which is said beforehand that it is too much.
    pub(crate) fn expect(&self, len: u64) -> io::Result<()> {
        if len <= self.room() { Ok(()) } else { Err(self.ceiling.reached()) }
    }

    fn room(&self) -> u64 {
        self.ceiling.bytes.saturating_sub(self.len).saturating_sub(self.counted)
    }
}

/// Copies all of `content`, at most `room` bytes, to a file in the directory `place`. An error of writing names that place.
pub(super) fn spill(
    content: &mut impl Read,
    file: &mut File,
    room: u64,
    ceiling: Ceiling,
    place: &Path,
) -> io::Result<u64> {
    let mut buffer = vec![0; PIECE];
    let mut done = 0;
    loop {
        let count = match content.read(&mut buffer) {
            Ok(0) => return Ok(done),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        done += count as u64;
        if done > room {
            return Err(ceiling.reached());
        }
        file.write_all(&buffer[..count]).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot write to {}: {error}", place.display()))
        })?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_image::Content;

    #[test]
    fn the_spool_gives_back_what_it_took() {
        let mut spool = Spool::new(&std::env::temp_dir(), Ceiling::default()).unwrap();
        spool.append(&mut &b"first"[..]).unwrap();
        let extent = spool.append(&mut &b"second"[..]).unwrap();
        assert_eq!(&*Content::from(extent).bytes().unwrap(), b"second");
    }

    #[test]
    fn holes_are_zeros_and_take_no_room() {
        use std::os::unix::fs::MetadataExt as _;
        let ceiling = Ceiling { bytes: 1 << 30, ..Ceiling::default() };
        let mut spool = Spool::new(&std::env::temp_dir(), ceiling).unwrap();
        spool.append(&mut &b"before"[..]).unwrap();
        let mut data = &b"abcde"[..];
        let sparse = spool.append_sparse(&mut data, 500 << 20, [(1, 2), (300 << 20, 3)].into_iter()).unwrap();
        let piece = |start, len| {
            let mut piece = Vec::new();
            Content::from(sparse.clone()).copy(start, len, &mut piece).unwrap();
            piece
        };
        assert_eq!(piece(0, 5), b"\0ab\0\0");
        assert_eq!(piece((300 << 20) - 1, 5), b"\0cde\0");
        assert_eq!(piece((500 << 20) - 2, 2), b"\0\0");
        let after = spool.append(&mut &b"after"[..]).unwrap();
        assert_eq!(&*Content::from(after).bytes().unwrap(), b"after");
        assert!(spool.file.metadata().unwrap().blocks() * 512 < 1 << 20);
        // Holes count: whoever reads the file gets them.
        let error = spool.append_sparse(&mut io::empty(), 600 << 20, std::iter::empty()).unwrap_err();
        assert!(error.to_string().contains("--max-unpacked"), "{error}");
        assert!(spool.append_sparse(&mut &b"x"[..], 10, [(0, 2)].into_iter()).is_err());
    }

    #[test]
    fn the_ceiling_holds_for_all_content_together() {
        let ceiling = Ceiling { bytes: 10, ..Ceiling::default() };
        let mut spool = Spool::new(&std::env::temp_dir(), ceiling).unwrap();
        spool.append(&mut &b"123456"[..]).unwrap();
        assert!(spool.expect(4).is_ok() && spool.expect(5).is_err() && spool.expect(u64::MAX).is_err());
        let error = spool.append(&mut io::repeat(b'x')).unwrap_err();
        assert!(error.to_string().contains("--max-unpacked"), "{error}");
    }
}
