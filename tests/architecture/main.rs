//! Holds the architecture: which crate may use which, what the agent's layers may name, and the rules on files.
//!
//! Needs only cargo and the sources. Each failure names the file and the rule; ARCHITECTURE.md tells the reasons.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod bounds;
mod circles;
mod dependencies;
mod devices;
mod files;
mod ladder;
mod layers;
mod links;
mod oci;
mod order;
mod portable;
mod protocol;
mod security;
mod source;
