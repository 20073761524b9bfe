//! A pod's life in a booted guest, over the same socket that shims use.

mod boot;
mod cli;
mod console;
mod devices;
mod exits;
mod failures;
mod files;
mod freeze;
mod guest;
mod hooks;
mod ids;
mod leaks;
mod lifecycle;
mod limits;
mod memory;
mod modules;
mod network;
mod processes;
mod programs;
mod recovery;
mod shims;
mod storages;
mod streams;
mod wire;
