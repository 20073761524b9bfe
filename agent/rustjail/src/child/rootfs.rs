//! Builds and enters a container's root: mounts, nodes, masks, then `pivot_root` or the move.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use super::owners::Trees;
use super::root::{self, Root};
use super::{Failure, Step, copy_up, device, fail, refuse};
use crate::mount::{self, MountError};
use crate::plan::{
    MountAttributes, MountPlan, MountSource, Propagation, PropagationMode, RDONLY, RootSwitch, RootfsPlan,
};
use crate::sys;

/// Builds the root. `cwd` is made where it is missing; `trees` are mounts that were made for it.
pub(super) fn build(plan: &RootfsPlan, cwd: Option<&Path>, trees: &Trees) -> Step<Root> {
    change_propagation(Path::new("/"), outer_propagation(plan.propagation))
        .map_err(|errno| fail("separate the mount namespace's propagation", errno))?;
    bind_onto_itself(&plan.path)?;
    let root = Root::open(&plan.path)?;
    for (index, mount) in plan.mounts.iter().enumerate() {
        match &mount.source {
            MountSource::Remount { options } => remount(&root, mount, options)?,
            _ => mount_into(&root, mount, trees.get(&index))?,
        }
    }
    for node in &plan.devices {
        if plan.bind_devices { device::bind(&root, node) } else { device::make(&root, node) }?;
    }
    for (link, target) in &plan.links {
        device::link(&root, Path::new(link), target)?;
    }
    for path in &plan.readonly_paths {
        make_readonly(&root, path)?;
    }
    for path in &plan.masked {
        mask(&root, path)?;
    }
    if let Some(cwd) = cwd {
        root.directory(cwd)
            .map_err(|errno| refuse(format!("make the working directory {}", cwd.display()), errno))?;
    }
    Ok(root)
}

/// Makes a finished root `/`.
pub(super) fn switch(plan: &RootfsPlan, root: &Root) -> Step<()> {
    match plan.switch {
        RootSwitch::Pivot => pivot(root),
        RootSwitch::Move => move_root(root, &plan.path),
    }
}

/// What is left once the container's terminal is in place, from inside the root.
pub(super) fn finish(plan: &RootfsPlan) -> Step<()> {
    for mount in plan.mounts.iter().filter(|mount| is_readonly_dev(mount)) {
        let dev = super::open_directory(&mount.destination).map_err(|errno| fail("open /dev", errno))?;
        sys::mount::set_attributes(dev.as_fd(), RDONLY, 0, 0, false)
            .map_err(|error| fail("make /dev read-only", error))?;
    }
    if plan.readonly {
        let slash = super::open_directory(Path::new("/")).map_err(|errno| fail("open the root", errno))?;
        sys::mount::set_attributes(slash.as_fd(), RDONLY, 0, 0, false)
            .map_err(|error| fail("make the root read-only", error))?;
    }
    if plan.propagation_is_final {
        change_propagation(Path::new("/"), plan.propagation)
            .map_err(|errno| fail("set the root's propagation", errno))?;
    }
    Ok(())
}

/// Propagation of the namespace while the root is built: nothing that is mounted inside may show in the guest, unless
/// the spec wants the root shared, and then events must be able to travel.
fn outer_propagation(named: Propagation) -> Propagation {
    let mode = match named.mode {
        PropagationMode::Unbindable => PropagationMode::Slave,
        other => other,
    };
    Propagation { mode, recursive: true }
}

fn change_propagation(path: &Path, change: Propagation) -> rustix::io::Result<()> {
    let mut flags = match change.mode {
        PropagationMode::Private => MountPropagationFlags::PRIVATE,
        PropagationMode::Slave => MountPropagationFlags::DOWNSTREAM,
        PropagationMode::Shared => MountPropagationFlags::SHARED,
        PropagationMode::Unbindable => MountPropagationFlags::UNBINDABLE,
    };
    flags.set(MountPropagationFlags::REC, change.recursive);
    rustix::mount::mount_change(path, flags)
}

/// Makes the root a mount of its own, which can be moved. Neither it nor its parent may be shared
/// (`pivot_root(2)`, EINVAL).
fn bind_onto_itself(path: &Path) -> Step<()> {
    let tree =
        mount::clone_tree(path, true).map_err(|error| of_mount(format!("root {}", path.display()), error))?;
    if !root::is_directory(&tree).map_err(|error| fail("look at the root", error))? {
        return Err(refuse(format!("use {} as a root", path.display()), Errno::NOTDIR));
    }
    let private = Propagation { mode: PropagationMode::Private, recursive: false };
    sys::mount::set_attributes(tree.as_fd(), 0, 0, mount::propagation_bits(private), false)
        .map_err(|error| fail("make the root private", error))?;
    // The mount that holds the root is at the nearest ancestor that is a mount point.
    for ancestor in path.ancestors() {
        match change_propagation(ancestor, private) {
            Ok(()) => break,
            Err(Errno::INVAL) => {}
            Err(errno) => return Err(fail(format!("make {} private", ancestor.display()), errno)),
        }
    }
    let place = super::open_directory(path)
        .map_err(|errno| refuse(format!("open the root {}", path.display()), errno))?;
    mount::attach(tree.as_fd(), place.as_fd())
        .map_err(|errno| fail(format!("bind {}", path.display()), errno))
}

