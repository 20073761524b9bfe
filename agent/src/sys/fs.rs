//! Ioctls of mounted file systems.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

mod ioctl {
    // include/uapi/linux/fs.h: FIFREEZE, FITHAW and FITRIM.
    nix::ioctl_readwrite!(freeze, b'X', 119, std::ffi::c_int);
    nix::ioctl_readwrite!(thaw, b'X', 120, std::ffi::c_int);
    nix::ioctl_readwrite!(trim, b'X', 121, super::Range);
}

/// `struct fstrim_range`.
#[repr(C)]
pub(crate) struct Range {
    start: u64,
    len: u64,
    minlen: u64,
}

/// Writes out what is pending and holds further writes up, until [`thaw`].
pub(crate) fn freeze(directory: BorrowedFd<'_>) -> io::Result<()> {
    let mut unused = 0;
    // SAFETY: the kernel takes no argument; the pointer is to an int that lives until the call returns.
    unsafe { ioctl::freeze(directory.as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// Lets writes go on.
pub(crate) fn thaw(directory: BorrowedFd<'_>) -> io::Result<()> {
    let mut unused = 0;
    // SAFETY: the kernel takes no argument; the pointer is to an int that lives until the call returns.
    unsafe { ioctl::thaw(directory.as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// Tells the disk which blocks are free; gives their bytes.
pub(crate) fn trim(directory: BorrowedFd<'_>) -> io::Result<u64> {
    let mut range = Range { start: 0, len: u64::MAX, minlen: 0 };
    // SAFETY: the kernel reads and writes one range behind the pointer, which lives until the call returns.
    unsafe { ioctl::trim(directory.as_raw_fd(), &raw mut range) }?;
    Ok(range.len)
}
