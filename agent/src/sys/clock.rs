//! adjtimex(2).

use std::io;
use std::mem;

use nix::libc;

/// Lets the real-time clock run faster or slower until it has made up for so many microseconds; what is left of an
/// earlier order is forgotten.
pub(crate) fn slew(microseconds: libc::c_long) -> io::Result<()> {
    // SAFETY: timex is plain numbers, for which zero is a value.
    let mut order: libc::timex = unsafe { mem::zeroed() };
    order.modes = libc::ADJ_OFFSET_SINGLESHOT;
    order.offset = microseconds;
    // SAFETY: the kernel reads and writes one timex behind the pointer, which lives until the call returns.
    match unsafe { libc::adjtimex(&raw mut order) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
