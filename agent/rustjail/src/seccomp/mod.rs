//! Filters of system calls, made from OCI profiles (runtime-spec, "Seccomp") as classic BPF.
//!
//! Owns what a profile means, and the program that decides so. Pure: nothing is loaded here.
//!
//! # What a profile means
//!
//! For each system call of each architecture, the rules that name it decide, in this order:
//!
//! 1. The first rule without conditions, wherever it is in the profile (as with libseccomp).
//! 2. The first rule, in the profile's order, whose conditions all hold.
//! 3. The default action.
//!
//! If a rule has several conditions on the same argument, one condition that holds is enough, also for the other arguments of
//! that rule. This is how runc reads such rules. A rule whose action is the same as the default action has no effect. Names
//! that no architecture knows are ignored, because profiles name the system calls of every kernel.
//!
//! A system call gets ENOSYS if its number is larger than every number that the profile names for that architecture. runc does
//! the same (`libcontainer/seccomp/patchbpf`): C libraries try an older call only after ENOSYS. There are two exceptions: if the
//! default action allows calls, or asks a tracer, the default action applies. A call that is not in the profile, but older than
//! one that is, gets the default action.
//!
//! The architecture of this machine is always included. A call of an architecture that the profile does not list ends the
//! thread, as with libseccomp. x32 is an architecture of its own here, although it shares its number with x86_64.
//! Architectures whose programs this kernel cannot run are ignored: those of Arm on x86_64, and those of x86 on 64-bit Arm. The
//! private calls of 32-bit Arm, such as `set_tls`, have numbers of their own, above all others. They do not count when the newest
//! call of a profile is looked for; runc counts them, and so finds no call of such a profile new. On x86, calls that are also a part of `socketcall` or `ipc`
//! are filtered there too, but only by rules without conditions: the arguments of such a part are in memory, which a filter
//! cannot read.

mod assemble;
mod bpf;
mod compile;
#[cfg(test)]
mod interpreter;
mod kept;
mod profile;
mod table;
mod text;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use compile::compile;
pub use kept::Filters;

/// One instruction of classic BPF: the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if a condition holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A filter, ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The program. All plans of a container share one.
    #[serde(with = "text")]
    pub program: Arc<[Instruction]>,
    /// `SECCOMP_FILTER_FLAG_*` bits (`seccomp(2)`).
    pub flags: u32,
    /// Whether it asks a listener about some system calls.
    pub listener: bool,
}
