//! Directories of the host that the guest mounts by virtio-fs.
//!
//! Each share has a virtiofsd process and a socket. The process ends with its machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::VmError;
use super::host::{VIRTIOFSD_FIX, find_tool, present};
use super::nursery::{Nursery, Ward};

/// The daemon.
const TOOL: &str = "virtiofsd";
/// Where distributions put the daemon, besides PATH.
const PLACES: [&str; 3] = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd"];

/// The daemon's program: the one that `PITH_VIRTIOFSD` names, or one on PATH, or where distributions put it.
pub fn find_virtiofsd() -> Option<PathBuf> {
    let installed = || PLACES.iter().map(PathBuf::from).find(|place| place.is_file());
    find_tool(TOOL, "PITH_VIRTIOFSD").or_else(installed)
}

/// A directory that the guest mounts as file system type `virtiofs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The directory of the host.
    pub directory: PathBuf,
    /// The tag that the guest mounts, at most 36 bytes.
    pub tag: String,
}

/// Socket of the share at an index, in a machine's directory.
pub(super) fn socket(run_dir: &Path, index: usize) -> PathBuf {
    run_dir.join(format!("share{index}.sock"))
}

/// Starts a daemon for each share, and waits until all listen.
pub(super) async fn start(nursery: &Nursery, run_dir: &Path, shares: &[Share]) -> Result<Vec<Ward>, VmError> {
    let mut daemons = Vec::new();
    if shares.is_empty() {
        return Ok(daemons);
    }
    let binary = find_virtiofsd().ok_or(VmError::MissingTool { tool: TOOL, fix: VIRTIOFSD_FIX })?;
    let binary = present(binary, TOOL, "PITH_VIRTIOFSD")?;
    for (index, share) in shares.iter().enumerate() {
        let (socket, log) = (socket(run_dir, index), run_dir.join(format!("share{index}.log")));
        drop(std::fs::remove_file(&socket));
        let with = |head: &str, path: &Path| {
            let mut word = OsString::from(head);
            word.push(path);
            word
        };
        // Both QEMU's daemon and its successor in Rust understand these.
        let mut command = Command::new(&binary);
        command.arg(with("--socket-path=", &socket)).arg("-o").arg(with("source=", &share.directory));
        command.args(["-o", "cache=auto"]);
        if !nix::unistd::geteuid().is_root() {
            // The daemon locks itself into the directory with root's rights; without them it has the user's, and no more.
            command.arg("--sandbox=none");
        }
        let mut daemon = nursery.spawn(command, &log)?;
        if !daemon.listens(&socket).await {
            let messages = std::fs::read_to_string(&log).unwrap_or_default();
            let (directory, messages) = (share.directory.clone(), messages.trim().to_owned());
            return Err(VmError::Share { directory, messages });
        }
        daemons.push(daemon);
    }
    Ok(daemons)
}

/// Removes what [`start`] left in a machine's directory.
pub(super) fn remove_files(run_dir: &Path) {
    for index in 0.. {
        let socket = socket(run_dir, index);
        let log = socket.with_extension("log");
        drop(std::fs::remove_file(&socket));
        // QEMU's daemon puts a lock beside its socket elsewhere; ours are these two.
        if std::fs::remove_file(log).is_err() {
            return;
        }
    }
}
