//! Namespaces of a plan: which are joined, which are new.

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

use super::PlanError;

/// A namespace type (`namespaces(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NamespaceKind {
    /// User and group ids.
    User,
    /// Network devices, addresses, ports.
    Network,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Process ids.
    Pid,
    /// Root of the control group tree.
    Cgroup,
    /// Mount points.
    Mount,
}

impl NamespaceKind {
    /// All kinds, in the order in which they are joined: the mount namespace last, since it takes `/proc` away.
    pub const ALL: [NamespaceKind; 7] = [
        NamespaceKind::User,
        NamespaceKind::Network,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
        NamespaceKind::Pid,
        NamespaceKind::Cgroup,
        NamespaceKind::Mount,
    ];

    /// Name of the link in `/proc/PID/ns`.
    pub fn proc_name(self) -> &'static str {
        match self {
            NamespaceKind::User => "user",
            NamespaceKind::Network => "net",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Uts => "uts",
            NamespaceKind::Pid => "pid",
            NamespaceKind::Cgroup => "cgroup",
            NamespaceKind::Mount => "mnt",
        }
    }

    fn of_spec(typ: LinuxNamespaceType) -> Result<NamespaceKind, PlanError> {
        Ok(match typ {
            LinuxNamespaceType::User => NamespaceKind::User,
            LinuxNamespaceType::Network => NamespaceKind::Network,
            LinuxNamespaceType::Ipc => NamespaceKind::Ipc,
            LinuxNamespaceType::Uts => NamespaceKind::Uts,
            LinuxNamespaceType::Pid => NamespaceKind::Pid,
            LinuxNamespaceType::Cgroup => NamespaceKind::Cgroup,
            LinuxNamespaceType::Mount => NamespaceKind::Mount,
            LinuxNamespaceType::Time => return Err(PlanError::Unsupported("a time namespace".into())),
        })
    }
}

/// The namespaces of a process. A kind that is in neither list is shared with the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespacePlan {
    /// Created for the process.
    pub new: Vec<NamespaceKind>,
    /// Joined by path; the parent opens the paths and passes descriptors.
    pub join: Vec<(NamespaceKind, PathBuf)>,
}

impl NamespacePlan {
    /// Reads the spec's list. A kind may be listed once; an empty path means a new namespace.
    pub(super) fn of_spec(list: &[LinuxNamespace]) -> Result<NamespacePlan, PlanError> {
        let mut plan = NamespacePlan::default();
        for entry in list {
            let kind = NamespaceKind::of_spec(entry.typ())?;
            if plan.has(kind) {
                return Err(PlanError::Invalid(format!("namespace {} is listed twice", kind.proc_name())));
            }
            match entry.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    if !path.is_absolute() {
                        return Err(PlanError::Invalid(format!(
                            "namespace {} has the relative path {}",
                            kind.proc_name(),
                            path.display()
                        )));
                    }
                    plan.join.push((kind, path.clone()));
                }
                _ => plan.new.push(kind),
            }
        }
        plan.new.sort();
        plan.join.sort();
        if plan.has(NamespaceKind::User) {
            return Err(PlanError::Unsupported("a user namespace".into()));
        }
        Ok(plan)
    }

    /// Whether the process gets a namespace of this kind that differs from the agent's.
    pub fn has(&self, kind: NamespaceKind) -> bool {
        self.is_new(kind) || self.join.iter().any(|(joined, _)| *joined == kind)
    }

    /// Whether a namespace of this kind is created.
    pub fn is_new(&self, kind: NamespaceKind) -> bool {
        self.new.contains(&kind)
    }
}
