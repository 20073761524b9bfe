//! Opens files that must be regular files.
//!
//! open(2) waits forever on a FIFO, and a device or FIFO may have no end. Promises that opening never waits, and that what is
//! opened is a regular file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;

/// Opens a regular file for reading. A link is followed.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(File::options().read(true), OFlag::empty(), path)
}

/// As [`open`], with options of one's own, and not through a link.
pub fn open_no_link(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    open_with(options, OFlag::O_NOFOLLOW, path)
}

fn open_with(options: &mut OpenOptions, flags: OFlag, path: &Path) -> io::Result<File> {
    let file = options.custom_flags((flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        // A FIFO that nobody reads, opened for writing.
        Some(errno) if errno == nix::errno::Errno::ENXIO as i32 => not_regular(),
        _ => error,
    })?;
    // O_NONBLOCK means nothing for regular files (open(2)).
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        assert!(open(&at("file")).is_ok() && open(&at("link")).is_ok());
        let append = || File::options().append(true).clone();
        for path in [at("fifo"), dir.path().to_path_buf(), "/dev/zero".into()] {
            assert!(open(&path).is_err(), "{}", path.display());
            assert!(open_no_link(&mut append(), &path).is_err(), "{}", path.display());
        }
        assert!(open_no_link(&mut append(), &at("file")).is_ok());
        assert!(open_no_link(&mut append(), &at("link")).is_err());
    }
}
