//! Runs a pod: boots a guest, drives its agent, and cleans up.
//!
//! Owns the whole course from a manifest to an exit status. Promises that whatever happens (an error, a signal, a
//! guest that dies) no process, socket or temporary file outlives the run. Must never know how results are shown
//! ([`output::Sink`] does) nor how the agent works inside.
//!
//! ```text
//! Pod::parse (manifest) ─► prepare: images as disks, network, folders, a spec for each container
//!     ─► Vm::boot ─► Check ─► CreateSandbox ─► CopyFile ─► life: a supervisor for each container
//!     ─► the end: orders to stop ─► RemoveContainer ─► DestroySandbox ─► power off
//! ```

mod board;
mod companion;
mod container;
pub mod courier;
mod error;
pub mod exec;
mod facts;
mod files;
mod folder;
pub mod journal;
mod life;
mod manifest;
pub mod network;
mod options;
pub mod output;
pub mod pod;
mod ports;
mod prepare;
pub mod quantity;
mod record;
pub mod sandbox_api;
pub mod scratch;
mod screen;
mod session;
pub mod spec;
pub mod state;
mod state_error;
mod supervise;
pub mod terminal;
pub mod timing;

pub use container::Input;
pub use error::RunError;
pub use manifest::mount_path;
pub use options::{Outcome, RunOptions, StopRequest};
pub use pod::Pod;
pub use session::run;
