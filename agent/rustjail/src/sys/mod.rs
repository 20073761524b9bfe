//! All of the crate's unsafe code: one kernel interface per file, one call per function.
#![allow(unsafe_code)]

pub(crate) mod attribute;
pub(crate) mod bpf;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod seccomp;
