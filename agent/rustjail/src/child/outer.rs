//! A process between the forker and the child, where the child's namespaces want one.
//!
//! A time namespace takes its offsets before anybody is in it, and is entered by being born. Namespaces belong to a user
//! namespace only if they are made inside of it, but those that are joined may belong to the guest's: they are joined
//! before, and file systems that show them are mounted. None of it is for the forker, which could not go back. So the forker
//! makes this process, which does all that, makes the child, gives it its ids and ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Passed, Step, fail, foreign, join, refuse, run};
use crate::plan::{IdMapping, IdMappings, JailPlan, NamespaceKind};
use crate::start::message::{self, Failure, Reply};
use crate::start::standstill::{Awaited, Birthplace, Patience};
use crate::sys::{
    self,
    process::{Born, Cloned},
};

/// How long such a process may take: it does little, and keeps the forker from its next request.
const PATIENCE: Patience = Patience { held: Duration::from_secs(1), all: Duration::from_secs(10) };

/// Whether a plan wants such a process. A further process of a container only joins, which the child can do itself.
pub(super) fn is_needed(plan: &JailPlan) -> bool {
    plan.rootfs.is_some()
        && (plan.namespaces.has(NamespaceKind::User) || plan.namespaces.is_new(NamespaceKind::Time))
}

/// Makes the child by way of such a process, and gives the child's pid and pidfd.
pub(super) fn start(plan: &JailPlan, passed: Passed, cgroup: Option<OwnedFd>) -> Step<(i32, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| fail("make a socket", errno))?;
    let born = Born { cgroup: cgroup.as_ref().map(|fd| fd.as_fd()), ..Born::default() };
    let birthplace = Birthplace::new(born.cgroup);
    let (pid, pidfd) = match sys::process::clone_child(born) {
        Ok(Cloned::Child) => {
            drop(ours);
            run_outer(plan, passed, &theirs)
        }
        Ok(Cloned::Parent { pid, pidfd }) => (pid, pidfd),
        Err(error) => return Err(fail("clone the process", error)),
    };
    drop(theirs);
    const STEP: &str = "make the process in its namespaces";
    let broken = |reason: &str| fail(STEP, io::Error::other(reason));
    // The forker has nothing else to do meanwhile, so others wait too.
    match birthplace.wait(&ours, pid, PATIENCE) {
        Ok(Awaited::Heard) => {}
        Ok(Awaited::Held(hold)) => {
            drop(sys::process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL));
            return Err(Failure { reason: hold.to_string(), ..fail(STEP, rustix::io::Errno::TIMEDOUT) });
        }
        Ok(Awaited::Nothing) => {
            drop(sys::process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL));
            return Err(fail(STEP, rustix::io::Errno::TIMEDOUT));
        }
        Err(error) => return Err(fail(STEP, error)),
    }
    match message::receive::<Reply>(&ours) {
        Ok(Some((Reply::Started { pid }, mut carried))) => {
            carried.pop().map(|pidfd| (pid, pidfd)).ok_or_else(|| broken("no pidfd came"))
        }
        Ok(Some((Reply::Failed(failure), _))) => Err(failure),
        Ok(None) => Err(match birthplace.out_of_memory() {
            Some(shortage) => {
                Failure { reason: shortage.to_string(), ..fail(STEP, rustix::io::Errno::NOMEM) }
            }
            None => broken("the process before it was killed"),
        }),
        Err(error) => Err(fail(STEP, error)),
    }
}

fn run_outer(plan: &JailPlan, mut passed: Passed, socket: &OwnedFd) -> ! {
    let sent = match prepare(plan, &mut passed).and_then(|()| clone(plan)) {
        Ok(Cloned::Child) => run(plan, passed),
        Ok(Cloned::Parent { pid, pidfd }) => match map(plan, pid) {
            Ok(()) => message::send(socket, &Reply::Started { pid }, &[pidfd.as_fd()]),
            Err(failure) => {
                // It waits for its first order; nobody will give it.
                drop(sys::process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL));
                message::send(socket, &Reply::failed(failure), &[])
            }
        },
        Err(failure) => message::send(socket, &Reply::failed(failure), &[]),
    };
    sys::process::exit_now(i32::from(sent.is_err()))
}

/// What needs the guest's own privileges, or has to be so before the child is born.
fn prepare(plan: &JailPlan, passed: &mut Passed) -> Step<()> {
    super::protect_from_oom(plan)?;
    super::raise_limits(plan)?;
    if plan.namespaces.is_new(NamespaceKind::Time) {
        sys::process::unshare(libc::CLONE_NEWTIME).map_err(|error| fail("make a time namespace", error))?;
        let offsets: String = plan
            .namespaces
            .time_offsets
            .iter()
            .map(|offset| format!("{} {} {}\n", offset.clock, offset.seconds, offset.nanoseconds))
            .collect();
        if !offsets.is_empty() {
            std::fs::write("/proc/self/timens_offsets", &offsets)
                .map_err(|error| refuse(format!("set the clocks to {:?}", offsets.trim_end()), error))?;
        }
    }
    let namespaces = std::mem::take(&mut passed.namespaces);
    for (_, fd) in namespaces.iter().filter(|(kind, _)| *kind == NamespaceKind::Pid) {
        move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::ProcessID))
            .map_err(|errno| refuse("join the pid namespace", errno))?;
    }
    let is_user = |(kind, _): &(NamespaceKind, OwnedFd)| *kind == NamespaceKind::User;
    let (users, others): (Vec<_>, Vec<_>) = namespaces.into_iter().partition(is_user);
    join(&others)?;
    // Here are both the namespaces and the guest's privileges.
    passed.trees.extend(foreign::mounts(plan, &others)?);
    join(&users)
}

fn clone(plan: &JailPlan) -> Step<Cloned> {
    let born = Born {
        new_pid: plan.namespaces.is_new(NamespaceKind::Pid),
        new_user: plan.namespaces.is_new(NamespaceKind::User),
        ..Born::default()
    };
    sys::process::clone_child(born).map_err(|error| fail("clone the process", error))
}

fn map(plan: &JailPlan, pid: i32) -> Step<()> {
    if plan.namespaces.is_new(NamespaceKind::User) {
        write_maps(pid, &plan.namespaces.mappings)?;
    }
    Ok(())
}

/// Gives a process's new user namespace its ids (`user_namespaces(7)`).
pub(super) fn write_maps(pid: i32, mappings: &IdMappings) -> Step<()> {
    for (file, list) in [("uid_map", &mappings.uids), ("gid_map", &mappings.gids)] {
        let text: String = list
            .iter()
            .map(|IdMapping { container, host, size }| format!("{container} {host} {size}\n"))
            .collect();
        std::fs::write(format!("/proc/{pid}/{file}"), &text).map_err(|error| {
            refuse(format!("set the user namespace's {file} to {:?}", text.trim_end()), error)
        })?;
    }
    Ok(())
}
