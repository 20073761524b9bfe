//! The files of a running machine.

use std::fs;
use std::path::{Path, PathBuf};

use super::{VmError, machine, share};

/// The sockets and logs of one machine. Dropping it removes them.
#[derive(Debug)]
pub(super) struct RunFiles {
    pub(super) dir: PathBuf,
}

impl RunFiles {
    pub(super) fn create(dir: &Path) -> Result<Self, VmError> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| VmError::io("create", dir.display(), source))?;
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

    pub(super) fn console_log(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    fn remove_files(&self) {
        for path in
            [self.vhost_socket(), self.vsock_socket(), self.qemu_log(), self.device_log(), self.console_log()]
        {
            drop(fs::remove_file(path));
        }
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
