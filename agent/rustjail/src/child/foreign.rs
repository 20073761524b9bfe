//! File systems that show a namespace which the container's user namespace does not own, as `/sys` of the pod's network:
//! mounted with the guest's privileges by the process before the child; the child only attaches them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitId, WaitIdOptions};

use super::owners::Trees;
use super::{Failure, Step, fail, refuse};
use crate::mount;
use crate::plan::{JailPlan, MountPlan, NamespaceKind};
use crate::start::message::{self, Reply};
use crate::sys::{
    self,
    process::{Born, Cloned},
};

/// Makes those of a plan. The caller is in the namespaces that were joined, but for the pid namespace, in which its children
/// will be.
pub(super) fn mounts(plan: &JailPlan, joined: &[(NamespaceKind, OwnedFd)]) -> Step<Trees> {
    let joins_pid = joined.iter().any(|(kind, _)| *kind == NamespaceKind::Pid);
    let mounts = plan.rootfs.iter().flat_map(|rootfs| rootfs.mounts.iter().enumerate());
    mounts
        .filter_map(|(index, mount)| mount.foreign.map(|kind| (index, mount, kind)))
        .map(|(index, mount, kind)| {
            let made = if kind == NamespaceKind::Pid && joins_pid { in_child(mount) } else { make(mount) };
            Ok((index, made?))
        })
        .collect()
}

fn step(mount: &MountPlan) -> String {
    format!("mount the guest's {}", mount.destination.display())
}

fn make(mount: &MountPlan) -> Step<OwnedFd> {
    mount::detached(mount).map_err(|error| {
        let text = error.to_string();
        let failure = refuse(step(mount), error.source);
        Failure { reason: format!("{text}: {}", failure.reason), ..failure }
    })
}

/// By a process that is born where the mount's maker has to be, and ends with it.
fn in_child(mount: &MountPlan) -> Step<OwnedFd> {
    let failed = |error: std::io::Error| fail(step(mount), error);
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| failed(errno.into()))?;
    let born = Born { own: true, ..Born::default() };
    let pidfd = match sys::process::clone_child(born).map_err(failed)? {
        Cloned::Child => {
            let sent = match make(mount) {
                Ok(made) => message::send(&theirs, &Reply::Started { pid: 0 }, &[made.as_fd()]),
                Err(failure) => message::send(&theirs, &Reply::failed(failure), &[]),
            };
            sys::process::exit_now(i32::from(sent.is_err()))
        }
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    drop(theirs);
    let heard = message::receive::<Reply>(&ours);
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
        .map_err(|errno| failed(errno.into()))?;
    match heard.map_err(failed)? {
        Some((Reply::Started { .. }, mut carried)) => {
            carried.pop().ok_or_else(|| failed(std::io::Error::other("no mount came")))
        }
        Some((Reply::Failed(failure), _)) => Err(failure),
        None => Err(failed(std::io::Error::other("the process that makes it was killed"))),
    }
}
