//! What several targets need: images with the digests and checksums that nobody would guess.

use std::path::{Path, PathBuf};

use images::image::{Ceiling, prepare_within};
use store::cache::Cache;
use store::digest::Digest;
use tempfile::TempDir;

/// What an image may unpack to.
const CEILING: Ceiling = Ceiling { bytes: 1 << 20, entries: 2000 };
/// Between the parts of an image.
const BETWEEN: &[u8] = b"\n---\n";
/// Bytes of a tar archive's blocks.
const BLOCK: usize = 512;

/// A directory of one run, in memory where there is such a place.
///
/// # Panics
/// When there is none at all.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

/// Has `write` make an image in a directory, and a disk of that.
///
/// # Panics
/// When the image cannot be written, or image-builder panics.
pub fn prepare(write: impl FnOnce(&Path) -> std::io::Result<PathBuf>) {
    let scratch = scratch();
    let reference = write(scratch.path()).expect("an image in a directory");
    let cache = Cache::new(scratch.path().join("cache"));
    match prepare_within(&reference.display().to_string(), &cache, CEILING) {
        Ok(image) => assert!(image.disk.exists()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The files of an image, each with the digests of those before it.
pub struct Parts(Vec<Vec<u8>>);

impl Parts {
    /// In each part, `@N` with one digit stands for the digest of part N.
    pub fn new(parts: &[&[u8]]) -> Parts {
        let mut whole: Vec<Vec<u8>> = Vec::new();
        for part in parts {
            whole.push(if part.starts_with(b"{") || part.starts_with(b"[") {
                named(part, &whole)
            } else {
                sealed(part)
            });
        }
        Parts(whole)
    }

    /// As they stand in one text.
    pub fn split(text: &[u8]) -> Parts {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
            parts.push(&rest[..at]);
            rest = &rest[at + BETWEEN.len()..];
        }
        parts.push(rest);
        // As many as one digit can name, and the last one.
        Parts::new(&parts[parts.len().saturating_sub(11)..])
    }

    fn files(&self, last: &str) -> Vec<(String, &[u8])> {
        let (document, blobs) = self.0.split_last().expect("there is one part at least");
        let blobs = blobs.iter().map(|blob| (format!("blobs/sha256/{}", Digest::of(blob)), blob.as_slice()));
        blobs.chain([(last.to_owned(), document.as_slice())]).collect()
    }

    /// Writes them as an OCI layout, the last part as its index.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn layout(&self, directory: &Path) -> std::io::Result<PathBuf> {
        let path = directory.join("image");
        std::fs::create_dir_all(path.join("blobs/sha256"))?;
        for (name, content) in self.files("index.json") {
            std::fs::write(path.join(name), content)?;
        }
        Ok(path)
    }

    /// Writes them as an archive, the last part under this name.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn archive(&self, directory: &Path, last: &str) -> std::io::Result<PathBuf> {
        let mut archive = Vec::new();
        for (name, content) in self.files(last) {
            let mut header = vec![0; BLOCK];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[100..107].copy_from_slice(b"0000644");
            header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
            header[156] = b'0';
            header[257..265].copy_from_slice(b"ustar\x0000");
            archive.extend(header);
            archive.extend(content);
            archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        }
        archive.resize(archive.len() + 2 * BLOCK, 0);
        let path = directory.join("image.tar");
        std::fs::write(&path, sealed(&archive)).map(|()| path)
    }
}

fn named(part: &[u8], before: &[Vec<u8>]) -> Vec<u8> {
    let mut text = Vec::with_capacity(part.len());
    let mut bytes = part.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let digit = bytes.peek().copied().filter(u8::is_ascii_digit).map(|digit| usize::from(digit - b'0'));
        match digit.and_then(|digit| before.get(digit)) {
            Some(blob) if byte == b'@' => {
                bytes.next();
                text.extend(Digest::of(blob).to_string().into_bytes());
            }
            _ => text.push(byte),
        }
    }
    text
}

/// A tar archive whose headers have the checksums that they should have: else nearly every input would be refused for one.
pub fn sealed(archive: &[u8]) -> Vec<u8> {
    let mut archive = archive.to_vec();
    let mut at: usize = 0;
    while let Some(header) = archive.get_mut(at..at.saturating_add(BLOCK)) {
        at += BLOCK;
        if header.iter().all(|byte| *byte == 0) {
            continue;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let digits = header[124..136].iter().take_while(|byte| (b'0'..=b'7').contains(*byte));
        let size = digits.fold(0usize, |size, digit| size.saturating_mul(8) + usize::from(digit - b'0'));
        at = at.saturating_add(size.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX));
    }
    archive
}
