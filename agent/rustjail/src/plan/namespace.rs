//! Namespaces of a plan: which are joined, which are new.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// Offsets of the monotonic and boot-time clocks.
    Time,
    /// Mount points.
    Mount,
}

impl NamespaceKind {
    /// All kinds.
    pub const ALL: [NamespaceKind; 8] = [
        NamespaceKind::User,
        NamespaceKind::Network,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
        NamespaceKind::Pid,
        NamespaceKind::Cgroup,
        NamespaceKind::Time,
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
            NamespaceKind::Time => "time",
            NamespaceKind::Mount => "mnt",
        }
    }

    fn of_spec(typ: LinuxNamespaceType) -> NamespaceKind {
        match typ {
            LinuxNamespaceType::User => NamespaceKind::User,
            LinuxNamespaceType::Network => NamespaceKind::Network,
            LinuxNamespaceType::Ipc => NamespaceKind::Ipc,
            LinuxNamespaceType::Uts => NamespaceKind::Uts,
            LinuxNamespaceType::Pid => NamespaceKind::Pid,
            LinuxNamespaceType::Cgroup => NamespaceKind::Cgroup,
            LinuxNamespaceType::Mount => NamespaceKind::Mount,
            LinuxNamespaceType::Time => NamespaceKind::Time,
        }
    }
}

/// A range of user or group ids (`user_namespaces(7)`, "User and group ID mappings").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id in the container.
    pub container: u32,
    /// First id in the guest.
    pub host: u32,
    /// How many ids.
    pub size: u32,
}

/// The ids of a user namespace, or of a mount that shows other owners than its files have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMappings {
    /// User ids.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
}

/// Most ranges of one map (`user_namespaces(7)`).
const MOST_RANGES: usize = 340;

impl IdMappings {
    /// Reads the spec's lists, which stand at `field` of it.
    pub(super) fn of_spec(
        field: &str,
        uids: Option<&Vec<LinuxIdMapping>>,
        gids: Option<&Vec<LinuxIdMapping>>,
    ) -> Result<IdMappings, PlanError> {
        Ok(IdMappings {
            uids: ranges(&format!("{field}.uidMappings"), uids)?,
            gids: ranges(&format!("{field}.gidMappings"), gids)?,
        })
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// Whether both a user and a group id of the container have one in the guest.
    pub(super) fn cover(&self, uid: u32, gid: u32) -> bool {
        let covers = |list: &[IdMapping], id: u32| {
            list.iter().any(|range| id >= range.container && id - range.container < range.size)
        };
        covers(&self.uids, uid) && covers(&self.gids, gid)
    }
}

fn ranges(field: &str, list: Option<&Vec<LinuxIdMapping>>) -> Result<Vec<IdMapping>, PlanError> {
    let mut ranges: Vec<IdMapping> = Vec::new();
    for entry in list.into_iter().flatten() {
        let range = IdMapping { container: entry.container_id(), host: entry.host_id(), size: entry.size() };
        let ends = |first: u32| first.checked_add(range.size.saturating_sub(1));
        if range.size == 0 || ends(range.container).is_none() || ends(range.host).is_none() {
            return Err(PlanError::Invalid(format!(
                "{field} has a range of {} ids at {}",
                range.size, range.container
            )));
        }
        let overlap =
            |a: u32, b: u32, size: u32| a < b.saturating_add(size) && b < a.saturating_add(range.size);
        if let Some(other) = ranges.iter().find(|other| {
            overlap(range.container, other.container, other.size)
                || overlap(range.host, other.host, other.size)
        }) {
            return Err(PlanError::Invalid(format!(
                "{field} maps ids twice: the ranges at {} and {} overlap",
                other.container, range.container
            )));
        }
        ranges.push(range);
    }
    if ranges.len() > MOST_RANGES {
        return Err(PlanError::Invalid(format!("{field} has more than {MOST_RANGES} ranges")));
    }
    Ok(ranges)
}

/// How far a clock of a time namespace is ahead of the guest's (`time_namespaces(7)`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    pub clock: String,
    /// Seconds, which may be negative.
    pub seconds: i64,
    /// Nanoseconds on top, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// Reads `linux.timeOffsets`, sorted by clock.
pub(super) fn time_offsets(linux: &Linux) -> Result<Vec<TimeOffset>, PlanError> {
    let mut offsets = Vec::new();
    // In order, so that of several wrong ones the same is named each time.
    for (clock, offset) in linux.time_offsets().iter().flatten().collect::<BTreeMap<_, _>>() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(PlanError::Invalid(format!(
                "linux.timeOffsets has the clock {clock:?}: a time namespace has monotonic and boottime"
            )));
        }
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= 1_000_000_000 {
            return Err(PlanError::Invalid(format!(
                "linux.timeOffsets.{clock}.nanosecs {nanoseconds} is a second or more"
            )));
        }
        offsets.push(TimeOffset { clock: clock.clone(), seconds: offset.secs().unwrap_or(0), nanoseconds });
    }
    Ok(offsets)
}

/// The namespaces of a process. A kind that is in neither list is shared with the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespacePlan {
    /// Created for the process.
    pub new: Vec<NamespaceKind>,
    /// Joined by path; the parent opens the paths and passes descriptors.
    pub join: Vec<(NamespaceKind, PathBuf)>,
    /// Ids of a new user namespace.
    pub mappings: IdMappings,
    /// Clocks of a new time namespace.
    pub time_offsets: Vec<TimeOffset>,
}

impl NamespacePlan {
    /// Reads the spec's list. A kind may be listed once; an empty path means a new namespace.
    pub(super) fn of_spec(list: &[LinuxNamespace]) -> Result<NamespacePlan, PlanError> {
        let mut plan = NamespacePlan::default();
        for entry in list {
            let kind = NamespaceKind::of_spec(entry.typ());
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
        Ok(plan)
    }

    /// Adds what belongs to new user and time namespaces.
    pub(super) fn complete(&mut self, linux: &Linux) -> Result<(), PlanError> {
        let (uids, gids) = (linux.uid_mappings().as_ref(), linux.gid_mappings().as_ref());
        let mappings = IdMappings::of_spec("linux", uids, gids)?;
        match (self.is_new(NamespaceKind::User), self.has(NamespaceKind::User)) {
            (true, _) if !mappings.cover(0, 0) => Err(PlanError::Invalid(
                "a new user namespace needs linux.uidMappings and linux.gidMappings that map the container's id 0"
                    .into(),
            )),
            (false, false) if !mappings.is_empty() => {
                Err(PlanError::Invalid("linux.uidMappings and linux.gidMappings need a user namespace".into()))
            }
            // Those of one that is joined are what they are.
            (false, true) => Ok(()),
            _ => {
                self.mappings = mappings;
                Ok(())
            }
        }?;
        self.time_offsets = time_offsets(linux)?;
        if !self.time_offsets.is_empty() && !self.is_new(NamespaceKind::Time) {
            return Err(PlanError::Invalid("linux.timeOffsets need a new time namespace".into()));
        }
        Ok(())
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