/// Changes what is mounted at a place already.
fn remount(root: &Root, plan: &MountPlan, options: &[(String, Option<String>)]) -> Step<()> {
    let subject = || format!("remount {}", plan.destination.display());
    let place = root.lookup(&plan.destination).map_err(|errno| refuse(subject(), errno))?;
    mount::change_at(place.as_fd(), plan, options).map_err(|error| of_mount(subject(), error))?;
    mount::propagate(place.as_fd(), plan).map_err(|error| of_mount(subject(), error))
}

fn mount_into(root: &Root, plan: &MountPlan, tree: Option<&OwnedFd>) -> Step<()> {
    let subject = || match &plan.source {
        MountSource::Bind { path, .. } => {
            format!("mount {} on {}", path.display(), plan.destination.display())
        }
        MountSource::Filesystem { fstype, .. } => format!("mount {fstype} on {}", plan.destination.display()),
        MountSource::Remount { .. } => format!("remount {}", plan.destination.display()),
    };
    let mut plan_now = plan.clone();
    if is_readonly_dev(plan) {
        // Its nodes are still to be made, and the terminal's console.
        plan_now.attributes.set &= !RDONLY;
    }
    if plan.copy_up {
        // Read-only only after it has its content.
        plan_now.attributes.set &= !RDONLY;
    }
    // What is missing is made as any mount point. It has nothing to copy and no mode to keep: the file system that covers it
    // is open to all.
    let covered = if plan.keeps_mode || plan.copy_up {
        match root.lookup(&plan.destination) {
            Err(Errno::NOENT) => None,
            other => Some(other.map_err(|errno| refuse(subject(), errno))?),
        }
    } else {
        None
    };
    if let (Some(covered), false) = (&covered, plan.copy_up) {
        keep_mode(covered, &mut plan_now).map_err(|errno| refuse(subject(), errno))?;
    }
    let mount = match tree {
        Some(tree) => tree.try_clone().map_err(|source| MountError {
            operation: "keep a mount".into(),
            log: None,
            source,
        }),
        None => mount::detached(&plan_now),
    };
    let mount = mount.map_err(|error| of_mount(subject(), error))?;
    let directory = match &plan.source {
        MountSource::Bind { .. } => root::is_directory(&mount).map_err(|error| fail(subject(), error))?,
        MountSource::Filesystem { .. } | MountSource::Remount { .. } => true,
    };
    let place = root.mount_point(&plan.destination, directory).and_then(|place| {
        // A link at /proc or /sys could send the real one elsewhere, and leave masks on a copy.
        if plan.is_kernel_view() { root.lookup_plain(&plan.destination) } else { Ok(place) }
    });
    let place = place.map_err(|errno| refuse(format!("{}: open the mount point", subject()), errno))?;
    if plan.copy_up {
        if covered.is_some() {
            copy_up::copy(place.as_fd(), mount.as_fd(), plan.keeps_mode)
                .map_err(|errno| fail(format!("{}: copy what it covers", subject()), errno))?;
        }
        sys::mount::set_attributes(mount.as_fd(), plan.attributes.set & RDONLY, 0, 0, false)
            .map_err(|error| fail(subject(), error))?;
    }
    mount::attach(mount.as_fd(), place.as_fd()).map_err(|errno| refuse(subject(), errno))?;
    mount::propagate(mount.as_fd(), plan).map_err(|error| of_mount(subject(), error))
}

/// Gives a new tmpfs the permissions of the directory that it is to cover.
fn keep_mode(covered: &OwnedFd, plan: &mut MountPlan) -> rustix::io::Result<()> {
    let mode = rustix::fs::fstat(covered)?.st_mode & 0o7777;
    if let MountSource::Filesystem { options, .. } = &mut plan.source {
        options.push(("mode".into(), Some(format!("{mode:o}"))));
    }
    Ok(())
}

fn is_readonly_dev(plan: &MountPlan) -> bool {
    plan.destination == Path::new("/dev")
        && plan.attributes.set & RDONLY != 0
        && matches!(plan.source, MountSource::Filesystem { .. })
}

fn of_mount(step: String, error: MountError) -> Failure {
    let text = error.to_string();
    let failure = refuse(step, error.source);
    Failure { reason: format!("{text}: {}", failure.reason), ..failure }
}

