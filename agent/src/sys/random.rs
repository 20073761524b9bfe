//! The entropy pool's ioctls (random(4)).

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

mod ioctl {
    // include/uapi/linux/random.h: RNDADDTOENTCNT is _IOW('R', 1, int), RNDRESEEDCRNG is _IO('R', 7).
    nix::ioctl_write_ptr!(add_to_entropy_count, b'R', 1, std::ffi::c_int);
    nix::ioctl_none!(reseed, b'R', 7);
}

/// Counts what was written to the pool as so many bits of entropy.
pub(crate) fn credit(pool: BorrowedFd<'_>, bits: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one int behind the pointer, which lives until the call returns.
    unsafe { ioctl::add_to_entropy_count(pool.as_raw_fd(), &bits) }?;
    Ok(())
}

/// Makes the kernel's generator take new seed from the pool.
pub(crate) fn reseed(pool: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: this ioctl has no argument.
    unsafe { ioctl::reseed(pool.as_raw_fd()) }?;
    Ok(())
}
