//! Copies what a directory holds into a new file system that will cover it (`tmpcopyup`).
//!
//! Everything goes by descriptors below the two directories and no link is followed, so nothing that the image holds
//! can lead the copy elsewhere.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// Directories within directories that are followed: more than any path can name.
const DEEPEST: u32 = 1024;

/// Copies all of `from`, a directory, into the empty directory `to`, which gets its owner and times too. It gets its
/// mode only where the mount's options name none.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, keeps_mode: bool) -> rustix::io::Result<()> {
    let from = reopen(from)?;
    let to = reopen(to)?;
    let named = rustix::fs::fstat(&to)?.st_mode;
    directory(&from, &to, DEEPEST)?;
    if keeps_mode { Ok(()) } else { rustix::fs::fchmod(&to, Mode::from_raw_mode(named)) }
}

fn reopen(directory: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(directory, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn directory(from: &OwnedFd, to: &OwnedFd, deeper: u32) -> rustix::io::Result<()> {
    let deeper = deeper.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            self::entry(from, to, entry.file_name(), deeper)?;
        }
    }
    finish(to, &rustix::fs::fstat(from)?)?;
    attributes(from, to)
}

fn entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, deeper: u32) -> rustix::io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let plain = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match kind {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let open = |parent| rustix::fs::openat(parent, name, plain | OFlags::DIRECTORY, Mode::empty());
            directory(&open(from)?, &open(to)?, deeper)
        }
        FileType::RegularFile => {
            let source = rustix::fs::openat(from, name, plain | OFlags::NONBLOCK, Mode::empty())?;
            let flags = plain | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            let target = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
            content(&source, &target)?;
            finish(&target, &stat)?;
            attributes(&source, &target)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), to, name)?;
            finish_at(to, name, &stat)
        }
        _ => {
            rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
            rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
            finish_at(to, name, &stat)
        }
    }
}

fn content(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    const PIECE: usize = 1 << 30;
    while rustix::fs::sendfile(to, from, None, PIECE)? > 0 {}
    Ok(())
}

/// Extended attributes, but for those that the new file system does not take.
fn attributes(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    let mut names = vec![0u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(from, names.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut value = vec![0u8; 64 * 1024];
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let length = rustix::fs::fgetxattr(from, name, value.as_mut_slice())?;
        match rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// The owner first: a change of it takes set-user-ID bits away, as it does file capabilities.
fn finish(to: &OwnedFd, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(to, uid, gid)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    rustix::fs::futimens(to, &times(stat))
}

fn finish_at(to: &OwnedFd, name: &CStr, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_tree_is_copied_with_modes_links_and_times() {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        let root = from.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), vec![7; 100_000]).unwrap();
        fs::set_permissions(root.join("a/b/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/etc/passwd", root.join("link")).unwrap();
        let (one, two) = (fs::File::open(root).unwrap(), fs::File::open(to.path()).unwrap());
        copy(one.as_fd(), two.as_fd(), true).unwrap();
        let copied = to.path();
        assert_eq!(fs::read(copied.join("a/b/file")).unwrap(), vec![7; 100_000]);
        assert_eq!(fs::read_link(copied.join("link")).unwrap().to_str(), Some("/etc/passwd"));
        for path in ["a", "a/b", "a/b/file", "."] {
            let (a, b) = (fs::metadata(root.join(path)).unwrap(), fs::metadata(copied.join(path)).unwrap());
            assert_eq!((a.mode(), a.uid(), a.mtime_nsec()), (b.mode(), b.uid(), b.mtime_nsec()), "{path}");
        }
    }

    #[test]
    fn a_mode_that_was_named_stays() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("file"), "text").unwrap();
        fs::set_permissions(from.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(to.path(), fs::Permissions::from_mode(0o2710)).unwrap();
        let (one, two) = (fs::File::open(from.path()).unwrap(), fs::File::open(to.path()).unwrap());
        copy(one.as_fd(), two.as_fd(), false).unwrap();
        assert_eq!(fs::metadata(to.path()).unwrap().mode() & 0o7777, 0o2710);
        assert_eq!(fs::read_to_string(to.path().join("file")).unwrap(), "text");
    }
}
