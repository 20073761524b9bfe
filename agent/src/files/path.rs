//! From a request's path to a directory descriptor and a name in it.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::FileError;
use super::remove::remove_tree_at;

/// A place for an entry: a directory inside the tree, and the entry's name.
#[derive(Debug)]
pub(super) struct Location {
    pub(super) parent: OwnedFd,
    pub(super) name: OsString,
}

/// Mode bits and owner of directories that are made on the way.
#[derive(Debug, Clone, Copy)]
pub(super) struct ParentOwner {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The names below `root` in `path`, of which there is at least one.
pub(super) fn below(root: &Path, path: &Path) -> Result<Vec<OsString>, FileError> {
    let refuse = |reason| FileError::Path { path: path.to_owned(), reason };
    let is_plain = |part: &Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(|part| is_plain(&part)) {
        return Err(refuse("not an absolute path without \"..\""));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(refuse("a NUL in a path"));
    }
    let rest = path.strip_prefix(root).map_err(|_| refuse("not below the directory of shared containers"))?;
    let names: Vec<OsString> = rest.iter().map(OsString::from).collect();
    if names.is_empty() { Err(refuse("names the shared directory itself")) } else { Ok(names) }
}

/// Opens the directory of a path's last name, making what is missing on the way. What is made is `owner`'s.
///
/// The first name below `root` is what one container or volume was given: links inside it may be followed, out of it none.
pub(super) fn place(root: &Path, path: &Path, owner: ParentOwner) -> Result<Location, FileError> {
    let mut names = below(root, path)?;
    let failed = |operation| {
        move |errno: Errno| FileError::Io { path: path.to_owned(), operation, source: errno.into() }
    };
    let Some(name) = names.pop() else { unreachable!("`below` gives at least one name") };
    std::fs::create_dir_all(root).map_err(|source| FileError::Io {
        path: path.to_owned(),
        operation: "make the shared directory",
        source,
    })?;
    let root =
        rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("open the shared directory"))?;
    let Some((first, rest)) = names.split_first() else { return Ok(Location { parent: root, name }) };
    let base =
        enter(&root, Path::new(first), ResolveFlags::NO_SYMLINKS, owner).map_err(failed("open a parent"))?;
    let mut parent = base.try_clone().map_err(|source| FileError::Io {
        path: path.to_owned(),
        operation: "keep a parent",
        source,
    })?;
    let mut walked = PathBuf::new();
    for part in rest {
        walked.push(part);
        parent = match open(&base, &walked, ResolveFlags::empty()) {
            Err(Errno::NOENT) => {
                make(&parent, Path::new(part), owner).map_err(failed("make a parent"))?;
                open(&base, &walked, ResolveFlags::empty()).map_err(failed("open a parent"))?
            }
            opened => opened.map_err(failed("open a parent"))?,
        };
    }
    Ok(Location { parent, name })
}

fn enter(
    at: &OwnedFd,
    name: &Path,
    resolve: ResolveFlags,
    owner: ParentOwner,
) -> rustix::io::Result<OwnedFd> {
    match open(at, name, resolve) {
        Err(Errno::NOENT) => {
            make(at, name, owner)?;
            open(at, name, resolve)
        }
        opened => opened,
    }
}

fn open(at: &OwnedFd, path: &Path, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = resolve | ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(at, path, flags, Mode::empty(), resolve)
}

fn make(at: &OwnedFd, name: &Path, owner: ParentOwner) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o700)) {
        // Another copy was faster.
        Err(Errno::EXIST) => return Ok(()),
        made => made?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(at, name, flags, Mode::empty())?;
    own(&directory, owner.uid, owner.gid)?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(owner.mode & 0o7777))
}

/// Gives a file away; [`u32::MAX`] leaves an id as it is (chown(2)).
pub(super) fn own(file: &OwnedFd, uid: u32, gid: u32) -> rustix::io::Result<()> {
    rustix::fs::fchown(file, id(uid, rustix::fs::Uid::from_raw), id(gid, rustix::fs::Gid::from_raw))
}

/// An id to give away to, none for [`u32::MAX`].
pub(super) fn id<T>(raw: u32, make: impl FnOnce(u32) -> T) -> Option<T> {
    (raw != u32::MAX).then(|| make(raw))
}

/// Removes whatever has this name in a directory; links are not followed.
pub(super) fn remove(parent: &OwnedFd, name: &Path) -> io::Result<()> {
    let removed = match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => remove_tree_at(parent, name),
        removed => removed.map_err(io::Error::from),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_the_root_have_names() {
        let root = Path::new("/run/shared");
        let names = |path: &str| below(root, Path::new(path));
        assert_eq!(names("/run/shared/c1/a").unwrap(), ["c1", "a"]);
        assert_eq!(names("/run//shared/./c1/").unwrap(), ["c1"]);
        for bad in [
            "",
            "c1",
            "/run/shared",
            "/run/shared/",
            "/run/shared/../x",
            "/run/sharedx/c",
            "/etc/passwd",
            "/run/shared/a\0b",
        ] {
            assert!(names(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parents_are_made_and_links_out_of_them_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("shared");
        let owner = ParentOwner { mode: 0o750, uid: u32::MAX, gid: u32::MAX };
        let place = |path: &str| place(&root, &root.join(path), owner);
        assert_eq!(place("c1/a/b/file").unwrap().name, "file");
        let mode = std::os::unix::fs::MetadataExt::mode(&root.join("c1/a").metadata().unwrap());
        assert_eq!(mode & 0o7777, 0o750);
        std::os::unix::fs::symlink("a", root.join("c1/inside")).unwrap();
        assert!(place("c1/inside/b/file").is_ok());
        std::fs::create_dir(root.join("c2")).unwrap();
        for (link, to) in [("up", "../c2"), ("absolute", "/etc"), ("far", "../../..")] {
            std::os::unix::fs::symlink(to, root.join("c1").join(link)).unwrap();
            assert!(place(&format!("c1/{link}/file")).is_err(), "{link}");
        }
        std::os::unix::fs::symlink("c1", root.join("c3")).unwrap();
        assert!(place("c3/file").is_err());
    }
}
