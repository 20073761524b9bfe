//! The terminal of a process. It comes from the container's own devpts, so that `tty` names a path that exists there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::{Step, fail, refuse, rootfs};
use crate::mount;
use crate::plan::TerminalPlan;
use crate::sys;

/// Both ends of a pseudo-terminal.
pub(super) struct Terminal {
    /// The agent's end.
    pub(super) master: OwnedFd,
    slave: OwnedFd,
}

/// Makes a terminal, and `/dev/console` of it where the plan says so.
pub(super) fn open(plan: TerminalPlan) -> Step<Terminal> {
    let master = terminals()
        .and_then(|directory| {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::fs::openat(&directory, c"ptmx", flags, Mode::empty())
        })
        .map_err(|errno| {
            refuse("open /dev/pts/ptmx for the terminal (the container needs a devpts on /dev/pts)", errno)
        })?;
    rustix::pty::unlockpt(&master).map_err(|errno| fail("unlock the terminal", errno))?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )
    .map_err(|errno| fail("open the terminal", errno))?;
    if let Some((rows, columns)) = plan.size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size)
            .map_err(|errno| fail("set the terminal's size", errno))?;
    }
    if plan.console {
        console(&slave).map_err(|errno| refuse("make /dev/console", errno))?;
    }
    Ok(Terminal { master, slave })
}

/// The container's devpts. In nothing else a name is what it says: an image or a volume could have any device there, or a
/// link to any file.
fn terminals() -> rustix::io::Result<OwnedFd> {
    const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat2(CWD, "/dev/pts", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    if rustix::fs::fstatfs(&directory)?.f_type == DEVPTS_SUPER_MAGIC {
        Ok(directory)
    } else {
        Err(Errno::NODEV)
    }
}

fn console(slave: &OwnedFd) -> rustix::io::Result<()> {
    let path = Path::new("/dev/console");
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(0o600)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    rootfs::attach_at(mount::clone_at(slave.as_fd(), false)?, path)
}

/// Makes the terminal the process's standard streams and its session's controlling terminal.
pub(super) fn control(terminal: &Terminal, uid: u32) -> Step<()> {
    rustix::process::ioctl_tiocsctty(&terminal.slave).map_err(|errno| fail("take the terminal", errno))?;
    if uid != 0 {
        rustix::fs::fchown(&terminal.slave, Some(Uid::from_raw(uid)), None)
            .map_err(|errno| fail("give the terminal to the user", errno))?;
    }
    for number in 0..3 {
        sys::process::dup_to(terminal.slave.as_fd(), number)
            .map_err(|error| fail(format!("set up stream {number}"), error))?;
    }
    Ok(())
}
