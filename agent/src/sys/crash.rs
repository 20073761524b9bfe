//! sigaction(2), for the signals that a crash raises.
//!
//! The death of PID 1 is a panic of the kernel, which restarts the machine; Cloud Hypervisor boots a guest that restarts
//! again, and again. So a crash of PID 1 ends the machine as the end of a pod does.

use init::End;
use nix::libc::c_int;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// What a crash raises: by a fault, or by abort(3).
const CRASHES: [Signal; 6] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT, Signal::SIGSYS];

/// From now on a crash of this process ends the machine in this way.
///
/// # Errors
/// When the kernel refuses, which it has no reason to.
pub(crate) fn ends_the_machine(end: End) -> nix::Result<()> {
    // A handler cannot be told anything but the signal.
    let handler = SigHandler::Handler(match end {
        End::PowerOff => power_off,
        End::Restart => restart,
    });
    // On the stack for signals, since the other one may be what has run out. A second fault takes the kernel's way.
    let flags = SaFlags::SA_ONSTACK | SaFlags::SA_RESETHAND;
    let action = SigAction::new(handler, flags, SigSet::empty());
    for signal in CRASHES {
        // SAFETY: the handlers do nothing but system calls, on their own stack frame.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

extern "C" fn power_off(signal: c_int) {
    crashed(signal, End::PowerOff);
}

extern "C" fn restart(signal: c_int) {
    crashed(signal, End::Restart);
}

/// Runs in the place of whatever crashed: async-signal-safe calls only (signal-safety(7)), no allocation, no lock.
fn crashed(signal: c_int, end: End) {
    // A child between fork and execve has the handler, too.
    if !init::is_pid1() {
        return;
    }
    let mut line = *b"agent: crashed by signal 00; the machine ends\n";
    const DIGITS: usize = 25;
    line[DIGITS] += (signal / 10 % 10) as u8;
    line[DIGITS + 1] += (signal % 10) as u8;
    // A console that takes nothing changes nothing.
    rustix::io::write(std::io::stderr(), &line).ok();
    // An error comes back to the instruction that crashed, which crashes again: the kernel panics.
    end.now();
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_number_of_the_signal_stands_where_the_zeros_are() {
        assert_eq!(b"agent: crashed by signal 00".iter().position(|&byte| byte == b'0'), Some(25));
    }
}
