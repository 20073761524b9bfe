//! The forker: receives requests on descriptor 0, clones a child for each, answers with its pid and pidfd.
//!
//! It has one thread and never runs a program's code itself. It ends when the agent closes its socket.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Passed, Step, fail, outer, owners, run, sort};
use crate::plan::{JailPlan, NamespaceKind};
use crate::start::message::{self, Failure, Reply, Request};
use crate::sys::{
    self,
    process::{Born, Cloned},
};

/// Runs a forker until its agent is gone. The agent's executable calls this first thing, before any thread exists,
/// when its first argument is [`crate::start::FORKER_ARGUMENT`].
pub fn forker() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("forker: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Step<()> {
    // One that replaces another is started by an agent with a higher priority, which is not for containers.
    if rustix::process::getpriority_process(None).is_ok_and(|niceness| niceness < 0) {
        rustix::process::setpriority_process(None, 0).map_err(|errno| fail("lower the priority", errno))?;
    }
    // The socket moves away from 0, where a child's stdin belongs.
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)
        .map_err(|errno| fail("take the socket", errno))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| fail("open /dev/null", errno))?;
    sys::process::dup_to(null.as_fd(), 0).map_err(|error| fail("free stream 0", error))?;
    let own_pid_namespace =
        rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| fail("open the pid namespace", errno))?;
    while let Some(((), descriptors)) =
        message::receive_small::<()>(&socket).map_err(|error| fail("receive a request", error))?
    {
        let answer = match request(descriptors) {
            Ok((plan, passed, cgroup)) => make(&plan, passed, cgroup, &own_pid_namespace),
            Err(failure) => Err(failure),
        };
        let sent = match answer {
            Ok((pid, pidfd)) => message::send(&socket, &Reply::Started { pid }, &[pidfd.as_fd()]),
            Err(failure) => message::send(&socket, &Reply::failed(failure), &[]),
        };
        sent.map_err(|error| fail("answer a request", error))?;
    }
    Ok(())
}

fn request(mut descriptors: Vec<OwnedFd>) -> Step<(JailPlan, Passed, Option<OwnedFd>)> {
    let broken = |reason: &str| Failure {
        step: "read a request".into(),
        reason: reason.into(),
        errno: None,
        invalid: false,
    };
    if descriptors.is_empty() {
        return Err(broken("it carries no plan"));
    }
    let mut text = Vec::new();
    File::from(descriptors.remove(0)).read_to_end(&mut text).map_err(|error| fail("read a plan", error))?;
    let request: Request<'_> = serde_json::from_slice(&text).map_err(|error| broken(&error.to_string()))?;
    let (passed, cgroup) = sort(&request.descriptors, descriptors)
        .ok_or_else(|| broken("its descriptors do not match its roles"))?;
    Ok((request.plan.into_owned(), passed, cgroup))
}

fn make(
    plan: &JailPlan,
    mut passed: Passed,
    cgroup: Option<OwnedFd>,
    own_pid_namespace: &OwnedFd,
) -> Step<(i32, OwnedFd)> {
    passed.trees = owners::trees(plan, &passed)?;
    if outer::is_needed(plan) {
        outer::start(plan, passed, cgroup)
    } else {
        start(plan, passed, cgroup, own_pid_namespace)
    }
}

fn start(
    plan: &JailPlan,
    passed: Passed,
    cgroup: Option<OwnedFd>,
    own_pid_namespace: &OwnedFd,
) -> Step<(i32, OwnedFd)> {
    let joined = passed.namespaces.iter().find(|(kind, _)| *kind == NamespaceKind::Pid);
    if let Some((_, fd)) = joined {
        move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::ProcessID))
            .map_err(|errno| super::refuse("join the pid namespace", errno))?;
    }
    let cloned = sys::process::clone_child(Born {
        cgroup: cgroup.as_ref().map(|fd| fd.as_fd()),
        new_pid: plan.namespaces.is_new(NamespaceKind::Pid),
        ..Born::default()
    });
    if matches!(cloned, Ok(Cloned::Child)) {
        run(plan, passed);
    }
    if joined.is_some() {
        // A second setns turns the first one off: the next child is born where the forker itself is.
        move_into_link_name_space(own_pid_namespace.as_fd(), Some(LinkNameSpaceType::ProcessID))
            .map_err(|errno| fail("return to the guest's pid namespace", errno))?;
    }
    match cloned {
        Ok(Cloned::Parent { pid, pidfd }) => Ok((pid, pidfd)),
        Ok(Cloned::Child) => unreachable!("the child never returns"),
        Err(error) => Err(fail("clone the process", error)),
    }
}