fn make_readonly(root: &Root, path: &str) -> Step<()> {
    let step = || format!("make {path} read-only");
    let place = match root.lookup(Path::new(path)) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => other.map_err(|errno| fail(step(), errno))?,
    };
    let copy = mount::clone_at(place.as_fd(), true).map_err(|errno| fail(step(), errno))?;
    sys::mount::set_attributes(copy.as_fd(), RDONLY, 0, 0, true).map_err(|error| fail(step(), error))?;
    mount::attach(copy.as_fd(), place.as_fd()).map_err(|errno| fail(step(), errno))
}

/// Hides a path: a directory behind an empty read-only one, anything else behind the guest's `/dev/null` (the
/// container's own could be something else).
fn mask(root: &Root, path: &str) -> Step<()> {
    let step = || format!("mask {path}");
    let place = match root.lookup(Path::new(path)) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => other.map_err(|errno| fail(step(), errno))?,
    };
    let cover = if root::is_directory(&place).map_err(|error| fail(step(), error))? {
        let readonly = MountAttributes { set: RDONLY, clear: 0 };
        mount::filesystem("tmpfs", "tmpfs", &[("size".into(), Some("4k".into()))], readonly)
    } else {
        mount::clone_tree(Path::new("/dev/null"), false)
    };
    let cover = cover.map_err(|error| of_mount(step(), error))?;
    mount::attach(cover.as_fd(), place.as_fd()).map_err(|errno| fail(step(), errno))
}

fn pivot(root: &Root) -> Step<()> {
    let old = super::open_directory(Path::new("/")).map_err(|errno| fail("open the old root", errno))?;
    rustix::process::fchdir(root.fd()).map_err(|errno| fail("enter the root", errno))?;
    // Both the same directory: the old root ends up on top of the new one, and is detached from there
    // (pivot_root(2), NOTES).
    rustix::process::pivot_root(".", ".").map_err(|errno| fail("pivot_root", errno))?;
    // What `.` is now is the kernel's choice: what follows must not happen to the new one.
    rustix::process::fchdir(&old).map_err(|errno| fail("enter the old root", errno))?;
    change_propagation(Path::new("."), Propagation { mode: PropagationMode::Slave, recursive: true })
        .map_err(|errno| fail("separate the old root", errno))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(|errno| fail("detach the old root", errno))?;
    rustix::process::chdir("/").map_err(|errno| fail("enter the new root", errno))
}

/// Moves the root onto `/`. The guest's other mounts are detached then, so that nothing of them can be reached from
/// below the container's root.
fn move_root(root: &Root, path: &Path) -> Step<()> {
    let others = outer_mounts(path)?;
    rustix::process::fchdir(root.fd()).map_err(|errno| fail("enter the root", errno))?;
    // Where the spec wants the root shared the guest's mounts still are: the move and the unmounts would happen to the
    // guest too. What is below the root keeps its propagation.
    for other in std::iter::once(Path::new("/")).chain(others.iter().map(PathBuf::as_path)) {
        let private = Propagation { mode: PropagationMode::Private, recursive: !path.starts_with(other) };
        match change_propagation(other, private) {
            // Covered by a mount above it.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(fail(format!("make {} private", other.display()), errno)),
        }
    }
    let slash = super::open_directory(Path::new("/")).map_err(|errno| fail("open the old root", errno))?;
    mount::attach(root.fd(), slash.as_fd()).map_err(|errno| fail("move the root onto /", errno))?;
    for other in others.iter().rev() {
        match rustix::mount::unmount(other, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Gone with a mount above it.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(fail(format!("detach {}", other.display()), errno)),
        }
    }
    rustix::process::chroot(".").map_err(|errno| fail("enter the new root", errno))?;
    rustix::process::chdir("/").map_err(|errno| fail("enter the new root", errno))
}

/// Mount points outside the root, in the order in which they were mounted.
fn outer_mounts(root: &Path) -> Step<Vec<PathBuf>> {
    let mounts = mountinfo::mounts().map_err(|error| fail("read mountinfo", error))?;
    let points = mounts.into_iter().map(|mount| mount.point);
    Ok(points.filter(|point| point != Path::new("/") && !point.starts_with(root)).collect())
}

/// Attaches a mount at a path of the process's own root, as the terminal at `/dev/console`.
pub(super) fn attach_at(mount: impl AsFd, path: &Path) -> rustix::io::Result<()> {
    let place = rustix::fs::openat(
        CWD,
        path,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    mount::attach(mount.as_fd(), place.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shared_root_lets_events_out() {
        let of = |mode| outer_propagation(Propagation { mode, recursive: false }).mode;
        assert_eq!(of(PropagationMode::Shared), PropagationMode::Shared);
        assert_eq!(of(PropagationMode::Unbindable), PropagationMode::Slave);
        assert_eq!(of(PropagationMode::Private), PropagationMode::Private);
    }
}
