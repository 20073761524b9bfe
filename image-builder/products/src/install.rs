//! The last step of every product: its files into the product directory, and its part into the manifest.

use std::path::{Path, PathBuf};

use crate::manifest::{Manifest, ManifestError, Part};
use store::cache::{self, CacheError};
use store::layout::Layout;

/// Why a product is not in its place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file cannot be written.
    #[error("cannot write the product")]
    Write(#[from] CacheError),
    /// The manifest cannot be written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Where a product's file comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// From memory.
    Bytes(&'a [u8]),
    /// It is a copy of a file that was made elsewhere.
    File(&'a Path),
}

impl Source<'_> {
    /// Puts it at `path`, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(self, path: &Path) -> Result<(), CacheError> {
        match self {
            Self::Bytes(bytes) => cache::write_atomically(path, bytes),
            Self::File(file) => cache::install(file, path),
        }
    }
}

/// Puts files into the product directory under their names, and notes them in the manifest, with the part that tells what the
/// first of them was made of.
///
/// # Errors
/// When anything cannot be written.
pub fn install(
    layout: &Layout,
    files: &[(String, Source<'_>)],
    part: Option<&dyn Part>,
) -> Result<(), InstallError> {
    for (name, source) in files {
        source.put(&layout.out().join(name))?;
    }
    Ok(Manifest::update(layout, |manifest| {
        if let (Some(part), Some((name, _))) = (part, files.first()) {
            part.note(name, manifest);
        }
        files.iter().try_for_each(|(name, _)| manifest.add_product(layout, name))
    })?)
}

/// A product that was packed, not yet written: its bytes, and its part of the manifest.
#[derive(Debug, Clone)]
pub struct Packed<P> {
    pub(crate) name: String,
    pub(crate) image: Vec<u8>,
    /// A file that goes with it: the extension in place of its own, and what is in it.
    pub(crate) beside: Option<(&'static str, String)>,
    pub(crate) part: P,
}

impl<P: Part> Packed<P> {
    /// Its bytes.
    pub fn image(&self) -> &[u8] {
        &self.image
    }

    /// What went into it.
    pub fn part(&self) -> &P {
        &self.part
    }

    /// Writes it into the product directory, and notes it in the manifest. Gives the product's name.
    ///
    /// # Errors
    /// When either cannot be written.
    pub fn install(&self, layout: &Layout) -> Result<String, InstallError> {
        let named = self.files(Path::new(&self.name)).into_iter();
        let files: Vec<_> = named.map(|(path, source)| (path.display().to_string(), source)).collect();
        install(layout, &files, Some(&self.part))?;
        Ok(self.name.clone())
    }

    /// Writes it to a file and what belongs to it beside that, and notes nothing. Gives the paths of all.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn write(&self, path: &Path) -> Result<Vec<PathBuf>, CacheError> {
        let files = self.files(path).into_iter();
        files.map(|(path, source)| source.put(&path).map(|()| path)).collect()
    }

    fn files(&self, path: &Path) -> Vec<(PathBuf, Source<'_>)> {
        let beside = self.beside.iter();
        let beside =
            beside.map(|(extension, text)| (path.with_extension(extension), Source::Bytes(text.as_bytes())));
        std::iter::once((path.to_path_buf(), Source::Bytes(&self.image))).chain(beside).collect()
    }
}
