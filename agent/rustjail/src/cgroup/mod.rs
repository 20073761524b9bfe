//! The container's control group: cgroup v2, by its files, through a directory descriptor.
//!
//! Owns: the directory of one container below the cgroup2 mount, what is written there (limits, freezer, kill, the
//! device program) and what is read there (statistics, events, processes).
//!
//! Promises: a path from outside can only name a directory below the root it is given; every control file is opened
//! relative to the held directory; an error names the file and the value, so that the caller sees which limit the
//! kernel refused; a controller the kernel lacks is an error with its kernel option, never a panic, and only if a
//! limit needs it.
//!
//! Must never: move processes (children are born here, by `CLONE_INTO_CGROUP`), fall back to cgroup v1, or hold
//! state that a second [`Cgroup::open`] of the same path would miss.
//!
//! Calls block: removing and freezing wait for processes, lowering `memory.max` waits for reclaim.

mod controller;
mod devices;
mod error;
mod events;
mod file;
mod hierarchy;
mod io;
mod limits;
#[cfg(test)]
mod live;
mod memory;
mod nested;
#[cfg(any(test, fuzzing))]
pub(crate) mod outcome;
mod path;
mod reclaim;
mod stats;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::OnceLock;

pub use controller::Controller;
pub use devices::default_rules;
pub use error::{Error, ErrorClass};
pub use events::EventsFile;
pub(crate) use events::flat_keyed;
pub use limits::Warning;
pub use nested::Nested;
pub use path::CgroupPath;
pub use reclaim::{Inactive, Reclaimed, Stalls};
pub use stats::{CpuStats, HugetlbStats, IoStats, MemoryStats, MemoryUsage, PidsStats, Stats};

use file::Directory;
use hierarchy::Refused;

/// One cgroup, held open.
///
/// Dropping it closes the descriptors and leaves the cgroup as it is; [`Cgroup::remove`] takes it away.
#[derive(Debug)]
pub struct Cgroup {
    /// The cgroup itself.
    directory: Directory,
    /// The cgroup2 mount: where [`Cgroup::remove`] starts to walk.
    root: Directory,
    path: CgroupPath,
    /// How many of the nearest ancestors [`Cgroup::create`] had to make.
    ancestors_made: usize,
    /// Controllers an ancestor would not hand down, to explain a limit that fails for it later.
    refused: Vec<Refused>,
    /// The sizes of huge pages that are counted, once somebody has asked: to find them, all files are listed.
    huge_pages: OnceLock<Vec<String>>,
}

impl Cgroup {
    /// The cgroup's directory, for `CLONE_INTO_CGROUP`.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Where the cgroup is, with the root it was made under: for messages.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Every process in the cgroup and below it, as pids of the caller's pid namespace, sorted. Those of a cgroup
    /// that vanishes meanwhile are left out, as are processes that this pid namespace cannot see.
    pub fn procs(&self) -> Result<Vec<i32>, Error> {
        let mut pids = Vec::new();
        self.directory.walk(|directory| {
            if let Some(text) = directory.read("cgroup.procs")? {
                // Pid 0 stands for a process outside our pid namespace (cgroups.7).
                pids.extend(
                    text.lines().filter_map(|line| line.trim().parse().ok()).filter(|&pid: &i32| pid > 0),
                );
            }
            Ok(())
        })?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }
}

/// A directory with files, taken for a cgroup named `c1`.
#[cfg(test)]
fn fake(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
    let tree = tempfile::tempdir().unwrap();
    std::fs::create_dir(tree.path().join("c1")).unwrap();
    for (name, text) in files {
        std::fs::write(tree.path().join("c1").join(name), text).unwrap();
    }
    let cgroup = Cgroup::open(tree.path(), &CgroupPath::parse("c1", "").unwrap()).unwrap();
    (tree, cgroup)
}
