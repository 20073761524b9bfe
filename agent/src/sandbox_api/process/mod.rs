//! The Process service: commands are execs of a container, each in a cgroup of its own.
//!
//! `feed` decides who gets what of a command's output; `command` moves it; `registry` knows all commands; `start` makes them;
//! `service` speaks the protocol.

mod command;
mod end;
mod feed;
mod registry;
mod service;
mod start;

pub(super) use registry::Commands;
pub(super) use service::call;
