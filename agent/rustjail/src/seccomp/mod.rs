//! Filters of system calls, made from OCI profiles (runtime-spec, "Seccomp") as classic BPF.
//!
//! Owns what a profile means, and the program that decides so. Pure: nothing is loaded here.
//!
//! # What a profile means
//!
//! For one system call of one architecture, the rules that name it are looked at in the profile's order. A rule without
//! conditions decides wherever it stands, as with libseccomp; else the first whose conditions all hold; else the default
//! action. Several conditions on the same argument in one rule are alternatives, and so then are all conditions of that
//! rule: that is how runc reads them. A rule whose action is the default one says nothing. Names that no architecture
//! has are passed over: profiles name the calls of every kernel.
//!
//! A call that is newer than all that the profile names does not exist for the container: a number above the largest of
//! its architecture's that stand in any rule gets ENOSYS, as with runc (`libcontainer/seccomp/patchbpf`), since C libraries
//! fall back to older calls on that answer and on no other. Only where the default action lets calls happen or asks a
//! tracer it stays with that. A call that the profile leaves out although it names newer ones gets the default action.
//!
//! The architecture that this runs on is always included. A call of one that the profile does not list ends its thread,
//! as with libseccomp; x32 counts as one although it shares its number with x86_64. Architectures of which this kernel
//! can run no program are passed over. On x86 a call that is also a part of `socketcall` or `ipc` is decided there too,
//! by a rule without conditions: the arguments of a part are in memory, where no filter can look.

mod assemble;
mod bpf;
mod compile;
#[cfg(test)]
mod interpreter;
mod profile;
mod table;
mod text;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use compile::compile;

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
