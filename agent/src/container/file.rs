//! Files of a container that the agent reads itself. What is there is the container's choice: a link that leads away, a pipe
//! that would block, a device.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};

/// Opens a regular file of a container for reading. Links do not lead out of `root`; what is no regular file is an error, and is
/// not opened: to open a device or a pipe can block, wake a writer, or do something.
pub(super) fn open(root: impl AsFd, path: &Path) -> io::Result<File> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    Ok(reopen(&found, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?)
}

/// A path by which the kernel opens anew what a descriptor refers to, whatever has its name by now.
pub(crate) fn magic(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Opens what was found.
pub(crate) fn reopen(fd: impl AsFd, flags: OFlags) -> rustix::io::Result<File> {
    rustix::fs::openat(CWD, magic(fd), flags | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        // A writer hears, by another error than this one, as soon as somebody opens the pipe for reading.
        let write = OFlags::WRONLY | OFlags::NONBLOCK;
        let is_read = || rustix::fs::openat(&root, "pipe", write, Mode::empty()).is_ok();
        let looking = std::thread::scope(|scope| {
            let looked = scope.spawn(|| (0..20_000).any(|_| is_read()));
            while !looked.is_finished() {
                assert_eq!(open(&root, Path::new("pipe")).unwrap_err().kind(), io::ErrorKind::InvalidData);
            }
            looked.join().unwrap()
        });
        assert!(!looking);
        std::fs::write(dir.path().join("file"), "text").unwrap();
        assert_eq!(io::read_to_string(open(&root, Path::new("file")).unwrap()).unwrap(), "text");
        assert!(open(&root, Path::new("none")).is_err());
    }
}
