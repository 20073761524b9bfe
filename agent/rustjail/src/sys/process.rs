//! Making, replacing and signalling processes.

use std::ffi::{CString, c_char, c_int, c_long, c_uint, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Which side of [`clone_child`] returned.
pub(crate) enum Cloned {
    /// The caller, with the child's pid in the caller's pid namespace and a pidfd.
    Parent {
        /// Process id.
        pid: i32,
        /// Descriptor of the process, close-on-exec.
        pidfd: OwnedFd,
    },
    /// The child.
    Child,
}

/// `struct clone_args` of `clone3(2)`, version 2 (88 bytes).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_NEWUSER: u64 = 0x1000_0000;
const CLONE_NEWPID: u64 = 0x2000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a clone is, besides a copy of its caller.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Born<'a> {
    /// Directory of the cgroup it is born in; none stays in the caller's.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Whether it is pid 1 of a new pid namespace.
    pub(crate) new_pid: bool,
    /// Whether it is in a new user namespace, to which its other new namespaces belong.
    pub(crate) new_user: bool,
    /// Whether it is the caller's own child, which the caller waits for, and not its sibling.
    pub(crate) own: bool,
}

/// Makes a child, as a rule its caller's sibling: the caller's parent is told of its end (`clone3(2)`).
///
/// It has a copy of the caller's memory, so the caller must have one thread only: this is for the forker.
pub(crate) fn clone_child(born: Born<'_>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let flag = |is_set: bool, flag: u64| if is_set { flag } else { 0 };
    // With CLONE_PARENT exit_signal stays 0: the child takes the forker's own, SIGCHLD, and the kernel refuses another.
    let mut args = CloneArgs {
        flags: CLONE_PIDFD
            | flag(!born.own, CLONE_PARENT)
            | flag(born.new_pid, CLONE_NEWPID)
            | flag(born.new_user, CLONE_NEWUSER),
        pidfd: &raw mut pidfd as u64,
        exit_signal: flag(born.own, libc::SIGCHLD as u64),
        ..CloneArgs::default()
    };
    let cgroup = born.cgroup;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args of the size given and outlives the call; without CLONE_VM the child runs on
    // its own copy of this stack, and the forker has one thread, so no lock is held by a thread that is gone.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        0 => Ok(Cloned::Child),
        1.. => {
            // SAFETY: the kernel stored a new descriptor in `pidfd`, which nothing else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid: pid as i32, pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Leaves the namespaces named by `CLONE_NEW*` flags for new ones (`unshare(2)`).
pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: takes an integer only; called in a single-threaded child.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Replaces the process's program (`execve(2)`); returns only on failure.
pub(crate) fn execve(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let list = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (list(args), list(env));
    // SAFETY: all three point to NUL-terminated strings, the lists end with a null pointer, and all outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends the process at once, without running destructors or exit handlers that belong to the forker.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Sets every signal's disposition to its default and blocks none: a program must not inherit ours. Rust's runtime
/// ignores SIGPIPE, and glibc's posix_spawn leaves its own two signals (32 and 33) ignored, which its signal(3) will not
/// change: so this asks the kernel itself.
pub(crate) fn reset_signals() {
    /// `struct kernel_sigaction`: handler, flags, restorer, mask. All zero is SIG_DFL.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_BYTES: usize = 8;
    for signal in 1..=64 {
        // SAFETY: the action is a kernel_sigaction that is only read, and the old one is not asked for; a refusal
        // (SIGKILL, SIGSTOP) changes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal as c_long,
                DEFAULT.as_ptr(),
                std::ptr::null_mut::<c_void>(),
                MASK_BYTES,
            )
        };
    }
    // SAFETY: the set is initialised by sigemptyset before use, and the old mask is not asked for.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Marks every descriptor from `first` on as close-on-exec (`close_range(2)`).
pub(crate) fn close_on_exec_from(first: c_uint) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: c_uint = 4;
    // SAFETY: takes integers only; no descriptor is closed now.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `target` a copy of `source` that survives `execve` (`dup2(2)`), even where they are the same descriptor.
pub(crate) fn dup_to(source: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    let result = if source.as_raw_fd() == target {
        // dup2 onto itself does nothing, and so would leave close-on-exec set.
        // SAFETY: clears a flag of a descriptor that is open as long as `source` lives.
        unsafe { libc::fcntl(target, libc::F_SETFD, 0) }
    } else {
        // SAFETY: `source` is open; in the child nothing else owns descriptors 0 to 2.
        unsafe { libc::dup2(source.as_raw_fd(), target) }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets a limit of this process (`prlimit(2)`). Values are in the resource's unit; `u64::MAX` is no limit.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = [soft, hard];
    // SAFETY: the kernel's struct rlimit64 is two u64, soft then hard; it is only read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0 as c_long,
            c_long::from(resource),
            limit.as_ptr().cast::<c_void>(),
            std::ptr::null_mut::<c_void>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raises the ceiling of a limit of this process, where it is below `hard`; the limit itself stays.
pub(crate) fn raise_hard_limit(resource: u32, hard: u64) -> io::Result<()> {
    let mut now = [0u64; 2];
    // SAFETY: the new limit is not given; `now` has the two u64 of struct rlimit64, which the kernel fills.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0 as c_long,
            c_long::from(resource),
            std::ptr::null::<c_void>(),
            now.as_mut_ptr().cast::<c_void>(),
        )
    };
    match result {
        0 if now[1] < hard => set_rlimit(resource, now[0], hard),
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends a signal to the process behind a pidfd (`pidfd_send_signal(2)`): never to another one that took its pid.
///
/// Signal 0 only asks whether the process exists.
///
/// # Errors
/// `ESRCH` once the process has been waited for, `EINVAL` for a number that is no signal.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open, the information pointer may be null (then kill(2)'s defaults are used).
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null_mut::<libc::siginfo_t>(),
            0 as c_uint,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a number is a signal of Linux: 0 (a probe) to 64.
pub fn signal_is_valid(signal: u32) -> bool {
    signal <= 64
}
