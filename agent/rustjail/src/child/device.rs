//! Device nodes and links below a container's `/dev`.

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use super::root::Root;
use super::{Step, fail, refuse};
use crate::mount;
use crate::plan::{DeviceKind, DeviceNode};

/// Makes a node. One that is there already stays if it is the same device, else it is replaced: an image's own file
/// in its place must not stand in for a device.
pub(super) fn make(root: &Root, node: &DeviceNode) -> Step<()> {
    let step = || format!("make the device {}", node.path.display());
    let (parent, name) = root.parent(&node.path).map_err(|errno| refuse(step(), errno))?;
    let kind = kind(node);
    let device = rustix::fs::makedev(node.major, node.minor);
    let mode = Mode::from_raw_mode(node.mode);
    let made = match rustix::fs::mknodat(&parent, name, kind, mode, device) {
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| fail(step(), errno))?;
            if FileType::from_raw_mode(stat.st_mode) == kind && stat.st_rdev == device {
                Ok(())
            } else {
                rustix::fs::unlinkat(&parent, name, AtFlags::empty())
                    .and_then(|()| rustix::fs::mknodat(&parent, name, kind, mode, device))
            }
        }
        other => other,
    };
    made.map_err(|errno| refuse(step(), errno))?;
    // mknod's mode is cut by the umask, and a kept node has a mode of its own.
    rustix::fs::chmodat(&parent, name, mode, AtFlags::empty()).map_err(|errno| fail(step(), errno))?;
    let owner = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    rustix::fs::chownat(&parent, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| fail(step(), errno))
}

/// Shows a node of the guest, where none can be made: that of the same path, which must be the same device.
pub(super) fn bind(root: &Root, node: &DeviceNode) -> Step<()> {
    if node.kind == DeviceKind::Fifo {
        return make(root, node);
    }
    let step = || format!("show the device {}", node.path.display());
    let tree = mount::clone_tree(&node.path, false).map_err(|error| refuse(step(), error.source))?;
    let stat = rustix::fs::fstat(&tree).map_err(|errno| fail(step(), errno))?;
    let device = rustix::fs::makedev(node.major, node.minor);
    if stat.st_rdev != device || FileType::from_raw_mode(stat.st_mode) != kind(node) {
        return Err(refuse(step(), Errno::NODEV));
    }
    let place = root.mount_point(&node.path, false).map_err(|errno| refuse(step(), errno))?;
    mount::attach(tree.as_fd(), place.as_fd()).map_err(|errno| fail(step(), errno))
}

fn kind(node: &DeviceNode) -> FileType {
    match node.kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
    }
}

/// Makes a symbolic link. An existing link stays; `/dev/ptmx` is replaced, since it must lead to the container's own
/// terminals.
pub(super) fn link(root: &Root, link: &Path, target: &str) -> Step<()> {
    let step = || format!("link {} to {target}", link.display());
    let (parent, name) = root.parent(link).map_err(|errno| refuse(step(), errno))?;
    match rustix::fs::symlinkat(target, &parent, name) {
        Err(Errno::EXIST) if link.ends_with("ptmx") => rustix::fs::unlinkat(&parent, name, AtFlags::empty())
            .and_then(|()| rustix::fs::symlinkat(target, &parent, name))
            .map_err(|errno| fail(step(), errno)),
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(fail(step(), errno)),
    }
}
