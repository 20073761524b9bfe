//! Pods: a manifest in, a guest with its containers, an exit status out.
//!
//! Must never parse a command line, nor ask a registry.

pub mod run;
