//! Runs a pod: boots a guest, drives its agent, and cleans up.
//!
//! Owns the whole course from a manifest to an exit status. Promises that whatever happens (an error, a signal, a
//! guest that dies) no process, socket or temporary file outlives the run. Must never know how results are shown
//! ([`output::Sink`] does) nor how the agent works inside.
//!
//! ```text
//! Pod::parse ─► images as disks ─► Vm::boot ─► Check ─► CreateSandbox ─► per container Create, Start
//!     ─► ReadStdout/ReadStderr … WaitProcess ─► signals ─► RemoveContainer ─► DestroySandbox ─► power off
//! ```

mod board;
mod capabilities;
mod container;
mod error;
pub mod exec;
mod folder;
mod manifest;
pub mod network;
pub mod output;
pub mod pod;
pub mod quantity;
mod screen;
mod session;
pub mod spec;
pub mod state;
pub mod terminal;
pub mod timing;

pub use error::RunError;
pub use pod::Pod;
pub use session::{Outcome, RunOptions, StopRequest, run};
