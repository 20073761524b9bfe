//! The child's side: runs in the forker and in the single-threaded processes it clones, never in the agent.
//!
//! Executes a [`JailPlan`] step by step and decides nothing. Every failure names its step; it reaches the agent
//! through the handshake, before the program runs.

mod command;
mod console;
mod device;
mod forker;
mod identity;
mod root;
mod rootfs;

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub use forker::forker;

use crate::plan::{JailPlan, NamespaceKind};
use crate::start::message::{self, Failure, Order, Report, Role};
use crate::sys;

/// A step that failed.
type Step<T> = Result<T, Failure>;

/// Turns a system error into a failure of the step that `step` names. `invalid` tells whether the request is at fault.
fn fail(step: impl Into<String>, error: impl Into<io::Error>) -> Failure {
    let error: io::Error = error.into();
    Failure { step: step.into(), errno: error.raw_os_error(), reason: error.to_string(), invalid: false }
}

/// As [`fail`], for steps whose failure the request causes when it names what is not there or cannot be.
fn refuse(step: impl Into<String>, error: impl Into<io::Error>) -> Failure {
    use rustix::io::Errno;
    let failure = fail(step, error);
    let invalid = matches!(
        failure.errno.map(Errno::from_raw_os_error),
        Some(
            Errno::NOENT
                | Errno::NOTDIR
                | Errno::ISDIR
                | Errno::INVAL
                | Errno::NODEV
                | Errno::NXIO
                | Errno::LOOP
                | Errno::NAMETOOLONG
                | Errno::ACCESS
                | Errno::EXIST
                | Errno::XDEV
                | Errno::ROFS
        )
    );
    Failure { invalid, ..failure }
}

/// The descriptors of a child, by role.
struct Passed {
    handshake: OwnedFd,
    streams: [Option<OwnedFd>; 3],
    namespaces: Vec<(NamespaceKind, OwnedFd)>,
}

/// Runs in the child, from clone to `execve`. Never returns.
fn run(plan: &JailPlan, passed: Passed) -> ! {
    match message::receive::<Order>(&passed.handshake) {
        Ok(Some((Order::Continue, _))) => {}
        // The agent gave the process up before it began.
        _ => sys::process::exit_now(1),
    }
    let handshake = passed.handshake.as_fd();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| execute(plan, &passed)));
    let failure = match outcome {
        Ok(Ok(never)) => match never {},
        Ok(Err(End::Abandoned)) => sys::process::exit_now(1),
        Ok(Err(End::Failed(failure))) => failure,
        Ok(Err(End::NotExecuted(failure))) => {
            let code = command::exit_code(failure.errno);
            report(handshake, &Report::ExecFailed(failure));
            sys::process::exit_now(code)
        }
        Err(_) => Failure {
            step: "build the jail".into(),
            reason: "the child panicked".into(),
            errno: None,
            invalid: false,
        },
    };
    report(handshake, &Report::Failed(failure));
    sys::process::exit_now(1)
}

/// Tells the agent; if it no longer listens there is nobody left to tell.
fn report(handshake: BorrowedFd<'_>, report: &Report) {
    drop(message::send(handshake, report, &[]));
}

/// How a child ends that executes no program.
enum End {
    /// A step failed before the agent was told that all is ready.
    Failed(Failure),
    /// `execve` failed after that.
    NotExecuted(Failure),
    /// The agent no longer wants it.
    Abandoned,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Failed(failure)
    }
}

fn execute(plan: &JailPlan, passed: &Passed) -> Result<std::convert::Infallible, End> {
    sys::process::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(plan.identity.umask));
    if let Some(value) = plan.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", value.to_string())
            .map_err(|error| fail("set oom_score_adj", error))?;
    }
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| fail("open the guest's /dev/null", errno))?;
    if !passed.namespaces.is_empty() {
        // From here on processes of the container may see this one; they must not be able to trace it or to reach its
        // descriptors before execve.
        capctl::prctl::set_dumpable(false)
            .map_err(|error| fail("hide from the container", io::Error::from_raw_os_error(error.code())))?;
    }
    join(&passed.namespaces)?;
    separate(plan)?;
    rustix::process::setsid().map_err(|errno| fail("make a session", errno))?;
    name_host(plan)?;
    set_sysctls(plan)?;
    if let Some(rootfs) = &plan.rootfs {
        rootfs::enter(rootfs, plan.command.create_cwd.then_some(plan.command.cwd.as_path()))?;
    }
    let terminal = plan.terminal.map(console::open).transpose()?;
    if let Some(rootfs) = &plan.rootfs {
        rootfs::finish(rootfs)?;
    }
    for limit in &plan.rlimits {
        sys::process::set_rlimit(limit.resource, limit.soft, limit.hard)
            .map_err(|error| refuse(format!("set rlimit number {}", limit.resource), error))?;
    }
    let streams = Streams { passed: &passed.streams, null: null.as_fd() };
    match &terminal {
        Some(terminal) => console::control(terminal, plan.identity.uid)?,
        None => streams.take(plan.identity.uid, plan.identity.gid)?,
    }
    let program = command::enter(plan)?;
    sys::process::close_on_exec_from(3).map_err(|error| fail("close inherited descriptors", error))?;
    let master: Vec<BorrowedFd<'_>> = terminal.iter().map(|terminal| terminal.master.as_fd()).collect();
    if message::send(&passed.handshake, &Report::Ready, &master).is_err() {
        return Err(End::Abandoned);
    }
    if plan.wait_for_start {
        wait_for_go(passed.handshake.as_fd())?;
    }
    Err(End::NotExecuted(program.execute()))
}

