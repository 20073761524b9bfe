//! Makes directories, moves and removes entries.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use crate::files::remove_tree_at;
use crate::sandbox_api::rooted::{Entry, FileError, Owner, Root, Stop, below};

/// Levels that a removal goes down by itself. What is deeper is removed in another way, which shows other names to whoever
/// watches the directory.
const LEVELS: usize = 64;

/// Makes a directory with those above it. What is made is the owner's.
pub(super) fn make_directory(root: &Root, owner: &Owner, path: &str) -> Result<Entry, FileError> {
    match root.find(path, true) {
        Ok(found) if found.kind() == FileType::Directory => return Err(FileError::Exists(path.to_owned())),
        Ok(_) => return Err(FileError::InTheWay(path.to_owned())),
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(FileError::io("make directory", path, errno)),
    }
    root.make(path, owner)?;
    Entry::of(root, &root.names(), path)
}

/// Moves an entry, over whatever is there; the directories above it are made.
pub(super) fn rename(root: &Root, owner: &Owner, from: &str, to: &str) -> Result<Entry, FileError> {
    let source = root.locate(from)?;
    // Nothing is made for an entry that is not there.
    root.find(from.trim_end_matches('/'), false).map_err(FileError::during("move", from))?;
    let destination = root.locate_or_make(to, owner)?;
    let moved = rustix::fs::renameat(&source.parent, source.name, &destination.parent, destination.name);
    moved.map_err(|errno| match errno {
        Errno::INVAL => FileError::Invalid(format!("cannot move '{from}' into itself: '{to}'")),
        Errno::NOENT => FileError::Missing(from.to_owned()),
        errno => FileError::Io { operation: "move", path: format!("{from}' to '{to}"), source: errno.into() },
    })?;
    Entry::of(root, &root.names(), to)
}

/// Removes an entry with all that is in it. What is not there is removed already.
pub(super) fn remove(root: &Root, path: &str, stop: &Stop) -> Result<(), FileError> {
    let location = match root.locate(path) {
        Err(FileError::Missing(_) | FileError::NoDirectory(_)) => return Ok(()),
        location => location?,
    };
    let name = std::ffi::CString::new(location.name)
        .map_err(|_| FileError::Path { path: path.to_owned(), reason: "has a NUL" })?;
    clear(&location.parent, &name, LEVELS, path, stop)
}

/// Removes what has a name, in the order in which `rm -r` does.
fn clear(parent: &OwnedFd, name: &CStr, levels: usize, path: &str, stop: &Stop) -> Result<(), FileError> {
    let failed = || FileError::during::<Errno>("remove", path);
    stop.check()?;
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(failed()(errno)),
    }
    let remove = || match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(failed()(errno)),
    };
    if remove()? {
        return Ok(());
    }
    let relative = std::path::Path::new(std::ffi::OsStr::new(name.to_str().unwrap_or_default()));
    if levels == 0 || name.to_str().is_err() {
        use std::os::unix::ffi::OsStrExt as _;
        let name = std::path::Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
        return remove_tree_at(parent, name).map_err(FileError::during("remove", path));
    }
    // Somebody may fill it meanwhile, though not for ever.
    const PASSES: u32 = 100;
    for _ in 0..PASSES {
        let directory = match below(parent, relative, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened.map_err(failed())?,
        };
        for entry in Dir::read_from(&directory).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                clear(&directory, entry.file_name(), levels - 1, path, stop)?;
            }
        }
        if remove()? {
            return Ok(());
        }
    }
    Err(FileError::io("remove", path, Errno::NOTEMPTY))
}
