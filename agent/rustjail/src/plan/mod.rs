//! What a process will be, decided before it exists.
//!
//! [`init`] makes the plan of a container's first process, [`exec`] that of a further one. Both are pure functions
//! of the OCI spec and a few facts about the guest, so they are tested without root. The plan is plain data that
//! travels to the child as JSON; the child only executes it.

mod attributes;
mod build;
mod check;
pub mod config;
mod hook;
mod identity;
mod mount;
mod namespace;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::seccomp;

pub use attributes::{Attributes, Scheduler};
pub use build::{ExecOptions, InitOptions, PlanError, exec, exec_with, init};
pub use hook::{Bundle, HookPlan, InnerHooks};
pub(crate) use identity::cap_set;
pub use identity::{Capabilities, Identity, Rlimit, capability_names};
pub(crate) use mount::RDONLY;
pub use mount::{MountAttributes, MountPlan, MountSource, Owners, Propagation, PropagationMode};
pub use namespace::{IdMapping, IdMappings, NamespaceKind, NamespacePlan, TimeOffset};

/// Everything that the child does, in the order of its fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailPlan {
    /// Written to `/proc/self/oom_score_adj`, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Namespaces to join and to create.
    pub namespaces: NamespacePlan,
    /// Set in a new UTS namespace only.
    pub hostname: Option<String>,
    /// NIS domain name; set in a new UTS namespace only.
    pub domainname: Option<String>,
    /// How the root file system is built; none for a further process, which joins a finished one.
    pub rootfs: Option<RootfsPlan>,
    /// Keys below `/proc/sys`, as paths relative to it, with their values.
    pub sysctls: Vec<(String, String)>,
    /// Makes a pseudo-terminal the standard streams.
    pub terminal: Option<TerminalPlan>,
    /// Limits of the process, set while it is still privileged.
    pub rlimits: Vec<Rlimit>,
    /// Scheduling, priorities, labels.
    pub attributes: Attributes,
    /// User, groups and capabilities.
    pub identity: Identity,
    /// Filter of its system calls.
    pub seccomp: Option<Seccomp>,
    /// Hooks that run in it.
    pub hooks: InnerHooks,
    /// Whether the child stops once its root is built, until [`crate::start::Starting::enter`].
    pub stop_for_hooks: bool,
    /// What to execute.
    pub command: Command,
    /// Whether the child waits for [`crate::start::Starting::release`] before `execve`.
    pub wait_for_start: bool,
}

/// A filter of system calls, and who is told of those it asks about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// The program.
    pub filter: seccomp::Filter,
    /// Socket of a program that answers for system calls (runtime-spec, "listenerPath").
    pub listener: Option<Listener>,
}

/// Who gets the descriptor of a filter that notifies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Absolute path of a Unix socket in the guest.
    pub path: String,
    /// Told along.
    pub metadata: String,
}

/// How a container's root is built and entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsPlan {
    /// Absolute path of the root in the guest.
    pub path: PathBuf,
    /// Propagation of `/` while the root is built; also the container's final one where the spec names it.
    pub propagation: Propagation,
    /// Whether the spec named the propagation, so it is set again on the finished root.
    pub propagation_is_final: bool,
    /// Mounts, in the order of the spec.
    pub mounts: Vec<MountPlan>,
    /// Nodes below the root; empty where `/dev` is a bind mount.
    pub devices: Vec<DeviceNode>,
    /// Whether the guest's nodes are bound instead of new ones made.
    pub bind_devices: bool,
    /// Symbolic links `(link, target)` below the root; empty where `/dev` is a bind mount.
    pub links: Vec<(String, String)>,
    /// Paths hidden behind `/dev/null` or an empty directory.
    pub masked: Vec<String>,
    /// Paths made read-only.
    pub readonly_paths: Vec<String>,
    /// Whether the root itself is made read-only.
    pub readonly: bool,
    /// How the root becomes `/`.
    pub switch: RootSwitch,
}

/// How the new root becomes `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootSwitch {
    /// `pivot_root(2)`.
    Pivot,
    /// Move the mount onto `/` and `chroot`: an initramfs cannot be pivoted (`pivot_root(2)`, NOTES).
    Move,
}

/// A device node to make in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Absolute path in the container.
    pub path: PathBuf,
    /// `c`, `b` or `p`.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The type of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// A pseudo-terminal to make in the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalPlan {
    /// Rows and columns at the start, in characters; none leaves 0 by 0.
    pub size: Option<(u16, u16)>,
    /// Whether the terminal also becomes `/dev/console` (a container's first process).
    pub console: bool,
}

/// What to execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program and its arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value` entries in order, each name once.
    pub env: Vec<String>,
    /// Absolute working directory in the container.
    pub cwd: PathBuf,
    /// Whether a missing working directory is made.
    pub create_cwd: bool,
}
