//! Lists a directory, some levels deep.
//!
//! What a container has made decides how much there is: the answer has a bound, and so has the memory for it, which is
//! reached before more is read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, OFlags};
use rustix::io::Errno;

use crate::sandbox_api::rooted::{Entry, FileError, Found, Root, Stop, below, is_gone, join, last_first};

/// Most bytes of an answer, in JSON.
pub(crate) const MOST_BYTES: usize = 8 << 20;
/// Names that are read before a look is taken whether somebody still waits.
const STEP: usize = 256;

/// Entries as a JSON array.
pub(super) fn list(root: &Root, path: &str, depth: u32, stop: &Stop) -> Result<Vec<u8>, FileError> {
    list_within(root, path, depth, stop, MOST_BYTES)
}

/// A directory of which names are still to be told.
struct Level {
    /// Its path below the top.
    relative: PathBuf,
    /// Names in it, the next one last.
    names: Vec<Vec<u8>>,
}

fn list_within(root: &Root, path: &str, depth: u32, stop: &Stop, most: usize) -> Result<Vec<u8>, FileError> {
    let full = || {
        let reason = "list a directory below it, or with a smaller depth";
        FileError::Exhausted(format!("the list of '{path}' has more than {} MiB: {reason}", most >> 20))
    };
    let top = root.directory(path).map_err(FileError::during("list", path))?;
    let table = root.names();
    let (mut answer, mut waiting) = (b"[".to_vec(), 0);
    let mut levels = vec![level(&top, PathBuf::new(), most, stop)?.ok_or_else(full)?];
    waiting += levels[0].names.len();
    while let Some(here) = levels.last_mut() {
        let Some(name) = here.names.pop() else {
            levels.pop();
            continue;
        };
        waiting -= 1;
        if waiting.is_multiple_of(STEP) {
            stop.check()?;
        }
        let relative = here.relative.join(OsStr::from_bytes(&name));
        let found = match find(&top, &relative) {
            // Vanished since its directory was read.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(Errno::NAMETOOLONG) => return Err(deep(path)),
            found => found.map_err(FileError::during("list", path))?,
        };
        let shown = join(path, &relative.to_string_lossy());
        let entry = Entry::found(root, &table, &shown, &found);
        if answer.len() > 1 {
            answer.push(b',');
        }
        answer.extend(entry.to_json().to_string().into_bytes());
        if answer.len() > most {
            return Err(full());
        }
        let depth_here = u32::try_from(levels.len()).unwrap_or(u32::MAX);
        if found.kind() == FileType::Directory && depth_here < depth.max(1) {
            let room = most - answer.len();
            let next = match below(&top, &relative, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(Errno::NAMETOOLONG) => return Err(deep(path)),
                opened => level(opened.map_err(FileError::during("list", &shown))?, relative, room, stop)?,
            };
            let next = next.ok_or_else(full)?;
            waiting += next.names.len();
            levels.push(next);
        }
    }
    answer.push(b']');
    Ok(answer)
}

fn deep(path: &str) -> FileError {
    FileError::Exhausted(format!("'{path}' goes deeper than a path can be long: list a directory below it"))
}

fn find(top: impl std::os::fd::AsFd, relative: &Path) -> rustix::io::Result<Found> {
    let fd = below(top, relative, OFlags::PATH | OFlags::NOFOLLOW)?;
    let stat = rustix::fs::fstat(&fd)?;
    Ok(Found { fd, stat })
}

