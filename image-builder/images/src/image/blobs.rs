//! The files of an image, wherever they are kept, and whether they are what their digests say.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::ImageError;
use super::archive::Archive;
use super::document::{Descriptor, parse};
use store::digest::Digest;
use store::plain;

/// JSON documents larger than this are not an image's.
const MAX_DOCUMENT: u64 = 8 << 20;

/// The files of an image.
pub(super) enum Blobs {
    /// A directory with files named `blobs/sha256/HEX`.
    Layout(PathBuf),
    /// A directory with files named `HEX`, as skopeo's `dir:` writes them.
    Flat(PathBuf),
    Archive(Archive),
}

impl Blobs {
    /// A file by its name.
    pub(super) fn open(&self, path: &Path, name: &str) -> Result<Box<dyn Read>, ImageError> {
        match self {
            Self::Layout(dir) | Self::Flat(dir) => {
                let file = dir.join(name);
                Ok(Box::new(plain::open(&file).map_err(|error| ImageError::io("open", file, error))?))
            }
            Self::Archive(archive) => match archive.member(name) {
                Some(member) => Ok(Box::new(member)),
                None => Err(ImageError::source(path, format!("{name:?} is missing in this archive"))),
            },
        }
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Layout(dir) | Self::Flat(dir) => fs::symlink_metadata(dir.join(name)).is_ok(),
            Self::Archive(archive) => archive.has(name),
        }
    }

    /// All of a small file.
    pub(super) fn document(&self, path: &Path, name: &str) -> Result<Vec<u8>, ImageError> {
        let mut document = Vec::new();
        let mut stream = self.open(path, name)?.take(MAX_DOCUMENT + 1);
        stream.read_to_end(&mut document).map_err(|error| ImageError::io("read", path.join(name), error))?;
        if document.len() as u64 > MAX_DOCUMENT {
            return Err(ImageError::source(path, format!("{name:?} is too large to be a document")));
        }
        Ok(document)
    }

    /// A document that a descriptor names.
    pub(super) fn verified<T: serde::de::DeserializeOwned>(
        &self,
        path: &Path,
        descriptor: &Descriptor,
    ) -> Result<T, ImageError> {
        let name = self.name(path, &descriptor.digest)?;
        // `skopeo copy --all dir:` has a name of its own for the manifests of an index.
        let manifest = format!("{name}.manifest.json");
        let is_beside = matches!(self, Self::Flat(_)) && !self.has(&name) && self.has(&manifest);
        let name = if is_beside { manifest } else { name };
        let document = self.document(path, &name)?;
        let found = format!("sha256:{}", Digest::of(&document));
        if found != descriptor.digest {
            return Err(mismatch(path, &name, &descriptor.digest, &found));
        }
        parse(path, &name, &document)
    }

    /// Where the blob with a digest is kept.
    pub(super) fn name(&self, path: &Path, digest: &str) -> Result<String, ImageError> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| hex.parse::<Digest>().is_ok());
        let hex = hex.ok_or_else(|| {
            ImageError::source(path, format!("digest {digest:?}: only sha256 is supported"))
        })?;
        Ok(if matches!(self, Self::Flat(_)) { hex.to_owned() } else { format!("blobs/sha256/{hex}") })
    }
}

pub(super) fn mismatch(path: &Path, what: &str, expected: &str, found: &str) -> ImageError {
    ImageError::Digest {
        path: path.to_path_buf(),
        what: what.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

/// Computes a digest of what passes through.
pub(super) struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// Reads what is left (padding after an archive's end) and answers the digest of all.
    pub(super) fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        let hex: String = self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("sha256:{hex}"))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sha256_names_become_paths() {
        let hex = "0".repeat(64);
        let (layout, flat) = (Blobs::Layout("i".into()), Blobs::Flat("i".into()));
        let digest = format!("sha256:{hex}");
        assert_eq!(layout.name(Path::new("i"), &digest).unwrap(), format!("blobs/sha256/{hex}"));
        assert_eq!(flat.name(Path::new("i"), &digest).unwrap(), hex);
        for bad in ["sha256:../../etc/passwd", "sha512:00", "nothing", ""] {
            assert!(
                layout.name(Path::new("i"), bad).is_err() && flat.name(Path::new("i"), bad).is_err(),
                "{bad}"
            );
        }
    }
}
