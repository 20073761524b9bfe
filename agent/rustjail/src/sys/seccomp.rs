//! seccomp(2): puts a filter on the calling process.

use std::ffi::{c_int, c_long, c_uint};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use crate::seccomp::{Filter, Instruction};

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    length: u16,
    filter: *const Instruction,
}

const SECCOMP_SET_MODE_FILTER: c_uint = 1;
const NEW_LISTENER: u32 = 1 << 3;
const TSYNC: u32 = 1 << 0;
const TSYNC_ESRCH: u32 = 1 << 4;

/// Filters the process's system calls from now on, and those of all that it becomes and makes. Needs `no_new_privs`, or
/// `CAP_SYS_ADMIN` in the user namespace. Gives the listener's descriptor where the filter has one.
pub(crate) fn load(filter: &Filter) -> io::Result<Option<OwnedFd>> {
    let length =
        u16::try_from(filter.program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let mut flags = filter.flags;
    if filter.listener {
        // A thread that cannot be synchronised is told by an error then: the result is a descriptor already.
        flags |= NEW_LISTENER | if flags & TSYNC != 0 { TSYNC_ESRCH } else { 0 };
    }
    let program = Program { length, filter: filter.program.as_ptr() };
    // SAFETY: `program` points to `length` instructions of the kernel's struct sock_filter, whose layout Instruction
    // has; both are only read.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    match result {
        ..0 => Err(io::Error::last_os_error()),
        fd if filter.listener => Ok(Some(owned(fd))),
        // Without TSYNC_ESRCH the id of a thread that stood in the way.
        1.. => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        0 => Ok(None),
    }
}

fn owned(fd: c_long) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd as c_int) }
}
