//! System calls that nothing wraps.
#![allow(unsafe_code)]

use std::ffi::{CString, c_long};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use rustix::thread::{UnshareFlags, unshare_unsafe};

fn told(result: c_long) -> Result<c_long, String> {
    if result < 0 {
        Err(format!("errno {}", io::Error::last_os_error().raw_os_error().unwrap_or(0)))
    } else {
        Ok(result)
    }
}

/// Policy, flags, nice value, priority, and the times of the deadline policy (`sched_getattr(2)`).
pub(crate) fn scheduler() -> String {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let mut attr = Attr::default();
    // SAFETY: the kernel fills at most the size given.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size_of::<Attr>(), 0) };
    match told(result) {
        Ok(_) => format!(
            "policy {} flags {} nice {} priority {} times {} {} {}",
            attr.policy, attr.flags, attr.nice, attr.priority, attr.runtime, attr.deadline, attr.period
        ),
        Err(text) => text,
    }
}

/// Class and level.
pub(crate) fn io_priority() -> String {
    // SAFETY: takes integers only.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) };
    told(result).map_or_else(|text| text, |value| format!("class {} level {}", value >> 13, value & 0x1fff))
}

/// Namespaces of its own for this thread. Not a table of descriptors of its own.
pub(crate) fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // SAFETY: without CLONE_FILES no descriptor changes its meaning for other threads.
    Ok(unsafe { unshare_unsafe(namespaces.difference(UnshareFlags::FILES)) }?)
}

/// The execution domain.
pub(crate) fn personality() -> String {
    // SAFETY: takes an integer only; this one changes nothing.
    told(unsafe { libc::syscall(libc::SYS_personality, 0xffff_ffffu64) })
        .map_or_else(|text| text, |value| value.to_string())
}

/// Whether the process leads its session.
pub(crate) fn is_session_leader() -> bool {
    // SAFETY: takes an integer only.
    unsafe { libc::getsid(0) == libc::getpid() }
}

/// `type;uid;gid;permissions;name` of the session keyring (`keyctl(2)`, KEYCTL_DESCRIBE).
pub(crate) fn session_keyring() -> Result<String, String> {
    const KEYCTL_GET_KEYRING_ID: i32 = 0;
    const KEYCTL_DESCRIBE: i32 = 6;
    const SESSION: i32 = -3;
    // SAFETY: takes integers only.
    let serial = told(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, SESSION, 0) })?;
    let mut text = [0u8; 256];
    // SAFETY: the kernel writes at most the length given.
    let length = told(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, serial, text.as_mut_ptr(), text.len())
    })?;
    let length = usize::try_from(length).unwrap_or(0).min(text.len());
    Ok(String::from_utf8_lossy(&text[..length]).trim_end_matches('\0').to_owned())
}

/// Makes a system call that is harmless whether it works or not; gives `ok` or its error number. `socket:40` has an
/// argument.
pub(crate) fn call(name: &str) -> String {
    let (name, argument) = name.split_once(':').unwrap_or((name, "0"));
    let argument: c_long = argument.parse().unwrap_or(0);
    let here = c_long::from(libc::AT_FDCWD);
    // SAFETY: integers, null pointers (which the kernel refuses with EFAULT) and static strings with a NUL.
    let result = unsafe {
        match name {
            "getppid" => libc::syscall(libc::SYS_getppid),
            // Those that take a directory: 64-bit Arm has no others.
            "fchmodat" => libc::syscall(libc::SYS_fchmodat, here, c"/no/such/file".as_ptr(), argument),
            "mkdirat" => {
                libc::syscall(libc::SYS_mkdirat, here, c"/no/such/directory/below".as_ptr(), argument)
            }
            "personality" => libc::syscall(libc::SYS_personality, argument),
            "socket" => libc::syscall(libc::SYS_socket, argument, 1, 0),
            "mount" => libc::syscall(libc::SYS_mount, 0, 0, 0, 0, 0),
            "clone3" => libc::syscall(libc::SYS_clone3, 0, 0),
            "unshare" => libc::syscall(libc::SYS_unshare, argument),
            "sethostname" => libc::syscall(libc::SYS_sethostname, c"probed".as_ptr(), 6),
            "keyctl" => libc::syscall(libc::SYS_keyctl, 6, -3, 0, 0),
            "kill" => libc::syscall(libc::SYS_kill, 999_999, 0),
            "lseek" => libc::syscall(libc::SYS_lseek, 999, argument, 0),
            "mknodat" => {
                let name = c"/tmp/probed-node".as_ptr();
                libc::syscall(libc::SYS_mknodat, here, name, libc::S_IFCHR | 0o666, argument)
            }
            // Any call by number.
            "number" => libc::syscall(argument, 0, 0, 0, 0, 0, 0),
            _ => return format!("no such attempt: {name}"),
        }
    };
    told(result).map_or_else(|text| text, |_| "ok".into())
}

/// Listens on a vsock port, at any context id; gives `ok` or the error number.
pub(crate) fn listen(port: &str) -> String {
    let Ok(port) = port.parse() else { return format!("no port: {port}") };
    // The socket is closed by the end of the process.
    listener(port).map_or_else(|text| text, |_| "ok".into())
}

