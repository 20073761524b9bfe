//! Attributes of the calling process that the wrapped interfaces lack: scheduling, execution domain, session keyring.

use std::ffi::{c_int, c_long, c_ulong};
use std::io;

use crate::plan::Scheduler;

fn done(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `struct sched_attr`, version 0 (48 bytes).
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets the scheduling policy and its parameters (`sched_setattr(2)`).
pub(crate) fn set_scheduler(scheduler: &Scheduler) -> io::Result<()> {
    const SIZE: u32 = size_of::<SchedAttr>() as u32;
    let attr = SchedAttr {
        size: SIZE,
        policy: scheduler.policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    };
    // SAFETY: `attr` is a sched_attr whose first field says how long it is; it is only read.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0 as c_int, &raw const attr, 0 as c_int) }).map(drop)
}

/// Sets the I/O scheduling class and level (`ioprio_set(2)`).
pub(crate) fn set_io_priority(priority: u32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: c_int = 1;
    // SAFETY: takes integers only.
    done(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0 as c_int, priority) }).map(drop)
}

/// Sets the execution domain (`personality(2)`).
pub(crate) fn set_personality(persona: u64) -> io::Result<()> {
    // SAFETY: takes an integer only.
    done(unsafe { libc::syscall(libc::SYS_personality, persona as c_ulong) }).map(drop)
}

/// Joins a new session keyring without a name, and lets only who possesses it see or use it (`keyctl(2)`). A kernel
/// without keys is no error.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    const KEYCTL_SETPERM: c_int = 5;
    const KEY_POS_ALL: c_ulong = 0x3f00_0000;
    // SAFETY: a null name asks for an anonymous keyring.
    let joined = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    match done(joined) {
        Ok(serial) => {
            // SAFETY: takes integers only.
            done(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, KEY_POS_ALL) }).map(drop)
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        Err(error) => Err(error),
    }
}
