//! `fs_group`: files of a volume that a group of the pod's is to own, as Kubernetes has it.
//!
//! All files get the group and its right to read, and to write where the volume is writable; directories the right to
//! enter and the set-group-id bit, so that what is made there belongs to the group too.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags};

use super::StorageError;

/// Who is to own the files of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// Group id.
    pub(crate) id: u32,
    /// When.
    pub(crate) policy: ChangePolicy,
}

/// When the files of a volume change their group (Kubernetes' `fsGroupChangePolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ChangePolicy {
    /// Each time.
    #[default]
    Always,
    /// When the volume's own directory is not the group's yet, with all its rights.
    OnRootMismatch,
}

/// How deep directories may lie in one another: each level is an open descriptor.
const DEEPEST: usize = 512;

/// Gives the files below a directory to the group.
pub(super) fn give(root: &Path, group: &Group, is_readonly: bool) -> Result<(), StorageError> {
    let failed = |operation| {
        move |errno: rustix::io::Errno| StorageError::Io {
            operation,
            path: root.display().to_string(),
            source: errno.into(),
        }
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::DIRECTORY;
    let directory = match rustix::fs::openat(CWD, root, flags, Mode::empty()) {
        Ok(directory) => directory,
        // A volume can be one file.
        Err(rustix::io::Errno::NOTDIR) => {
            return change(CWD, root, FileType::RegularFile, group, is_readonly)
                .map_err(failed("give to a group"));
        }
        Err(errno) => return Err(failed("open")(errno)),
    };
    let stat = rustix::fs::fstat(&directory).map_err(failed("look at"))?;
    let wanted = rights(FileType::Directory, is_readonly);
    if group.policy == ChangePolicy::OnRootMismatch
        && stat.st_gid == group.id
        && stat.st_mode & wanted == wanted
    {
        return Ok(());
    }
    below(directory.as_fd(), group, is_readonly, 0).map_err(failed("give to a group the files of"))?;
    // Last: one that is the group's says that all of it is.
    change(CWD, root, FileType::Directory, group, is_readonly).map_err(failed("give to a group"))
}

fn below(
    directory: BorrowedFd<'_>,
    group: &Group,
    is_readonly: bool,
    depth: usize,
) -> rustix::io::Result<()> {
    if depth > DEEPEST {
        return Err(rustix::io::Errno::LOOP);
    }
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::DIRECTORY;
            let inner = rustix::fs::openat(directory, name, flags, Mode::empty())?;
            below(inner.as_fd(), group, is_readonly, depth + 1)?;
        }
        change(directory, name, kind, group, is_readonly)?;
    }
    Ok(())
}

/// Group and rights of one file. A link has the group alone, and what it points to is none of ours.
fn change(
    directory: impl AsFd,
    name: impl rustix::path::Arg + Copy,
    kind: FileType,
    group: &Group,
    is_readonly: bool,
) -> rustix::io::Result<()> {
    let directory = directory.as_fd();
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = stat.st_mode & 0o7777;
    if stat.st_gid != group.id {
        rustix::fs::chownat(directory, name, None, Some(Gid::from_raw(group.id)), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    let wanted = mode | rights(kind, is_readonly);
    // A change of the group takes set-group-id away.
    if kind != FileType::Symlink && (wanted != mode || stat.st_gid != group.id) {
        rustix::fs::chmodat(directory, name, Mode::from_raw_mode(wanted), AtFlags::empty())?;
    }
    Ok(())
}

fn rights(kind: FileType, is_readonly: bool) -> u32 {
    let read_write = if is_readonly { 0o440 } else { 0o660 };
    if kind == FileType::Directory { read_write | 0o2110 } else { read_write }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o7777
    }

    fn own(directory: &Path, policy: ChangePolicy) -> Group {
        Group { id: directory.metadata().unwrap().gid(), policy }
    }

    fn volume() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("inner")).unwrap();
        for name in ["file", "inner/file"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        for (name, mode) in [("file", 0o600), ("inner/file", 0o700), ("inner", 0o700), ("", 0o700)] {
            std::fs::set_permissions(dir.path().join(name), Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        dir
    }

    #[test]
    fn all_files_get_the_rights_and_links_are_not_followed() {
        let dir = volume();
        give(dir.path(), &own(dir.path(), ChangePolicy::Always), false).unwrap();
        let modes = ["", "file", "inner", "inner/file"].map(|name| mode(&dir.path().join(name)));
        assert_eq!(modes, [0o2770, 0o660, 0o2770, 0o760]);
    }

    #[test]
    fn a_readonly_volume_gives_no_right_to_write() {
        let dir = volume();
        give(dir.path(), &own(dir.path(), ChangePolicy::Always), true).unwrap();
        assert_eq!(["file", "inner"].map(|name| mode(&dir.path().join(name))), [0o640, 0o2750]);
    }

    #[test]
    fn a_root_that_fits_says_that_all_of_it_does() {
        let dir = volume();
        let group = own(dir.path(), ChangePolicy::OnRootMismatch);
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o2770)).unwrap();
        give(dir.path(), &group, false).unwrap();
        assert_eq!(mode(&dir.path().join("file")), 0o600);
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o750)).unwrap();
        give(dir.path(), &group, false).unwrap();
        assert_eq!(mode(&dir.path().join("file")), 0o660);
    }
}
