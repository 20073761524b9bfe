//! The container runtime.
//!
//! Three rooms. [`plan`] is pure: it decides everything that a process will be, from an OCI spec, and touches
//! nothing. [`start`] is the parent's side: a *forker* makes the child, and a handshake follows it up to `execve`.
//! [`child`] runs only in the forker and in the single-threaded children it makes, and executes the plan without
//! deciding anything. [`cgroup`] owns the control groups. All unsafe code is in `sys`.
//!
//! Knows nothing of tokio, ttrpc or protobuf.

pub mod cgroup;
pub mod child;
pub mod mount;
#[cfg(any(test, fuzzing))]
pub mod outcome;
pub mod plan;
pub mod seccomp;
pub mod start;
mod sys;
mod text;

pub use sys::process::{pidfd_signal, signal_is_valid};
pub use text::shorten;