/// A socket that listens on a vsock port.
pub(crate) fn listener(port: u32) -> Result<c_long, String> {
    // SAFETY: takes integers only.
    let socket = told(unsafe { libc::syscall(libc::SYS_socket, libc::AF_VSOCK, libc::SOCK_STREAM, 0) })?;
    // SAFETY: all of it may be zero.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    (address.svm_family, address.svm_cid, address.svm_port) =
        (libc::AF_VSOCK as libc::sa_family_t, libc::VMADDR_CID_ANY, port);
    // SAFETY: the kernel reads at most the size given.
    let bound =
        unsafe { libc::syscall(libc::SYS_bind, socket, &raw const address, size_of::<libc::sockaddr_vm>()) };
    // SAFETY: takes integers only.
    told(bound).and_then(|_| told(unsafe { libc::syscall(libc::SYS_listen, socket, 8) }))?;
    Ok(socket)
}

/// The next connection to a socket.
pub(crate) fn accept(socket: c_long) -> Result<File, String> {
    // SAFETY: the kernel writes no address where none is wanted.
    let stream = told(unsafe { libc::syscall(libc::SYS_accept4, socket, 0, 0, 0) })?;
    // SAFETY: the descriptor was just made, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(stream as i32) })
}

/// Opens a PCI device through its VFIO group, and tells where in it its configuration space is
/// (`include/uapi/linux/vfio.h`).
pub(crate) fn vfio_device(group: &str, address: &str) -> io::Result<(File, u64)> {
    const TYPE1: c_long = 1;
    const CONFIGURATION: u32 = 7;
    #[repr(C)]
    #[derive(Default)]
    struct Region {
        size_of_self: u32,
        flags: u32,
        index: u32,
        capabilities: u32,
        size: u64,
        offset: u64,
    }
    let request = |number: u64| (u64::from(b';') << 8 | (100 + number)) as _;
    let checked = |result: i32| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    let open = |name: &str| File::options().read(true).write(true).open(format!("/dev/vfio/{name}"));
    let (container, group) = (open("vfio")?, open(group)?);
    let number = container.as_raw_fd();
    // SAFETY: the kernel reads one int behind the pointer.
    checked(unsafe { libc::ioctl(group.as_raw_fd(), request(4), &raw const number) })?;
    // SAFETY: takes an integer only.
    checked(unsafe { libc::ioctl(container.as_raw_fd(), request(2), TYPE1) })?;
    let name = CString::new(address)?;
    // SAFETY: the kernel reads a string behind the pointer.
    let device = checked(unsafe { libc::ioctl(group.as_raw_fd(), request(6), name.as_ptr()) })?;
    // SAFETY: the descriptor was just made, and nobody else has it.
    let device = unsafe { File::from_raw_fd(device) };
    let mut region =
        Region { size_of_self: size_of::<Region>() as u32, index: CONFIGURATION, ..Region::default() };
    // SAFETY: the kernel reads and fills at most the size that the structure says it has.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), request(8), &raw mut region) })?;
    // The container must outlive the device's use; the process ends soon after.
    std::mem::forget((container, group));
    Ok((device, region.offset))
}

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Adds a key to the user keyring of the process, as `add_key(2)` does.
pub(crate) fn add_key(number: usize, size: usize) -> io::Result<()> {
    const USER_KEYRING: c_long = -4;
    let name = CString::new(format!("hoarded-{number}"))?;
    let payload = vec![b'x'; size];
    // SAFETY: names with a NUL, and as many bytes as the length says.
    let result = unsafe {
        let (kind, data) = (c"user".as_ptr(), payload.as_ptr());
        libc::syscall(libc::SYS_add_key, kind, name.as_ptr(), data, payload.len(), USER_KEYRING)
    };
    checked(result).map(drop)
}

/// Makes a timer that is never set, which the process keeps.
pub(crate) fn timer() -> io::Result<()> {
    let mut id: libc::c_int = 0;
    // SAFETY: without an event SIGALRM is meant; the kernel writes one int.
    checked(unsafe { libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, 0, &raw mut id) }).map(drop)
}

/// Makes a message queue, which stays until its IPC namespace ends, and is closed.
pub(crate) fn queue(number: usize) -> io::Result<()> {
    let name = CString::new(format!("hoarded-{number}"))?;
    let flags = libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: a name with a NUL; without attributes the kernel's defaults are meant.
    let fd = checked(unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0o600, 0) })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new and nobody else's.
    drop(unsafe { File::from_raw_fd(fd) });
    Ok(())
}

/// Makes room for so many requests of asynchronous input and output, which the process keeps.
pub(crate) fn requests(count: u32) -> io::Result<()> {
    let mut context: libc::c_ulong = 0;
    // SAFETY: the kernel writes one long.
    checked(unsafe { libc::syscall(libc::SYS_io_setup, count, &raw mut context) }).map(drop)
}

/// Makes a group of fanotify that reports files by their ids, as anybody may.
pub(crate) fn watch_group() -> io::Result<OwnedFd> {
    const REPORT_FID: u32 = 0x200;
    // SAFETY: takes integers only.
    let fd = checked(unsafe { libc::syscall(libc::SYS_fanotify_init, REPORT_FID | 1, libc::O_RDONLY) })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
