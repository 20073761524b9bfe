//! Files that are whole or not there: written under a name of their own beside their place, and renamed.

use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Write as _;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::error::FileError;
use super::path::Owner;
use super::root::{FILE_MODE, Location, Root};

/// A file under a name of its own, which goes with it.
pub(crate) struct Unfinished<'a> {
    /// What is written to.
    pub(crate) file: File,
    place: Location<'a>,
    name: Option<String>,
}

impl<'a> Unfinished<'a> {
    /// Makes one for this place, whose path is for errors. Blocks.
    pub(crate) fn new(place: Location<'a>, path: &str) -> Result<Unfinished<'a>, FileError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let name = format!(".pith-unfinished-{:016x}", RandomState::new().build_hasher().finish());
            match rustix::fs::openat(&place.parent, &name, flags, Mode::from_raw_mode(FILE_MODE)) {
                Err(Errno::EXIST) => {}
                made => {
                    let file = File::from(made.map_err(FileError::during("make", path))?);
                    return Ok(Unfinished { file, place, name: Some(name) });
                }
            }
        }
    }

    /// Gives it its name. What had that name is gone.
    pub(crate) fn publish(mut self, path: &str) -> Result<(), FileError> {
        let Some(name) = &self.name else { return Ok(()) };
        rustix::fs::renameat(&self.place.parent, name, &self.place.parent, self.place.name)
            .map_err(FileError::during("make", path))?;
        self.name = None;
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name
            && let Err(errno) = rustix::fs::unlinkat(&self.place.parent, name, AtFlags::empty())
        {
            tracing::warn!(%errno, name, "an unfinished file stays");
        }
    }
}

/// Writes the agent's own text to a file of a container, in place of what it has. Directories that are missing are made. Blocks.
pub(crate) fn replace(root: &Root, path: &str, text: &str) -> Result<(), FileError> {
    let mut unfinished = Unfinished::new(root.locate_or_make(path, &Owner::agent())?, path)?;
    unfinished.file.write_all(text.as_bytes()).map_err(FileError::during("write", path))?;
    unfinished.publish(path)
}
