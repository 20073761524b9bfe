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
    root.find(from.trim_end_matches('/'), false).map_err(FileError::lookup("move", from))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    struct Case {
        dir: tempfile::TempDir,
        root: Root,
    }

    impl Case {
        fn new() -> Case {
            let memory = Path::new("/dev/shm");
            let dir =
                if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
            let root = Root::new(Arc::new(std::fs::File::open(dir.path()).unwrap().into()));
            Case { dir, root }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        fn make(&self, path: &str) -> Result<Entry, FileError> {
            make_directory(&self.root, &own(), path)
        }

        fn rename(&self, from: &str, to: &str) -> Result<Entry, FileError> {
            rename(&self.root, &own(), from, to)
        }

        fn remove(&self, path: &str) -> Result<(), FileError> {
            remove(&self.root, path, &Stop::default())
        }
    }

    fn own() -> Owner {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Owner { uid, gid, home: "/".into(), workdir: None }
    }

    #[test]
    fn directories_are_made_once() {
        let case = Case::new();
        let made = case.make("/a/b/").unwrap();
        assert_eq!(
            (made.name.as_str(), made.path.as_str(), made.permissions.as_str()),
            ("b", "/a/b/", "drwxr-xr-x")
        );
        assert!(matches!(case.make("/a/b"), Err(FileError::Exists(_))));
        std::fs::write(case.path("f"), "").unwrap();
        symlink("a", case.path("link")).unwrap();
        assert!(case.make("/f").unwrap_err().to_string().contains("not a directory"));
        assert!(case.make("/f/x").unwrap_err().to_string().contains("not a directory"));
        assert!(matches!(case.make("/link"), Err(FileError::Exists(_))));
        assert_eq!(case.make("/link/c").unwrap().path, "/link/c");
        assert!(case.path("a/c").is_dir());
    }

    #[test]
    fn entries_are_moved_over_others_and_into_new_directories() {
        let case = Case::new();
        std::fs::write(case.path("f"), "1").unwrap();
        let moved = case.rename("/f", "/n/m/g").unwrap();
        assert_eq!((moved.name.as_str(), moved.path.as_str(), moved.size), ("g", "/n/m/g", 1));
        std::fs::write(case.path("h"), "22").unwrap();
        assert_eq!(case.rename("/n/m/g", "/h").unwrap().size, 1);
        assert!(matches!(case.rename("/none", "/new/x"), Err(FileError::Missing(path)) if path == "/none"));
        assert!(!case.path("new").exists(), "nothing is made in vain");
        assert!(matches!(case.rename("/n", "/n/m/x"), Err(FileError::Invalid(_))));
        for (from, to) in [("/", "/x"), ("/h", "/"), ("/h", "/n/.."), ("/.", "/x")] {
            assert_eq!(case.rename(from, to).unwrap_err().status(), 400, "{from} {to}");
        }
        assert_eq!(case.rename("/h", "/n").unwrap_err().status(), 500);
        // A link is moved itself.
        symlink("/h", case.path("link")).unwrap();
        assert!(case.rename("/link", "/moved").unwrap().is_symlink);
    }

    #[test]
    fn everything_below_is_removed_and_nothing_beside() {
        let case = Case::new();
        std::fs::create_dir_all(case.path("top/a/b")).unwrap();
        std::fs::create_dir(case.path("beside")).unwrap();
        std::fs::write(case.path("beside/kept"), "").unwrap();
        std::fs::write(case.path("top/a/f"), "").unwrap();
        symlink("/beside", case.path("top/a/link")).unwrap();
        symlink("/beside", case.path("link")).unwrap();
        case.remove("/top").unwrap();
        case.remove("/link").unwrap();
        assert!(!case.path("top").exists() && case.path("beside/kept").exists());
        for missing in ["/top", "/top/x", "/beside/kept/x"] {
            case.remove(missing).unwrap();
        }
        for refused in ["/", "/beside/.", "/beside/.."] {
            assert_eq!(case.remove(refused).unwrap_err().status(), 400, "{refused}");
        }
    }

    #[test]
    fn a_deep_tree_is_removed() {
        let case = Case::new();
        let mut here: OwnedFd = std::fs::File::open(case.dir.path()).unwrap().into();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&here, "d", rustix::fs::Mode::RWXU).unwrap();
            here = below(&here, Path::new("d"), OFlags::RDONLY).unwrap();
        }
        case.remove("/d").unwrap();
        assert_eq!(std::fs::read_dir(case.dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_removal_stops_when_nobody_waits() {
        let case = Case::new();
        std::fs::create_dir_all(case.path("top/a")).unwrap();
        let stop = Stop::default();
        drop(stop.on_drop());
        assert!(matches!(remove(&case.root, "/top", &stop), Err(FileError::Abandoned)));
        assert!(case.path("top/a").exists());
    }
}
