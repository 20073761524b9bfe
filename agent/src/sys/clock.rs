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

/// Lets the real-time clock jump by so many microseconds, at once and without losing what passes meanwhile. Whoever waits
/// for its being set is told, as with `timerfd_settime(2)` and TFD_TIMER_CANCEL_ON_SET.
pub(crate) fn step(microseconds: i64) -> io::Result<()> {
    // SAFETY: timex is plain numbers, for which zero is a value.
    let mut order: libc::timex = unsafe { mem::zeroed() };
    order.modes = libc::ADJ_SETOFFSET;
    order.time.tv_sec = microseconds.div_euclid(1_000_000);
    order.time.tv_usec = microseconds.rem_euclid(1_000_000);
    // SAFETY: the kernel reads and writes one timex behind the pointer, which lives until the call returns.
    match unsafe { libc::adjtimex(&raw mut order) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
