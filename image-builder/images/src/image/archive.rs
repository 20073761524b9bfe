//! Tar archives whose members are read out of order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::spool::spill;
use super::tar::{Fragment, Reader, Source, flag};
use super::{Ceiling, ImageError};
use store::cache::Cache;
use store::plain;

/// What unpacking xz may take, in bytes: its highest level needs 65 MiB.
const XZ_MEMORY: u64 = 96 << 20;

/// A tar archive with an index of its members.
pub(super) struct Archive {
    file: Arc<File>,
    members: HashMap<String, Stored>,
}

enum Stored {
    At { offset: u64, len: u64, fragments: Arc<[Fragment]> },
    Alias(String),
}

impl Archive {
    /// Indexes an archive, which may be compressed.
    pub(super) fn open(path: &Path, cache: &Cache, ceiling: Ceiling) -> Result<Self, ImageError> {
        let failed = |error| ImageError::io("read", path, error);
        let mut file = plain::open(path).map_err(failed)?;
        let mut head = [0; 8];
        let count = file.read_at(&mut head, 0).map_err(failed)?;
        if Packing::of(&head[..count]) != Packing::None {
            // Members are read out of order, so a compressed archive is unpacked first.
            let work = cache.workspace()?;
            let unpacked = tempfile::tempfile_in(work.path());
            let mut unpacked =
                unpacked.map_err(|error| ImageError::io("create a file in", work.path(), error))?;
            let mut content = decompress(file).map_err(failed)?;
            spill(&mut content, &mut unpacked, ceiling.bytes, ceiling, work.path()).map_err(failed)?;
            drop(content);
            file = unpacked;
        }
        let foreign = || {
            other_format(&file).map(|name| {
                let text = format!(
                    "is {name}, which is not read; unpack it, and give the directory or a tar archive of it"
                );
                ImageError::source(path, text)
            })
        };
        let mut members = HashMap::new();
        let mut archive = Reader::new(Slice::whole(&file).map_err(failed)?);
        loop {
            let member = archive.next().map_err(|error| {
                let text = format!(
                    "neither a directory nor a tar archive of an image or a root file system ({error}); give what \
                     `docker save` or `podman save` wrote, or a root file system"
                );
                foreign().unwrap_or_else(|| ImageError::source(path, text))
            })?;
            let Some(member) = member else { break };
            let name = String::from_utf8_lossy(&member.path).trim_start_matches("./").to_owned();
            match member.flag {
                flag::REGULAR | flag::CONTIGUOUS | flag::GNU_SPARSE => {
                    let whole = Fragment { offset: 0, len: member.size };
                    let fragments = member.fragments.unwrap_or_else(|| vec![whole]).into();
                    let stored = Stored::At { offset: member.offset, len: member.size, fragments };
                    members.insert(name, stored);
                }
                flag::SYMLINK | flag::HARD_LINK => {
                    let base = if member.flag == flag::SYMLINK { Path::new(&name).parent() } else { None };
                    let target = normal(base, &String::from_utf8_lossy(&member.link));
                    members.insert(name, Stored::Alias(target));
                }
                _ => {}
            }
            if members.len() > ceiling.entries {
                return Err(ImageError::source(
                    path,
                    format!("it has more than {} members", ceiling.entries),
                ));
            }
        }
        if members.is_empty()
            && let Some(error) = foreign()
        {
            return Err(error);
        }
        Ok(Self { file: Arc::new(file), members })
    }

    /// Whether there is a member of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The names of all members, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// A member's content; a link's is that of what it leads to.
    pub(super) fn member(&self, name: &str) -> Option<Content> {
        let mut stored = self.members.get(name)?;
        if let Stored::Alias(target) = stored {
            stored = self.members.get(target)?;
        }
        match stored {
            Stored::At { offset, len, fragments } => Some(Content {
                slice: Slice { file: Arc::clone(&self.file), at: *offset, end: u64::MAX },
                fragments: Arc::clone(fragments),
                next: 0,
                at: 0,
                len: *len,
            }),
            Stored::Alias(_) => None,
        }
    }

    /// The archive from its beginning to its end.
    pub(super) fn whole(&self) -> io::Result<impl Read + use<>> {
        Slice::whole(&self.file)
    }
}

/// The member that a link in an archive means.
fn normal(base: Option<&Path>, target: &str) -> String {
    let mut parts: Vec<&str> = base.and_then(Path::to_str).unwrap_or_default().split('/').collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.retain(|part| !part.is_empty() && *part != ".");
    parts.join("/")
}

