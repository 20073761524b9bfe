//! Directories that only this user can enter.
//!
//! In a directory that others can write to, somebody else may have made the directory first, or a link to another one. Promises
//! that what [`make`] or [`check`] accepts is a directory, belongs to this user, and cannot be entered by anybody else except
//! root.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;

/// Makes the directory, with what is missing above it, or accepts the one that is there.
///
/// # Errors
/// As [`check`], and when it cannot be made.
pub fn make(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => check(dir),
    }
}

/// As [`make`]; a directory of this user's that others can enter, but not write to, is shut to them.
///
/// # Errors
/// As [`make`].
pub fn claim(dir: &Path) -> io::Result<()> {
    let Err(error) = make(dir) else { return Ok(()) };
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let open = File::options().read(true).custom_flags(flags.bits()).open(dir)?;
    let metadata = open.metadata()?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        return Err(error);
    }
    open.set_permissions(Permissions::from_mode(0o700))?;
    check(dir)
}

/// Accepts the directory that is there.
///
/// # Errors
/// When there is none, or one that is not this user's alone, with what is wrong.
pub fn check(dir: &Path) -> io::Result<()> {
    match problem(&fs::symlink_metadata(dir)?, nix::unistd::geteuid().as_raw()) {
        None => Ok(()),
        Some(problem) => Err(io::Error::new(io::ErrorKind::PermissionDenied, problem)),
    }
}

fn problem(metadata: &Metadata, user: u32) -> Option<String> {
    let mode = metadata.mode() & 0o7777;
    if metadata.is_symlink() {
        Some("it is a link".to_owned())
    } else if !metadata.is_dir() {
        Some("it is not a directory".to_owned())
    } else if metadata.uid() != user {
        Some("it belongs to another user".to_owned())
    } else if mode & 0o077 != 0 {
        Some(format!("others can enter it (its mode is {mode:04o}); `chmod 700` shuts them out"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_users_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        let metadata = fs::symlink_metadata(dir.path()).unwrap();
        assert_eq!(problem(&metadata, metadata.uid()), None);
        assert!(problem(&metadata, metadata.uid() + 1).unwrap().contains("another user"));
    }

    #[test]
    fn what_is_made_is_private() {
        let dir = tempfile::tempdir().unwrap();
        make(&dir.path().join("a/b")).unwrap();
        make(&dir.path().join("a/b")).unwrap();
        assert_eq!(fs::metadata(dir.path().join("a/b")).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_is_claimed_is_shut_unless_others_could_have_been_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let set = |mode| fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
        set(0o755);
        claim(dir.path()).unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);
        set(0o775);
        assert!(claim(dir.path()).is_err());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(claim(&link).is_err());
    }
}
