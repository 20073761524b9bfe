//! `mount_setattr(2)`, which the wrapped mount API lacks.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct mount_attr`.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const AT_EMPTY_PATH: c_long = 0x1000;
const AT_RECURSIVE: c_long = 0x8000;

/// Changes attributes and propagation of the mount behind a descriptor, and of all below it if `recursive`.
///
/// `set` and `clear` are `MOUNT_ATTR_*` bits, `propagation` is one of `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`,
/// `MS_UNBINDABLE` or 0 for no change.
pub(crate) fn set_attributes(
    mount: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    set_attr(mount, &MountAttr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 }, recursive)
}

/// Makes a detached mount show other owners: those that a user namespace maps the files' own ids to.
pub(crate) fn set_owners(
    mount: BorrowedFd<'_>,
    user_namespace: BorrowedFd<'_>,
    recursive: bool,
) -> io::Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let userns_fd = u64::from(user_namespace.as_raw_fd().unsigned_abs());
    set_attr(
        mount,
        &MountAttr { attr_set: MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd },
        recursive,
    )
}

fn set_attr(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> io::Result<()> {
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let attr: *const MountAttr = attr;
    // SAFETY: the path is an empty NUL-terminated string, `attr` is a borrowed mount_attr of the size given; both are
    // only read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
