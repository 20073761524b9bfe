//! The child's side: runs in the forker and in the single-threaded processes it clones, never in the agent.
//!
//! Executes a [`JailPlan`] step by step and decides nothing. Every failure names its step; it reaches the agent
//! through the handshake, before the program runs.

mod command;
mod console;
mod copy_up;
mod device;
mod filter;
mod foreign;
mod forker;
mod hook;
mod identity;
mod label;
mod outer;
mod owners;
mod root;
mod rootfs;

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub use forker::forker;

use crate::plan::{JailPlan, NamespaceKind, Rlimit};
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
    /// Mounts that were made for it.
    trees: owners::Trees,
}

/// Runs in the child, from clone to `execve`. Never returns.
fn run(plan: &JailPlan, passed: Passed) -> ! {
    match message::receive_small::<Order>(&passed.handshake) {
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
            report(handshake, &Report::exec_failed(failure));
            sys::process::exit_now(code)
        }
        Ok(Err(End::NoProgram(failure))) => {
            let (code, words) = (command::exit_code(failure.errno), format!("{failure}\n"));
            // The agent first: the stream may be a full pipe.
            report(handshake, &Report::exec_failed(failure));
            command::say(words.as_bytes());
            sys::process::exit_now(code)
        }
        Err(_) => Failure {
            step: "build the jail".into(),
            reason: "the child panicked".into(),
            errno: None,
            invalid: false,
        },
    };
    report(handshake, &Report::failed(failure));
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
    /// A step failed after that.
    NotExecuted(Failure),
    /// `execve` itself failed. Whoever reads the container's output is told too, as by other runtimes and by shells.
    NoProgram(Failure),
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
    // While the root is built; the program's own comes last.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    set_affinity(&plan.attributes.initial_cpus)?;
    if !outer::is_needed(plan) {
        protect_from_oom(plan)?;
        raise_limits(plan)?;
    }
    // As the guest sees it, for hooks that run in its root.
    let pid = own_pid()?;
    let mut labels = label::open(&plan.attributes)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| fail("open the guest's /dev/null", errno))?;
    if !passed.namespaces.is_empty() {
        // From here on processes of the container may see this one; they must not be able to trace it or to reach its
        // descriptors before execve.
        capctl::prctl::set_dumpable(false)
            .map_err(|error| fail("hide from the container", io::Error::from_raw_os_error(error.code())))?;
    }
    let foreign_ids = plan.namespaces.has(NamespaceKind::User)
        || passed.namespaces.iter().any(|(kind, _)| *kind == NamespaceKind::User);
    join(&passed.namespaces)?;
    if foreign_ids {
        become_root()?;
    }
    separate(plan)?;
    rustix::process::setsid().map_err(|errno| fail("make a session", errno))?;
    sys::attribute::new_session_keyring().map_err(|error| fail("make a session keyring", error))?;
    name_host(plan)?;
    set_sysctls(plan)?;
    if let Some(rootfs) = &plan.rootfs {
        let cwd = plan.command.create_cwd.then_some(plan.command.cwd.as_path());
        let root = rootfs::build(rootfs, cwd, &passed.trees)?;
        if plan.stop_for_hooks {
            stop(passed.handshake.as_fd())?;
        }
        let hooks = &plan.hooks;
        hook::run(&hooks.create_container, hooks, "createContainer", "creating", pid)?;
        rootfs::switch(rootfs, &root)?;
    }
    let terminal = plan.terminal.map(console::open).transpose()?;
    if let Some(rootfs) = &plan.rootfs {
        rootfs::finish(rootfs)?;
    }
    if let Some(scheduler) = &plan.attributes.scheduler {
        sys::attribute::set_scheduler(scheduler).map_err(|error| refuse("set the scheduler", error))?;
    }
    if let Some(priority) = plan.attributes.io_priority {
        sys::attribute::set_io_priority(priority).map_err(|error| refuse("set the I/O priority", error))?;
    }
    set_affinity(&plan.attributes.cpus)?;
    if let Some(persona) = plan.attributes.personality {
        sys::attribute::set_personality(persona).map_err(|error| refuse("set the personality", error))?;
    }
    let streams = Streams { passed: &passed.streams, null: null.as_fd(), foreign_ids };
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
        wait(passed.handshake.as_fd(), &Order::Go)?;
    }
    let mut last = || -> Step<()> {
        let hooks = &plan.hooks;
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        hook::run(&hooks.start_container, hooks, "startContainer", "created", pid)?;
        for limit in &plan.rlimits {
            // The last, since what comes before may need more.
            sys::process::set_rlimit(limit.resource, limit.soft, limit.hard)
                .map_err(|error| limit_refused("set the soft", limit, limit.soft, error))?;
        }
        labels.write()?;
        filter::install(plan, passed.handshake.as_fd())
    };
    last().map_err(End::NotExecuted)?;
    Err(End::NoProgram(program.execute()))
}

