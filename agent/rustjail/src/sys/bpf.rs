//! bpf(2), as far as a device filter needs it.
//!
//! Owns: loading a `BPF_PROG_TYPE_CGROUP_DEVICE` program and attaching it to a cgroup. One function per command; the
//! numbers are those of `linux/bpf.h`. Promises: every descriptor is close-on-exec (the kernel makes bpf descriptors
//! so). Must never: know what a program does.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of a cgroup and of those above it all run, and all must agree.
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// The leading part of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// `union bpf_attr` for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The leading part of `union bpf_attr` for `BPF_PROG_QUERY`, up to and with the padding after `prog_cnt`.
#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// # Safety
/// `A` must be the part of `union bpf_attr` that `command` uses, and every pointer in it must be good for what
/// the command does with it.
unsafe fn bpf<A>(command: libc::c_int, attr: &mut A) -> Result<libc::c_long, Errno> {
    let attr: *mut A = attr;
    // SAFETY: `attr` points to size_of::<A>() bytes, exclusively borrowed for the call, and the kernel touches no
    // more than that; the pointers within are the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<A>()) };
    if result < 0 {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        return Err(Errno::from_raw_os_error(errno));
    }
    Ok(result)
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    // A borrowed descriptor is never negative.
    fd.as_raw_fd().cast_unsigned()
}

/// Loads a device program of `instructions`, each in the kernel's `struct bpf_insn`. With a `log` the verifier
/// writes there, up to its length, why it refuses; without one it keeps silent and is faster.
pub(crate) fn load_device_program(
    instructions: &[[u8; 8]],
    log: Option<&mut [u8]>,
) -> Result<OwnedFd, Errno> {
    let Ok(insn_cnt) = u32::try_from(instructions.len()) else { return Err(Errno::TOOBIG) };
    let (log_buf, log_size) = match log {
        Some(log) => (log.as_mut_ptr() as u64, u32::try_from(log.len()).unwrap_or(u32::MAX)),
        None => (0, 0),
    };
    let mut attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt,
        insns: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: u32::from(log_size > 0),
        log_size,
        log_buf,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"pith_devices\0\0\0\0",
    };
    // SAFETY: LoadAttr is the head of BPF_PROG_LOAD's attributes. `insns` points to insn_cnt instructions of 8 bytes,
    // `license` to a static string with a NUL, `log_buf` to log_size writable bytes or is null with size 0; all
    // outlive the call.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attr) }?;
    owned(fd)
}

/// Attaches `program` to `cgroup`: in the place of `replace`, in one step, or else beside what is attached.
pub(crate) fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replace: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut attr = AttachAttr {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI | if replace.is_some() { BPF_F_REPLACE } else { 0 },
        replace_bpf_fd: replace.map_or(0, raw),
    };
    // SAFETY: AttachAttr is BPF_PROG_ATTACH's attributes and holds no pointer.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attr) }.map(drop)
}

/// Detaches `program` from `cgroup`.
pub(crate) fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attr = AttachAttr {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: 0,
        replace_bpf_fd: 0,
    };
    // SAFETY: AttachAttr is BPF_PROG_DETACH's attributes and holds no pointer.
    unsafe { bpf(BPF_PROG_DETACH, &mut attr) }.map(drop)
}

/// The ids of the device programs attached to `cgroup` itself.
pub(crate) fn device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    // The kernel takes no more than 64 programs per cgroup and type (BPF_CGROUP_MAX_PROGS).
    let mut ids = [0u32; 64];
    let mut attr = QueryAttr {
        target_fd: raw(cgroup),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        padding: 0,
    };
    // SAFETY: QueryAttr is the head of BPF_PROG_QUERY's attributes; `prog_ids` points to prog_cnt writable u32 that
    // outlive the call.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    let count = usize::try_from(attr.prog_cnt).unwrap_or(ids.len()).min(ids.len());
    Ok(ids[..count].to_vec())
}

/// Opens the program with this id; needs `CAP_SYS_ADMIN`.
pub(crate) fn open_program(id: u32) -> Result<OwnedFd, Errno> {
    let mut attr = IdAttr { prog_id: id, next_id: 0, open_flags: 0 };
    // SAFETY: IdAttr is BPF_PROG_GET_FD_BY_ID's attributes and holds no pointer.
    let fd = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attr) }?;
    owned(fd)
}

fn owned(fd: libc::c_long) -> Result<OwnedFd, Errno> {
    let Ok(fd) = libc::c_int::try_from(fd) else { return Err(Errno::BADF) };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
