//! Makes a copy what its source is.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::listing::{Content, FileState, Listing, Root};
use crate::files::remove_tree;

/// What a file or symlink is called before it takes its place.
const NEW: &str = ".pith-new";

/// A directory that nobody but us writes to.
pub(super) struct Copy {
    root: PathBuf,
    /// Whether it has one file, which is shown elsewhere and must stay the same one.
    is_one_file: bool,
}

impl Copy {
    /// The copy at a path.
    pub(super) fn open(root: &Path, is_one_file: bool) -> io::Result<Copy> {
        root.metadata()?;
        Ok(Copy { root: root.to_owned(), is_one_file })
    }

    /// Makes it `now`, what is in `source`, where it is `before`. On failure it is somewhere between, and can be tried again.
    pub(super) fn become_like(&self, source: &Root, before: &Listing, now: &Listing) -> io::Result<()> {
        let changes = now.changes(before);
        for (path, entry) in changes.directories {
            self.make_way(path, entry)?;
            let place = self.root.join(path);
            match std::fs::create_dir(&place) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => adorn(&place, entry)?,
            }
        }
        for (path, entry) in changes.files {
            self.make_way(path, entry)?;
            self.file(source, path, entry)?;
        }
        for (path, entry) in changes.links {
            self.make_way(path, entry)?;
            if let Content::Symlink(target) = &entry.kind {
                let new = self.root.join(NEW);
                std::os::unix::fs::symlink(target, &new)?;
                std::os::unix::fs::lchown(&new, Some(entry.uid), Some(entry.gid))?;
                // In one step: nobody sees the name missing.
                std::fs::rename(&new, self.root.join(path))?;
            }
        }
        for (path, entry) in changes.gone {
            let place = self.root.join(path);
            let removed = if entry.kind == Content::Directory {
                std::fs::remove_dir(&place)
            } else {
                std::fs::remove_file(&place)
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what is there of another kind; and what an attempt that failed had left.
    fn make_way(&self, path: &Path, entry: &FileState) -> io::Result<()> {
        drop(std::fs::remove_file(self.root.join(NEW)));
        let place = self.root.join(path);
        let Ok(found) = place.symlink_metadata() else { return Ok(()) };
        match (found.is_dir(), entry.kind == Content::Directory) {
            (true, false) => remove_tree(&place),
            (false, true) => std::fs::remove_file(place),
            _ => Ok(()),
        }
    }

    fn file(&self, source: &Root, path: &Path, entry: &FileState) -> io::Result<()> {
        let mut from = source.read(path)?;
        let place = self.root.join(path);
        let new = if self.is_one_file { place.clone() } else { self.root.join(NEW) };
        let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        io::copy(&mut from, &mut to)?;
        adorn(&new, entry)?;
        set_time(&to, entry)?;
        if new != place {
            std::fs::rename(&new, &place)?;
        }
        Ok(())
    }
}

fn adorn(place: &Path, entry: &FileState) -> io::Result<()> {
    std::os::unix::fs::chown(place, Some(entry.uid), Some(entry.gid))?;
    std::fs::set_permissions(place, Permissions::from_mode(entry.mode))
}

fn set_time(file: &File, entry: &FileState) -> io::Result<()> {
    let (seconds, nanoseconds) = entry.modified;
    let since =
        Duration::new(seconds.try_into().unwrap_or_default(), nanoseconds.try_into().unwrap_or_default());
    file.set_modified(SystemTime::UNIX_EPOCH + since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(source: &Path, copy: &Path, is_one_file: bool) {
        let root = Root::open(source).unwrap();
        let before = Root::open(copy).unwrap().list().unwrap();
        Copy::open(copy, is_one_file).unwrap().become_like(&root, &before, &root.list().unwrap()).unwrap();
    }

    #[test]
    fn modes_and_times_are_kept_and_kinds_may_change() {
        let (source, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = source.path().join("x");
        std::fs::write(&file, "one").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        copied(source.path(), copy.path(), false);
        let shown = copy.path().join("x").metadata().unwrap();
        assert_eq!(shown.permissions().mode() & 0o7777, 0o640);
        assert_eq!(shown.modified().unwrap(), file.metadata().unwrap().modified().unwrap());
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        std::os::unix::fs::symlink("x", source.path().join("link")).unwrap();
        copied(source.path(), copy.path(), false);
        assert!(copy.path().join("x").is_dir());
        assert_eq!(std::fs::read_link(copy.path().join("link")).unwrap(), Path::new("x"));
        std::fs::remove_dir(&file).unwrap();
        std::fs::write(&file, "two").unwrap();
        copied(source.path(), copy.path(), false);
        assert_eq!(std::fs::read_to_string(copy.path().join("x")).unwrap(), "two");
        assert_eq!(std::fs::read_dir(copy.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_source_of_one_file_keeps_its_copy() {
        use std::os::unix::fs::MetadataExt as _;
        let (source, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = source.path().join("config");
        std::fs::write(&file, "a longer text").unwrap();
        copied(&file, copy.path(), true);
        let place = copy.path().join(super::super::listing::ONLY);
        let first = place.metadata().unwrap().ino();
        std::fs::write(&file, "short").unwrap();
        copied(&file, copy.path(), true);
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "short");
        assert_eq!(place.metadata().unwrap().ino(), first);
    }
}
