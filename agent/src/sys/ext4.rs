//! The ioctl that grows a mounted ext4 (`fs/ext4/ioctl.c` of the kernel).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

mod ioctl {
    // include/uapi/linux/ext4.h: EXT4_IOC_RESIZE_FS is _IOW('f', 16, __u64).
    nix::ioctl_write_ptr!(resize, b'f', 16, u64);
}

/// Grows the file system that has this file or directory to so many of its blocks.
pub(crate) fn grow(inside: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads one u64 behind the pointer, which lives until the call returns.
    unsafe { ioctl::resize(inside.as_raw_fd(), &blocks) }?;
    Ok(())
}
