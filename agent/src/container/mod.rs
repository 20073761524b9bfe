//! Containers.
//!
//! A container has one actor, a task that owns it and works through a bounded queue of jobs (create, start, exec,
//! remove). Others hold a [`ContainerHandle`]. What must never queue goes by side doors of the handle: signals (by
//! pidfd or `cgroup.kill`), exits, streams, statistics. A handler that is dropped half-way leaves the job to the
//! actor, which finishes it.
//!
//! The actor works with [`Tools`], which all containers share, and with a [`PodView`], what the pod shows to a container
//! that is created. It must never know the pod itself, or the API.

mod actor;
mod body;
mod create;
mod diagnostic;
mod error;
mod exec;
#[cfg(test)]
pub(crate) mod fake;
mod file;
mod freeze;
mod handle;
mod hook;
mod id;
mod job;
mod label;
mod launch;
mod oom;
mod remove;
mod shared;
mod shared_mount;
mod spec;
mod state;
mod tools;
mod user;
mod view;

pub(crate) use create::CreateRequest;
pub(crate) use error::ContainerError;
pub(crate) use exec::ExecRequest;
#[cfg(feature = "sandbox-api")]
pub(crate) use exec::{Apart, Born};
#[cfg(feature = "sandbox-api")]
pub(crate) use file::{magic, reopen};
pub(crate) use handle::ContainerHandle;
pub(crate) use id::{BadId, ContainerId};
pub(crate) use launch::Jails;
pub(crate) use oom::OomWatch;
pub(crate) use shared_mount::SharedMount;
#[cfg(feature = "sandbox-api")]
pub(crate) use state::State;
pub(crate) use tools::{Facts, Paths, Settings, Tools, follow_memory};
#[cfg(all(test, feature = "sandbox-api"))]
pub(crate) use user::LARGEST as LARGEST_TABLE;
pub(crate) use user::UserNames;
#[cfg(feature = "sandbox-api")]
pub(crate) use user::{entries, groups_of, number, read_table};
pub(crate) use view::{Neighbours, PodView, SharedNamespaces};
