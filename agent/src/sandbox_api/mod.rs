//! The sandbox API: commands, terminals, files, watches and ports, over the protocol that E2B's SDKs speak to envd.
//!
//! ```text
//! vsock 49983 (tcp 49983) ─ server ─ auth ─ port of the pod? ─ ports
//!                                      └─ path ─┬─ process/     /process.Process/*
//!                                               ├─ filesystem/  /filesystem.Filesystem/*
//!                                               ├─ files/       /files, /files/compose
//!                                               ├─ init, freeze /init /envs /health /metrics /freeze /unfreeze
//!                                               └─ extra        /pith/*
//! ```
//!
//! A command is an exec of a container of the pod, in the container's own jail; a file is reached from a descriptor of the
//! container's root. Promises that nothing is needed in the image. Must never know `rpc`.

mod account;
mod answer;
mod auth;
mod extra;
mod failure;
mod files;
mod filesystem;
mod freeze;
mod init;
mod metrics;
mod place;
mod ports;
mod process;
mod processors;
mod relay;
mod rooted;
mod sandbox;
mod server;
mod splice;
mod storage;
mod target;
mod task;
mod trust;
mod volume;

pub(crate) use sandbox::{Parts, Sandbox};
pub(crate) use server::{Listen, start};
