//! Joins files into one.
//!
//! What is joined is complete, or nothing has happened: it is written under another name beside the destination, renamed, and
//! only then the sources are removed.

use std::fs::File;
use std::io::{self, Read as _};

use rustix::fs::{AtFlags, Stat};
use rustix::io::Errno;
use sandbox_api::connect::Message;

use super::metadata::Metadata;
use super::upload::Written;
use crate::sandbox_api::rooted::{FileError, Owner, Root, Stop, Unfinished, give};

/// Most files that are joined at once.
pub(crate) const MOST_SOURCES: usize = 1000;
/// Bytes that are copied before a look is taken whether somebody still waits.
const STEP: u64 = 16 << 20;

/// What is to be joined.
#[derive(Debug, Clone)]
pub(super) struct Composition {
    source_paths: Vec<String>,
    destination: String,
    /// Whose paths they are.
    pub(super) username: Option<String>,
}

impl Composition {
    /// Reads one.
    pub(super) fn parse(body: &[u8]) -> Result<Composition, FileError> {
        let read = || {
            let message = Message::parse(body)?;
            Ok(Composition {
                source_paths: message.strings("sourcePaths")?,
                destination: message.string("destination")?.to_owned(),
                username: message.optional_string("username")?.map(str::to_owned),
            })
        };
        read().map_err(|error: sandbox_api::connect::Error| FileError::Invalid(error.message))
    }

    /// Joins the files. Blocks.
    pub(super) fn compose(&self, root: &Root, owner: &Owner, stop: &Stop) -> Result<Written, FileError> {
        let refuse = |text: String| Err(FileError::Invalid(text));
        if self.source_paths.is_empty() || self.source_paths.iter().any(String::is_empty) {
            return refuse("source_paths must name at least one file, and none may be empty".to_owned());
        }
        if self.source_paths.len() > MOST_SOURCES {
            return refuse(format!("source_paths: at most {MOST_SOURCES} files are joined at once"));
        }
        if self.destination.is_empty() {
            return refuse("destination is required".to_owned());
        }
        let destination = owner.expand(&self.destination)?;
        let sources =
            self.source_paths.iter().map(|path| owner.expand(path)).collect::<Result<Vec<_>, _>>()?;
        // Before anything is made: every source is there, and is a file.
        for path in &sources {
            open(root, path)?;
        }
        if root.find(&destination, true).is_ok_and(|found| found.kind() == rustix::fs::FileType::Directory) {
            return refuse(format!("path is a directory: {destination}"));
        }
        let place = root.locate_or_make(&destination, owner)?;
        let unfinished = Unfinished::new(place, &destination)?;
        let mut read = Vec::new();
        for path in &sources {
            let (file, stat) = open(root, path)?;
            copy(&file, &unfinished.file, path, &destination, stop)?;
            read.push((path, stat));
        }
        give(&unfinished.file, owner).map_err(FileError::during("change the owner of", &destination))?;
        unfinished.publish(&destination)?;
        for (path, stat) in read {
            remove(root, path, &stat)?;
        }
        Ok(Written::new(&destination, Metadata::new()))
    }
}

fn open(root: &Root, path: &str) -> Result<(File, Stat), FileError> {
    root.read(path).map_err(|error| match error {
        FileError::Missing(path) => FileError::NoSource(path),
        error => error,
    })
}

fn copy(from: &File, mut to: &File, source: &str, destination: &str, stop: &Stop) -> Result<(), FileError> {
    loop {
        stop.check()?;
        // Inside of the kernel where it can.
        let copied = io::copy(&mut from.take(STEP), &mut to)
            .map_err(|error| FileError::io("join", &format!("{source}' into '{destination}"), error))?;
        if copied == 0 {
            return Ok(());
        }
    }
}

/// Removes a source, unless its name is another file's by now, such as that of the destination.
fn remove(root: &Root, path: &str, stat: &Stat) -> Result<(), FileError> {
    let failed = || FileError::during::<Errno>("remove the joined", path);
    let now = match root.find(path, true) {
        Err(Errno::NOENT) => return Ok(()),
        found => found.map_err(failed())?.stat,
    };
    if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) {
        return Ok(());
    }
    let place = root.locate(path)?;
    match rustix::fs::unlinkat(&place.parent, place.name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed()(errno)),
    }
}
