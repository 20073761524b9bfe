//! Removes a directory with all that is in it, however deep that goes.
//!
//! A container can nest directories deeper than a thread's stack and a table of descriptors go. So nothing here recurses: a
//! directory that is not empty is moved to the top of the tree before it is looked into, and three descriptors are enough.
//! Follows no link. What is mounted below is not emptied: it is an error (EBUSY).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Times that the top is gone through. Each takes a level away, and no guest has memory for so many; but somebody who adds to
/// the tree meanwhile must not keep a thread for ever.
const PASSES: u32 = 4_000_000;

/// Removes the directory at a path. Blocks.
///
/// # Errors
/// The kernel's, NotFound among them. What was reached before is gone then.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    remove_tree_at(CWD, path)
}

/// As [`remove_tree`], for a path below a directory.
pub(crate) fn remove_tree_at(parent: impl AsFd, path: &Path) -> io::Result<()> {
    let mut tree = Tree { top: open(&parent, path)?, moved: 0 };
    for _ in 0..PASSES {
        if !tree.pass()? {
            break;
        }
    }
    Ok(rustix::fs::unlinkat(&parent, path, AtFlags::REMOVEDIR)?)
}

struct Tree {
    top: OwnedFd,
    /// How many directories were moved to the top.
    moved: u64,
}

impl Tree {
    /// Removes all that is at the top; what its directories hold is removed or moved there. Tells whether anything was.
    fn pass(&mut self) -> io::Result<bool> {
        let before = self.moved;
        for entry in Dir::read_from(&self.top)? {
            let entry = entry?;
            let name = entry.file_name();
            if !is_own(name) && !is_removed(&self.top, name, entry.file_type())? {
                self.clear(name)?;
            }
        }
        Ok(self.moved > before)
    }

    fn clear(&mut self, name: &CStr) -> io::Result<()> {
        let directory = open(&self.top, name)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if !is_own(name) && !is_removed(&directory, name, entry.file_type())? {
                self.move_up(&directory, name)?;
            }
        }
        Ok(rustix::fs::unlinkat(&self.top, name, AtFlags::REMOVEDIR)?)
    }

    fn move_up(&mut self, directory: &OwnedFd, name: &CStr) -> io::Result<()> {
        loop {
            let free = format!(".pith-removed-{}", self.moved);
            self.moved += 1;
            match rustix::fs::renameat_with(directory, name, &self.top, free, RenameFlags::NOREPLACE) {
                // Somebody calls a file of his own so.
                Err(Errno::EXIST) => {}
                moved => return Ok(moved?),
            }
        }
    }
}

/// Whether a name is the directory's own, or its parent's.
fn is_own(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn open(parent: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, path, flags, Mode::empty())
}

/// Removes what can be removed at once; false for a directory that is not empty.
fn is_removed(directory: &OwnedFd, name: &CStr, kind: FileType) -> io::Result<bool> {
    let remove = |flags| rustix::fs::unlinkat(directory, name, flags);
    let removed = match kind {
        FileType::Directory => remove(AtFlags::REMOVEDIR),
        FileType::Unknown => match remove(AtFlags::empty()) {
            Err(Errno::ISDIR) => remove(AtFlags::REMOVEDIR),
            removed => removed,
        },
        _ => remove(AtFlags::empty()),
    };
    match removed {
        // Gone by itself is gone, too.
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// More than a test's thread has stack for, and than a process may have descriptors.
    const DEEP: usize = 40_000;

    fn nest(top: &Path) {
        let mut here = open(CWD, top).unwrap();
        for _ in 0..DEEP {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            here = open(&here, "d").unwrap();
        }
    }

    #[test]
    fn depth_is_no_obstacle() {
        // In memory, as in a guest: a disk takes minutes for so many steps.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir(&top).unwrap();
        nest(&top);
        remove_tree(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn everything_below_goes_and_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let (top, beside) = (dir.path().join("top"), dir.path().join("beside"));
        for path in ["a/b/c", "a/empty", ".pith-removed-0/x", ".pith-removed-1"] {
            std::fs::create_dir_all(top.join(path)).unwrap();
        }
        std::fs::create_dir(&beside).unwrap();
        std::fs::write(beside.join("kept"), "kept").unwrap();
        std::fs::write(top.join("a/b/file"), "gone").unwrap();
        for link in ["link", "a/b/link", "a/b/c/link"] {
            symlink(&beside, top.join(link)).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        assert_eq!(std::fs::read_to_string(beside.join("kept")).unwrap(), "kept");
        assert_eq!(remove_tree(&top).unwrap_err().kind(), io::ErrorKind::NotFound);
        symlink(&beside, &top).unwrap();
        assert!(remove_tree(&top).is_err(), "a link was followed");
        assert!(beside.join("kept").exists());
    }
}
