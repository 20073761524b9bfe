//! Tar archives whose members are read out of order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::spool::spill;
use super::{Ceiling, ImageError};
use crate::cache::Cache;
use crate::plain;

/// A tar archive with an index of its members.
pub(super) struct Archive {
    file: Arc<File>,
    members: HashMap<String, Stored>,
}

enum Stored {
    At { offset: u64, len: u64 },
    Alias(String),
}

impl Archive {
    /// Indexes an archive, which may be compressed.
    pub(super) fn open(path: &Path, cache: &Cache, ceiling: Ceiling) -> Result<Self, ImageError> {
        let failed = |error| ImageError::io("read", path, error);
        let mut file = plain::open(path).map_err(failed)?;
        let mut head = [0; 4];
        let count = file.read_at(&mut head, 0).map_err(failed)?;
        if head.starts_with(&[0x1f, 0x8b]) || head == [0x28, 0xb5, 0x2f, 0xfd] && count == 4 {
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
        let mut members = HashMap::new();
        let mut archive =
            tar::Archive::new(BufReader::with_capacity(1 << 16, Slice::whole(&file).map_err(failed)?));
        for entry in archive.entries().map_err(failed)? {
            let entry = entry.map_err(|error| {
                ImageError::source(
                    path,
                    format!("neither a directory nor a tar archive of an image ({error})"),
                )
            })?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            let kind = entry.header().entry_type();
            if kind.is_file() {
                members.insert(name, Stored::At { offset: entry.raw_file_position(), len: entry.size() });
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target =
                    entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
                let base = if kind.is_symlink() { Path::new(&name).parent() } else { None };
                members.insert(name.clone(), Stored::Alias(normal(base, &target.unwrap_or_default())));
            }
        }
        Ok(Self { file: Arc::new(file), members })
    }

    /// Whether there is a member of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// A member's content; a link's is that of what it leads to.
    pub(super) fn member(&self, name: &str) -> Option<Slice> {
        let mut stored = self.members.get(name)?;
        if let Stored::Alias(target) = stored {
            stored = self.members.get(target)?;
        }
        match stored {
            Stored::At { offset, len } => {
                Some(Slice { file: Arc::clone(&self.file), at: *offset, end: offset + len })
            }
            Stored::Alias(_) => None,
        }
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
pub(super) struct Slice {
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
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Undoes whatever compression the first bytes show.
pub(super) fn decompress<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    let head = stream.fill_buf()?;
    Ok(if head.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(stream))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::stream::read::Decoder::with_buffer(stream)?)
    } else {
        Box::new(stream)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_archives_are_followed_by_name() {
        assert_eq!(normal(Some(Path::new("abc")), "../def/layer.tar"), "def/layer.tar");
        assert_eq!(normal(None, "./def/layer.tar"), "def/layer.tar");
    }
}
