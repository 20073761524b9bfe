//! The wire API of the guest agent.
//!
//! Owns the `.proto` files, the messages and service traits generated from them, and the conversion of an OCI
//! spec as it travels ([`oci`]) into [`oci_spec::runtime`] types and back ([`spec`]). Holds no behaviour of the agent.
#![cfg_attr(
    feature = "client",
    doc = "With the feature `client`, the module [`client`] dials an agent and calls it."
)]

// Its example is compiled as a test.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(feature = "client")]
pub mod client;
pub mod spec;

#[allow(
    missing_docs,
    unreachable_pub,
    unused_results,
    clippy::all,
    clippy::perf,
    clippy::suspicious,
    clippy::unwrap_used,
    reason = "generated code"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

pub use generated::{agent, agent_ttrpc, csi, health, health_ttrpc, oci, types};
pub use protobuf::well_known_types::empty::Empty;
