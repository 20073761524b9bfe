//! Mounts that one container of the pod makes and another is given, as a sidecar that mounts a file system for the rest.
//!
//! The source container is known by its Kubernetes name. Both paths are resolved inside the root of their container, in
//! its mount namespace, on a thread that enters the two one after the other and then ends.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use crate::cancel::Cancel;
use crate::error::{ErrorKind, Kind, kind_of_errno};

/// Annotation that names a container within its pod.
pub(crate) const NAME_ANNOTATION: &str = "io.kubernetes.container.name";
/// How long the source may take to be mounted, and how often it is looked for.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// A mount of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SharedMount {
    /// What it is called in errors.
    pub(crate) name: String,
    /// Kubernetes name of the container that mounts.
    pub(crate) source_container: String,
    /// Where it mounts, in its own root.
    pub(crate) source_path: String,
    /// Kubernetes name of the container that is given the mount.
    pub(crate) destination_container: String,
    /// Where it is given, in that one's root.
    pub(crate) destination_path: String,
}

/// Why a mount is not shared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SharedMountError {
    /// No container of the pod has the name.
    #[error("shared mount {mount:?}: no running container is named {container:?}")]
    NoContainer {
        /// Which mount.
        mount: String,
        /// The name.
        container: String,
    },
    /// The source did not become a mount.
    #[error("shared mount {mount:?}: nothing was mounted on {path:?} of {container:?} within {} s", PATIENCE.as_secs())]
    NotMounted {
        /// Which mount.
        mount: String,
        /// Source container.
        container: String,
        /// Source path.
        path: String,
    },
    /// A path leads nowhere, or the kernel refused.
    #[error("shared mount {mount:?}: {operation}")]
    Io {
        /// Which mount.
        mount: String,
        /// What was being done.
        operation: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Kind for SharedMountError {
    fn kind(&self) -> ErrorKind {
        match self {
            SharedMountError::NoContainer { .. } => ErrorKind::Invalid,
            SharedMountError::NotMounted { .. } => ErrorKind::Timeout,
            SharedMountError::Io { source, .. } => match source.raw_os_error() {
                Some(nix::libc::ENOENT | nix::libc::ENOTDIR | nix::libc::ELOOP | nix::libc::EXDEV) => {
                    ErrorKind::Invalid
                }
                errno => kind_of_errno(errno),
            },
        }
    }
}

/// Shows a mount of the first process's namespace in that of the second. Blocks.
pub(super) fn share(
    mount: &SharedMount,
    source: i32,
    destination: i32,
    cancel: &Cancel,
) -> Result<(), SharedMountError> {
    let (work, cancel) = (mount.clone(), cancel.clone());
    let thread = std::thread::Builder::new()
        .name("shared-mount".into())
        .spawn(move || enter(&work, source, destination, &cancel));
    let failed = |source| SharedMountError::Io {
        mount: mount.name.clone(),
        operation: "start a thread".into(),
        source,
    };
    thread.map_err(failed)?.join().unwrap_or_else(|_| Err(failed(io::Error::other("panicked"))))
}

fn enter(
    mount: &SharedMount,
    source: i32,
    destination: i32,
    cancel: &Cancel,
) -> Result<(), SharedMountError> {
    let failed = |operation: String, source: io::Error| SharedMountError::Io {
        mount: mount.name.clone(),
        operation,
        source,
    };
    let open = |pid: i32| {
        let path = format!("/proc/{pid}/ns/mnt");
        std::fs::File::open(&path).map_err(|error| failed(format!("open {path}"), error))
    };
    let (from, to) = (open(source)?, open(destination)?);
    // A namespace of mounts is only entered with a root and working directory of one's own.
    nix::sched::unshare(CloneFlags::CLONE_FS)
        .map_err(|errno| failed("leave the agent's root".into(), errno.into()))?;
    let join = |namespace: &std::fs::File| {
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS)
            .map_err(|errno| failed("enter a mount namespace".into(), errno.into()))
    };
    join(&from)?;
    let found = await_mount(Path::new(&mount.source_path), cancel).map_err(|error| {
        failed(format!("find {:?} in {:?}", mount.source_path, mount.source_container), error)
    })?;
    let found = found.ok_or_else(|| SharedMountError::NotMounted {
        mount: mount.name.clone(),
        container: mount.source_container.clone(),
        path: mount.source_path.clone(),
    })?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(&found, c"", flags)
        .map_err(|errno| failed(format!("copy the mount on {:?}", mount.source_path), errno.into()))?;
    join(&to)?;
    let place = inside(Path::new(&mount.destination_path)).map_err(|error| {
        failed(format!("find {:?} in {:?}", mount.destination_path, mount.destination_container), error)
    })?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree.as_fd(), c"", place.as_fd(), c"", flags)
        .map_err(|errno| failed(format!("mount on {:?}", mount.destination_path), errno.into()))
}

/// A path of this thread's root, which is a container's: links cannot lead out of it.
fn inside(path: &Path) -> io::Result<OwnedFd> {
    let root =
        rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// Waits until something is mounted on a path; none when nothing is in time, or nobody wants it any more.
fn await_mount(path: &Path, cancel: &Cancel) -> io::Result<Option<OwnedFd>> {
    let start = Instant::now();
    loop {
        match inside(path) {
            Ok(found) => {
                let status = rustix::fs::statx(&found, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
                if status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
                    return Ok(Some(found));
                }
            }
            // The container may be about to make it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if start.elapsed() >= PATIENCE || cancel.is_cancelled() {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}