/// Waits for the agent's go for as long as it takes: a container may stay created for days.
fn wait_for_go(handshake: BorrowedFd<'_>) -> Result<(), End> {
    match message::receive::<Order>(handshake) {
        Ok(Some((Order::Go, _))) => Ok(()),
        _ => Err(End::Abandoned),
    }
}

fn join(namespaces: &[(NamespaceKind, OwnedFd)]) -> Step<()> {
    for kind in NamespaceKind::ALL {
        // The forker joined the pid namespace already: it takes effect in children only (setns(2)).
        for (_, fd) in namespaces.iter().filter(|(other, _)| *other == kind && kind != NamespaceKind::Pid) {
            // With the type: a path that leads to a namespace of another kind is an error, not a surprise.
            move_into_link_name_space(fd.as_fd(), Some(link_type(kind)))
                .map_err(|errno| refuse(format!("join the {} namespace", kind.proc_name()), errno))?;
        }
    }
    Ok(())
}

fn link_type(kind: NamespaceKind) -> LinkNameSpaceType {
    match kind {
        NamespaceKind::Pid => LinkNameSpaceType::ProcessID,
        NamespaceKind::User => LinkNameSpaceType::User,
        NamespaceKind::Network => LinkNameSpaceType::Network,
        NamespaceKind::Ipc => LinkNameSpaceType::InterProcessCommunication,
        NamespaceKind::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        NamespaceKind::Cgroup => LinkNameSpaceType::ControlGroup,
        NamespaceKind::Mount => LinkNameSpaceType::Mount,
    }
}

fn separate(plan: &JailPlan) -> Step<()> {
    let flags = plan.namespaces.new.iter().fold(0, |flags, kind| flags | unshare_flag(*kind));
    if flags == 0 {
        return Ok(());
    }
    sys::process::unshare(flags).map_err(|error| fail("make new namespaces", error))
}

fn unshare_flag(kind: NamespaceKind) -> c_int {
    match kind {
        // Made by the clone itself.
        NamespaceKind::Pid => 0,
        NamespaceKind::User => libc::CLONE_NEWUSER,
        NamespaceKind::Network => libc::CLONE_NEWNET,
        NamespaceKind::Ipc => libc::CLONE_NEWIPC,
        NamespaceKind::Uts => libc::CLONE_NEWUTS,
        NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP,
        NamespaceKind::Mount => libc::CLONE_NEWNS,
    }
}

fn name_host(plan: &JailPlan) -> Step<()> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(|errno| fail("set the hostname", errno))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).map_err(|errno| fail("set the domain name", errno))?;
    }
    Ok(())
}

/// Writes sysctls through the guest's own `/proc`: the keys follow the writer's namespaces, and the container's root,
/// which could show something else there, is not entered yet.
fn set_sysctls(plan: &JailPlan) -> Step<()> {
    for (key, value) in &plan.sysctls {
        std::fs::write(format!("/proc/sys/{key}"), value)
            .map_err(|error| refuse(format!("set sysctl {key} to {value:?}"), error))?;
    }
    Ok(())
}

/// Standard streams that are pipes or `/dev/null`.
struct Streams<'a> {
    passed: &'a [Option<OwnedFd>; 3],
    null: BorrowedFd<'a>,
}

impl Streams<'_> {
    fn take(&self, uid: u32, gid: u32) -> Step<()> {
        for (number, stream) in (0..).zip(self.passed) {
            let source = stream.as_ref().map_or(self.null, |fd| fd.as_fd());
            if stream.is_some() && (uid, gid) != (0, 0) {
                // So that a user's process can open /dev/stdout again.
                let owner = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
                rustix::fs::fchown(source, Some(owner.0), Some(owner.1))
                    .map_err(|errno| fail(format!("give stream {number} to the user"), errno))?;
            }
            sys::process::dup_to(source, number)
                .map_err(|error| fail(format!("set up stream {number}"), error))?;
        }
        Ok(())
    }
}

/// Sorts received descriptors by the roles of the request.
fn sort(roles: &[Role], descriptors: Vec<OwnedFd>) -> Option<(Passed, Option<OwnedFd>)> {
    let (mut handshake, mut cgroup) = (None, None);
    let (mut streams, mut namespaces) = ([None, None, None], Vec::new());
    if roles.len() != descriptors.len() {
        return None;
    }
    for (role, fd) in roles.iter().zip(descriptors) {
        match role {
            Role::Handshake => handshake = Some(fd),
            Role::Cgroup => cgroup = Some(fd),
            Role::Stream(number) => *streams.get_mut(usize::from(*number))? = Some(fd),
            Role::Namespace(kind) => namespaces.push((*kind, fd)),
        }
    }
    Some((Passed { handshake: handshake?, streams, namespaces }, cgroup))
}

/// Opens a directory by its path in the caller's own root.
fn open_directory(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