/// The names in a directory, in order; none if those alone are too much.
fn level(
    directory: impl std::os::fd::AsFd,
    relative: PathBuf,
    most: usize,
    stop: &Stop,
) -> Result<Option<Level>, FileError> {
    let shown = relative.to_string_lossy().into_owned();
    let (mut names, mut bytes) = (Vec::new(), 0);
    for (count, entry) in Dir::read_from(directory).map_err(FileError::during("list", &shown))?.enumerate() {
        if count.is_multiple_of(STEP) {
            stop.check()?;
        }
        let entry = match entry.map_err(std::io::Error::from) {
            Err(error) if is_gone(&error) => break,
            entry => entry.map_err(FileError::during("list", &shown))?,
        };
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        // Each becomes an entry, which is larger.
        bytes += name.len() + std::mem::size_of::<Vec<u8>>();
        if bytes > most {
            return Ok(None);
        }
        names.push(name.to_vec());
    }
    last_first(&mut names);
    Ok(Some(Level { relative, names }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    fn rooted(directory: &Path) -> Root {
        Root::new(Arc::new(std::fs::File::open(directory).unwrap().into()))
    }

    fn paths(root: &Root, path: &str, depth: u32) -> Result<Vec<String>, FileError> {
        let answer = list(root, path, depth, &Stop::default())?;
        let entries: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        let paths = entries.as_array().unwrap().iter();
        Ok(paths.map(|entry| entry["path"].as_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn entries_come_in_order_to_the_depth_and_links_are_not_walked() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("d/b/c/e")).unwrap();
        std::fs::write(dir.path().join("d/a"), "1").unwrap();
        std::fs::write(dir.path().join("d/b.txt"), "1").unwrap();
        symlink("b", dir.path().join("d/link")).unwrap();
        symlink("/d", dir.path().join("top")).unwrap();
        let root = rooted(dir.path());
        assert_eq!(paths(&root, "/d", 0).unwrap(), ["/d/a", "/d/b", "/d/b.txt", "/d/link"]);
        assert_eq!(paths(&root, "/d", 1).unwrap(), paths(&root, "/d", 0).unwrap());
        assert_eq!(paths(&root, "/d", 2).unwrap(), ["/d/a", "/d/b", "/d/b/c", "/d/b.txt", "/d/link"]);
        assert_eq!(paths(&root, "/d", 99).unwrap().len(), 6);
        // The path that was asked for stands before the names, as it is.
        assert_eq!(paths(&root, "/top/../top/", 1).unwrap()[0], "/top/../top/a");
        assert_eq!(paths(&root, "/", 1).unwrap(), ["/d", "/top"]);
    }

    #[test]
    fn what_is_no_directory_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "1").unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        symlink("/proc/self/root", dir.path().join("out")).unwrap();
        let root = rooted(dir.path());
        assert!(matches!(paths(&root, "/f", 1), Err(FileError::NoDirectory(path)) if path == "/f"));
        assert!(matches!(paths(&root, "/loop", 1), Err(FileError::Loop(_))));
        assert!(matches!(paths(&root, "/none", 1), Err(FileError::Missing(_))));
        assert!(matches!(paths(&root, "/out", 1), Err(FileError::Missing(_))));
    }

    #[test]
    fn a_list_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        for name in 0..100 {
            std::fs::write(dir.path().join(format!("file-{name}")), "").unwrap();
        }
        let root = rooted(dir.path());
        let within = |most| list_within(&root, "/", 1, &Stop::default(), most);
        let whole = within(MOST_BYTES).unwrap().len();
        assert!(within(whole).is_ok());
        // The names alone, and the entries.
        for most in [500, whole - 2] {
            assert!(matches!(within(most), Err(FileError::Exhausted(_))), "{most}");
        }
    }

    #[test]
    fn a_tree_deeper_than_a_path_is_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let name = "n".repeat(200);
        let mut here: std::os::fd::OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        for _ in 0..25 {
            rustix::fs::mkdirat(&here, name.as_str(), rustix::fs::Mode::RWXU).unwrap();
            here = below(&here, Path::new(&name), OFlags::RDONLY).unwrap();
        }
        let root = rooted(dir.path());
        assert_eq!(paths(&root, "/", 20).unwrap().len(), 20);
        assert!(matches!(paths(&root, "/", 99), Err(FileError::Exhausted(_))));
    }
}