/// Tells the agent that the root is built, and waits for its hooks: the guest's root is still there for what they mount.
fn stop(handshake: BorrowedFd<'_>) -> Result<(), End> {
    if message::send(handshake, &Report::Built, &[]).is_err() {
        return Err(End::Abandoned);
    }
    wait(handshake, &Order::Enter)
}

/// Waits for an order for as long as it takes: a container may stay created for days.
fn wait(handshake: BorrowedFd<'_>, order: &Order) -> Result<(), End> {
    match message::receive_small::<Order>(handshake) {
        Ok(Some((received, _))) if received == *order => Ok(()),
        _ => Err(End::Abandoned),
    }
}

/// Raises ceilings while the process may; to lower them needs no privilege.
fn raise_limits(plan: &JailPlan) -> Step<()> {
    plan.rlimits.iter().try_for_each(|limit| {
        sys::process::raise_hard_limit(limit.resource, limit.hard)
            .map_err(|error| limit_refused("raise the hard", limit, limit.hard, error))
    })
}

/// The one limit that the guest's root cannot have at will is that of open files.
fn limit_refused(verb: &str, limit: &Rlimit, value: u64, error: io::Error) -> Failure {
    let value = if value == u64::MAX { "no limit".to_owned() } else { value.to_string() };
    let ceiling =
        limit.is_open_files().then(|| std::fs::read_to_string("/proc/sys/fs/nr_open").ok()).flatten();
    let ceiling = ceiling.map(|text| format!(", where fs.nr_open is {}", text.trim())).unwrap_or_default();
    let step = format!("{verb} {} to {value}{ceiling}", limit.name());
    let failure = refuse(step, error);
    let denied = failure.errno == Some(rustix::io::Errno::PERM.raw_os_error());
    Failure { invalid: failure.invalid || denied, ..failure }
}

/// Never the agent's own value, which protects it. Below what it has now it needs the guest's privileges.
fn protect_from_oom(plan: &JailPlan) -> Step<()> {
    let Some(value) = plan.oom_score_adj else { return Ok(()) };
    std::fs::write("/proc/self/oom_score_adj", value.to_string())
        .map_err(|error| fail("set oom_score_adj", error))
}

/// The process's id in the guest's pid namespace, which its `/proc` is of.
fn own_pid() -> Step<i32> {
    let link = std::fs::read_link("/proc/self").map_err(|error| fail("read /proc/self", error))?;
    link.to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| fail("read /proc/self", io::ErrorKind::InvalidData))
}

fn set_affinity(cpus: &[u32]) -> Step<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = rustix::thread::CpuSet::new();
    for cpu in cpus {
        let cpu = *cpu as usize;
        if cpu >= rustix::thread::CpuSet::MAX_CPU {
            return Err(refuse(format!("run on CPU {cpu}"), rustix::io::Errno::INVAL));
        }
        set.set(cpu);
    }
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|errno| refuse(format!("run on the CPUs {cpus:?}"), errno))
}

/// Becomes the first user of a user namespace; who comes from outside is nobody there.
fn become_root() -> Step<()> {
    let step = "become the user namespace's root";
    rustix::thread::set_thread_groups(&[]).map_err(|errno| fail(step, errno))?;
    let (uid, gid) = (rustix::thread::Uid::ROOT, rustix::thread::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|errno| refuse(step, errno))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|errno| refuse(step, errno))?;
    // A change of ids makes a process dumpable again (prctl(2)).
    capctl::prctl::set_dumpable(false)
        .map_err(|error| fail("hide from the container", io::Error::from_raw_os_error(error.code())))
}

/// Joins namespaces; the user namespace last, where the guest's privileges end.
fn join(namespaces: &[(NamespaceKind, OwnedFd)]) -> Step<()> {
    let (user, others): (Vec<_>, Vec<_>) =
        NamespaceKind::ALL.into_iter().partition(|kind| *kind == NamespaceKind::User);
    for kind in others.into_iter().chain(user) {
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
        NamespaceKind::Time => LinkNameSpaceType::Time,
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
        // Made by the clone itself, or before it.
        NamespaceKind::Pid | NamespaceKind::User | NamespaceKind::Time => 0,
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
    /// Whether a user namespace may keep the streams' owner from being changed.
    foreign_ids: bool,
}

impl Streams<'_> {
    fn take(&self, uid: u32, gid: u32) -> Step<()> {
        for (number, stream) in (0..).zip(self.passed) {
            let source = stream.as_ref().map_or(self.null, |fd| fd.as_fd());
            if stream.is_some() && (uid, gid) != (0, 0) {
                // So that a user's process can open /dev/stdout again.
                let owner = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
                match rustix::fs::fchown(source, Some(owner.0), Some(owner.1)) {
                    Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL) if self.foreign_ids => {}
                    given => {
                        given.map_err(|errno| fail(format!("give stream {number} to the user"), errno))?
                    }
                }
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
    Some((Passed { handshake: handshake?, streams, namespaces, trees: owners::Trees::new() }, cgroup))
}

/// Opens a directory by its path in the caller's own root.
fn open_directory(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
