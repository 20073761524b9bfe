//! A pod's life in a booted guest, over the same socket that shims use.

mod boot;
mod cli;
mod clock;
mod devices;
mod exits;
mod failures;
mod files;
mod floods;
mod freeze;
mod guest;
mod ids;
mod leaks;
mod lifecycle;
mod limits;
mod log;
mod memory;
mod network;
mod passfd;
mod policy;
mod processes;
mod python;
mod recovery;
mod shims;
mod storages;
mod streams;
mod wire;