/// A stretch of a file, read without moving the file's own position.
struct Slice {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Slice {
    fn whole(file: &File) -> io::Result<Self> {
        Ok(Self { end: file.metadata()?.len(), file: Arc::new(file.try_clone()?), at: 0 })
    }
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Source for Slice {
    fn skip(&mut self, len: u64) -> io::Result<u64> {
        let passed = len.min(self.end.saturating_sub(self.at));
        self.at += passed;
        Ok(passed)
    }
}

/// The content of a member, its holes filled with zeros.
pub(super) struct Content {
    slice: Slice,
    fragments: Arc<[Fragment]>,
    /// The fragment that comes next, or is being read.
    next: usize,
    at: u64,
    len: u64,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.fragments.get(self.next).is_some_and(|fragment| fragment.end() <= self.at) {
            self.next += 1;
        }
        let fragment = self.fragments.get(self.next).copied();
        let data = fragment.filter(|fragment| fragment.offset <= self.at);
        let end = match (data, fragment) {
            (Some(data), _) => data.end(),
            (None, Some(later)) => later.offset,
            (None, None) => self.len,
        };
        let most = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = match data {
            Some(_) => self.slice.read(&mut buffer[..most])?,
            None => {
                buffer[..most].fill(0);
                most
            }
        };
        self.at += count as u64;
        Ok(count)
    }
}

/// How a stream is compressed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstd,
    Xz,
    /// In a way that is not read.
    Unread(&'static str),
}

impl Packing {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A frame for somebody else in front of the first frame of data (RFC 8878, section 3.1.2).
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Unread("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] | [0x02, 0x21, 0x4c, 0x18, ..] => Self::Unread("lz4"),
            [0x5d, 0, 0, ..] => Self::Unread("lzma"),
            [b'L', b'Z', b'I', b'P', ..] => Self::Unread("lzip"),
            [0x1f, 0x9d, ..] => Self::Unread("compress"),
            _ => Self::None,
        }
    }
}

/// What a file is that holds files and is no tar archive. A disk often begins with zeros, and would be taken for a tar archive
/// without members.
fn other_format(file: &File) -> Option<&'static str> {
    const KNOWN: [(u64, &[u8], &str); 10] = [
        (0, b"hsqs", "a squashfs"),
        (0, b"PK\x03\x04", "a zip archive"),
        (0, b"070701", "a cpio archive"),
        (0, b"070702", "a cpio archive"),
        (0, b"QFI\xfb", "a qcow2 disk"),
        (0, b"!<arch>\n", "a Debian package or another archive of ar"),
        (512, b"EFI PART", "a disk with partitions"),
        (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
        (1080, b"\x53\xef", "an ext4 file system"),
        (32_769, b"CD001", "an ISO image"),
    ];
    let is = |at: u64, wanted: &[u8]| {
        let mut found = vec![0; wanted.len()];
        file.read_exact_at(&mut found, at).is_ok() && found == wanted
    };
    KNOWN.into_iter().find(|(at, wanted, _)| is(*at, wanted)).map(|(_, _, name)| name)
}

/// Undoes whatever compression the first bytes show.
pub(super) fn decompress<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    Ok(match Packing::of(stream.fill_buf()?) {
        Packing::None => Box::new(stream),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(stream)?),
        Packing::Xz => {
            use liblzma::stream::{CONCATENATED, Stream};
            let decoder = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(stream, decoder))
        }
        Packing::Unread(name) => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("it is compressed with {name}, which is not read; use gzip, zstd or xz"),
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn links_in_archives_are_followed_by_name() {
        assert_eq!(normal(Some(Path::new("abc")), "../def/layer.tar"), "def/layer.tar");
        assert_eq!(normal(None, "./def/layer.tar"), "def/layer.tar");
    }

    #[test]
    fn every_compression_is_undone_or_named() {
        let text = b"content ".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(&text).unwrap();
        let xz = xz.finish().unwrap();
        // Eight bytes for somebody else, as zstd:chunked has them behind and pzstd in front of every frame.
        let skippable = b"\x5e\x2a\x4d\x18\x08\0\0\0anything";
        let unpacked = |bytes: &[u8]| {
            let mut found = Vec::new();
            decompress(bytes).and_then(|mut stream| stream.read_to_end(&mut found)).map(|_| found)
        };
        for packed in [&text[..], &gzip, &zstd, &xz] {
            assert_eq!(unpacked(packed).unwrap(), text);
        }
        let twice = text.repeat(2);
        for packed in [
            [&gzip[..], &gzip].concat(),
            [&xz[..], &xz].concat(),
            [&skippable[..], &zstd, skippable, &zstd, skippable].concat(),
        ] {
            assert_eq!(unpacked(&packed).unwrap(), twice);
        }
        for (head, name) in [(&b"BZh91AY"[..], "bzip2"), (b"\x04\x22\x4d\x18", "lz4"), (b"LZIP\x01", "lzip")]
        {
            let error = unpacked(head).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("gzip, zstd or xz"), "{error}");
        }
    }

    #[test]
    fn a_sparse_member_is_read_with_its_holes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"..abcd..").unwrap();
        let fragments = [(2, 3), (5, 0), (8, 1)].map(|(offset, len)| Fragment { offset, len });
        let stored = Stored::At { offset: 2, len: 10, fragments: fragments.to_vec().into() };
        let archive =
            Archive { file: Arc::new(file), members: HashMap::from([("sparse".to_owned(), stored)]) };
        let mut content = Vec::new();
        archive.member("sparse").unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(content, b"\0\0abc\0\0\0d\0");
    }
}
