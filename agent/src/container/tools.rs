//! What the actors of all containers work with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustjail::plan::RootSwitch;
use rustjail::seccomp::Filters;

use super::id::ContainerId;
use super::label::SecurityModules;
use super::launch::Jailer;
use super::oom::OomWatch;
use crate::device::watch::DeviceWatch;
use crate::heap::Trimmer;
use crate::patience::Patience;
use crate::process::command::Commands;
use crate::process::passfd;
use crate::process::unread::Unread;
use crate::reserve::Reserve;
use crate::storage::StorageRegistry;

/// See the module. There are no statics: two sets can live in one process.
pub(crate) struct Tools {
    /// Makes cgroups and processes.
    pub(crate) jailer: Arc<dyn Jailer>,
    /// Runs helper programs and hooks.
    pub(crate) commands: Arc<Commands>,
    /// Mount points and who uses them.
    pub(crate) storages: Arc<StorageRegistry>,
    /// What the pod may take of the guest.
    pub(crate) reserve: Arc<Reserve>,
    /// Waits for devices.
    pub(crate) devices: DeviceWatch,
    /// Threads for what waits.
    pub(crate) patience: Patience,
    /// Connections that the host made for streams.
    pub(crate) streams: Arc<passfd::Waiting>,
    /// What processes write and nobody reads.
    pub(crate) unread: Arc<Unread>,
    /// Gives back what they took.
    pub(crate) trimmer: Trimmer,
    /// Tells of kills for lack of memory.
    pub(crate) memory_events: OomWatch,
    /// Filters of the last containers.
    pub(crate) filters: Filters,
    /// Where things are.
    pub(crate) paths: Paths,
    /// What was found out about the guest.
    pub(crate) facts: Facts,
    /// What the command line says about containers.
    pub(crate) settings: Settings,
}

/// Has the pod's limits, and the file systems whose size nobody said, follow the memory that the guest has. Blocks.
pub(crate) fn follow_memory(reserve: &Reserve, storages: &StorageRegistry) {
    if let Some(now) = reserve.follow() {
        storages.resize(now.file_system());
    }
}

/// Settings that containers are made by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Capacity of a stream's pipe in bytes; 0 is the kernel's default.
    pub(crate) pipe_size: usize,
    /// How long CDI specs may take to come.
    pub(crate) cdi_timeout: Duration,
    /// Whether a variable of the environment names CDI devices.
    pub(crate) visible_cdi_devices: bool,
}

/// Where the agent keeps things.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// Mount point of cgroup2.
    pub(crate) cgroup: PathBuf,
    /// Directory of the containers' own directories.
    pub(crate) state: PathBuf,
}

impl Paths {
    /// The tree that containers mount from, shared with the host or filled by CopyFile.
    pub(crate) fn shared(&self) -> PathBuf {
        self.state.join("shared/containers")
    }

    /// The pod's own directory. Shims put storages of the pod there.
    pub(crate) fn sandbox(&self) -> PathBuf {
        self.state.join("sandbox")
    }

    /// A container's own directory. Shims put its storages there, by its id; a container that is called like a directory of
    /// the pod has another, whose name no id can have.
    pub(crate) fn container(&self, id: &ContainerId) -> PathBuf {
        let directory = self.state.join(id.as_str());
        let is_the_pods = self.sandbox() == directory || self.shared().starts_with(&directory);
        if is_the_pods { self.state.join(format!(".{id}")) } else { directory }
    }
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { cgroup: "/sys/fs/cgroup".into(), state: "/run/kata-containers".into() }
    }
}

/// What was found out about the guest at the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// How a container's root becomes `/`.
    pub(crate) root_switch: RootSwitch,
    /// What labels mean something here.
    pub(crate) modules: SecurityModules,
}

impl Facts {
    /// Those of this guest.
    pub(crate) fn of_guest() -> Facts {
        let mounts = mountinfo::mounts().unwrap_or_default();
        let root_switch =
            if mountinfo::root_can_be_pivoted(&mounts) { RootSwitch::Pivot } else { RootSwitch::Move };
        Facts { root_switch, modules: SecurityModules::of_kernel() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn no_container_has_a_directory_of_the_pod() {
        let paths = Paths::default();
        let directory = |id: &str| paths.container(&ContainerId::parse(id).unwrap());
        assert_eq!(directory("c1"), Path::new("/run/kata-containers/c1"));
        for id in ["sandbox", "shared"] {
            let own = directory(id);
            for of_the_pod in [paths.sandbox(), paths.shared()] {
                assert!(!of_the_pod.starts_with(&own) && !own.starts_with(&of_the_pod), "{}", own.display());
            }
            let name = own.file_name().unwrap().to_str().unwrap();
            assert!(ContainerId::parse(name).is_err(), "a container may be called {name}");
        }
    }
}
