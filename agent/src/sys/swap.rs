//! swapon(2).

use std::ffi::CStr;
use std::io;

use nix::libc;

/// Starts to swap to a device or file that has a header of mkswap(8).
pub(crate) fn on(path: &CStr) -> io::Result<()> {
    // SAFETY: the path ends with a NUL and lives until the call returns; the kernel only reads it.
    match unsafe { libc::swapon(path.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
