//! The files of a running machine.

use std::fs;
use std::path::{Path, PathBuf};

use super::{VmError, console, machine, share};
use store::{private, segments};

/// The sockets and logs of one machine. Dropping it removes them.
#[derive(Debug)]
pub(super) struct RunFiles {
    pub(super) dir: PathBuf,
}

impl RunFiles {
    pub(super) fn create(dir: &Path) -> Result<Self, VmError> {
        private::claim(dir).map_err(|source| VmError::io("use", dir.display(), source))?;
        let dir = dir.canonicalize().map_err(|source| VmError::io("resolve", dir.display(), source))?;
        let files = Self { dir };
        let longest = files.vhost_socket();
        // sockaddr_un.sun_path holds 108 bytes with its NUL.
        if longest.as_os_str().len() > 107 {
            return Err(VmError::PathTooLong { path: longest });
        }
        files.remove_files();
        Ok(files)
    }

    pub(super) fn vhost_socket(&self) -> PathBuf {
        self.dir.join("vhost.sock")
    }

    pub(super) fn vsock_socket(&self) -> PathBuf {
        self.dir.join("vsock.sock")
    }

    pub(super) fn qemu_log(&self) -> PathBuf {
        self.dir.join("qemu.log")
    }

    pub(super) fn device_log(&self) -> PathBuf {
        self.dir.join("vsock.log")
    }

    /// For their owner only, whatever the umask was when they were made. The directory lets nobody else in either.
    pub(super) fn close_sockets(&self) {
        use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
                // One that is gone this instant needs no mode.
                drop(fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o600)));
            }
        }
    }

    fn remove_files(&self) {
        for path in [self.vhost_socket(), self.vsock_socket(), self.qemu_log(), self.device_log()] {
            drop(fs::remove_file(path));
        }
        segments::remove(&self.dir, console::NAME);
        drop(fs::remove_file(machine::qmp_socket(&self.dir)));
        share::remove_files(&self.dir);
    }

    /// Removes our files, and the directory when nothing else is in it.
    pub(super) fn remove(&self) {
        self.remove_files();
        drop(fs::remove_dir(&self.dir));
    }
}

impl Drop for RunFiles {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_files_refuse_a_path_no_socket_can_have() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(100));
        assert!(matches!(RunFiles::create(&long), Err(VmError::PathTooLong { .. })));
    }

    #[test]
    fn run_files_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let files = RunFiles::create(&run).unwrap();
        fs::write(files.qemu_log(), "x").unwrap();
        drop(files);
        assert!(!run.exists());
    }
}
