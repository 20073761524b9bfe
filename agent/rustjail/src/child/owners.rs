//! Binds that are made by the forker, with the guest's privileges and its `/proc`; the child only attaches them.
//!
//! Those that show other owners, since the kernel lets nobody else make one; and all of a container in a user namespace,
//! where the guest's mounts are locked together (`mount_namespaces(7)`) and could not be bound one by one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions};

use super::{Passed, Step, fail, outer, refuse};
use crate::mount;
use crate::plan::{IdMappings, JailPlan, MountPlan, MountSource, NamespaceKind};
use crate::sys::{
    self,
    process::{Born, Cloned},
};

/// Detached mounts, by the index of their plan.
pub(super) type Trees = BTreeMap<usize, OwnedFd>;

/// Makes those of a plan.
pub(super) fn trees(plan: &JailPlan, passed: &Passed) -> Step<Trees> {
    let all = plan.namespaces.has(NamespaceKind::User);
    let is_bind = |mount: &MountPlan| matches!(mount.source, MountSource::Bind { .. });
    let mounts = plan.rootfs.iter().flat_map(|rootfs| rootfs.mounts.iter().enumerate());
    mounts
        .filter(|(_, mount)| mount.owners.is_some() || (all && is_bind(mount)))
        .map(|(index, mount)| Ok((index, tree(plan, passed, mount)?)))
        .collect()
}

fn tree(plan: &JailPlan, passed: &Passed, mount: &MountPlan) -> Step<OwnedFd> {
    let MountSource::Bind { path, recursive } = &mount.source else {
        let step = format!("show other owners on {}", mount.destination.display());
        return Err(refuse(step, rustix::io::Errno::INVAL));
    };
    let step = || format!("mount {} on {}", path.display(), mount.destination.display());
    let tree = mount::clone_tree(path, *recursive).map_err(|error| refuse(step(), error.source))?;
    mount::attributed(&tree, mount).map_err(|error| refuse(step(), error.source))?;
    let Some(owners) = &mount.owners else { return Ok(tree) };
    let step = || format!("show other owners on {}", mount.destination.display());
    let change = |namespace: BorrowedFd<'_>| {
        sys::mount::set_owners(tree.as_fd(), namespace, owners.recursive)
            .map_err(|error| refuse(step(), error))
    };
    let joined = passed.namespaces.iter().find(|(kind, _)| *kind == NamespaceKind::User);
    match (&owners.mappings, joined) {
        (Some(mappings), _) => change(user_namespace(mappings)?.as_fd())?,
        (None, Some((_, namespace))) => change(namespace.as_fd())?,
        (None, None) => change(user_namespace(&plan.namespaces.mappings)?.as_fd())?,
    }
    Ok(tree)
}

/// A user namespace with these ids and nobody in it.
fn user_namespace(mappings: &IdMappings) -> Step<OwnedFd> {
    let born = Born { new_user: true, own: true, ..Born::default() };
    let (pid, pidfd) = match sys::process::clone_child(born) {
        // It only is, until it is killed.
        Ok(Cloned::Child) => loop {
            drop(rustix::thread::nanosleep(&rustix::thread::Timespec { tv_sec: 3600, tv_nsec: 0 }));
        },
        Ok(Cloned::Parent { pid, pidfd }) => (pid, pidfd),
        Err(error) => return Err(fail("make a user namespace", error)),
    };
    let namespace = outer::write_maps(pid, mappings).and_then(|()| {
        let link = crate::start::namespace_link(pid, NamespaceKind::User);
        rustix::fs::open(&link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| fail("open a user namespace", errno))
    });
    let ended = sys::process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL).and_then(|()| {
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
            .map(drop)
            .map_err(Into::into)
    });
    ended.map_err(|error| fail("end the process of a user namespace", error))?;
    namespace
}
