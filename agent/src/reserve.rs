//! What all containers of the pod may take together, so that the kernel and the agent keep what they need.
//!
//! Containers' cgroups all lie below one, the pod's, wherever the host wants them: its `memory.max` and `pids.max` are
//! below what the guest has. A pod that runs out of memory so loses processes of its own, and the kernel never lacks
//! memory as a whole, in which case it would end with a panic once nothing but PID 1 is left.
//!
//! ```text
//!  all memory ├─ taken when the pod began ─┼─ margin ─┼──────── the pod's: memory.max ────────┤
//! ```
//!
//! Promises: limits follow the memory that the guest has. Must never: keep a container from being made; a kernel that
//! refuses a limit is told of in the log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use oci_spec::runtime::{LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder};
use rustjail::cgroup::{self, Cgroup, CgroupPath};

use crate::error::chain;

/// Name of the pod's cgroup, below which those of all containers are.
pub(crate) const POD: &str = "pod";

/// The margin is this part of all memory, within the bounds below. It is for what comes after the pod began and is charged to
/// no container: threads, buffers and helper programs of the agent, and what the kernel keeps of its own for containers.
const MARGIN_PART: u64 = 16;
/// Least margin in bytes: half of what the agent has resident at rest.
const MARGIN_LEAST: u64 = 2 << 20;
/// Most margin in bytes: nothing that is charged to nobody grows with memory beyond this.
const MARGIN_MOST: u64 = 64 << 20;
/// The kernel describes each page of memory that is added later by so many bytes of the memory that it has (`struct page`).
const DESCRIPTION: u64 = 64;

/// By the kernel's own rule stacks are to take this part of all memory.
const STACKS_PART: u64 = 8;
/// Bytes of a stack in the kernel; where a page is larger, a stack is one page.
const STACK: u64 = 16 << 10;
/// Least number of processes of a pod.
const PROCESSES_LEAST: u64 = 1024;
/// Processes that are left for the kernel and the agent.
const PROCESSES_RESERVED: u64 = 1024;
/// The kernel's own ceiling of process ids, where it cannot be read.
const PROCESS_IDS: u64 = 32_768;

/// A pod's cgroup may hold so many levels below it, and a container's so many cgroups.
const LEVELS: u64 = 64;
/// See [`Allocatable::for_container`].
pub(crate) const CGROUPS_OF_A_CONTAINER: u64 = 4096;

/// Why the limits of the pod are not set.
#[derive(Debug, thiserror::Error)]
enum ReserveError {
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error("read {0}")]
    Read(&'static str, #[source] io::Error),
    #[error("{0} makes no sense")]
    Text(&'static str),
}

/// Bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    total: u64,
    available: u64,
}

/// What the kernel was made with.
#[derive(Debug, Clone, Copy)]
struct Kernel {
    /// Bytes of a page: 4, 16 or 64 KiB.
    page: u64,
    /// Its ceiling of process ids.
    process_ids: u64,
}

/// What the pod may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocatable {
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Number of processes and threads.
    pub(crate) processes: u64,
}

impl Allocatable {
    /// Of a guest that was like `start` when the pod began, and has `total` bytes now.
    fn of(start: Memory, total: u64, kernel: Kernel) -> Allocatable {
        let taken = start.total.saturating_sub(start.available);
        let margin = (total / MARGIN_PART).clamp(MARGIN_LEAST, MARGIN_MOST);
        let descriptions = total.saturating_sub(start.total) / (kernel.page / DESCRIPTION).max(1);
        // Where the guest is full already, a pod that can do nothing would explain nothing.
        let memory = total.saturating_sub(taken + margin + descriptions).max(MARGIN_LEAST);
        let most = kernel.process_ids.saturating_sub(PROCESSES_RESERVED).max(PROCESSES_LEAST);
        let by_memory = total / (STACKS_PART * STACK.max(kernel.page));
        Allocatable { memory, processes: by_memory.clamp(PROCESSES_LEAST, most) }
    }

    /// Bytes that one file system in memory may take where nobody says how many: half, as the kernel has it, but of what
    /// there is for containers.
    pub(crate) fn file_system(self) -> u64 {
        self.memory / 2
    }

    /// The resources of one container: where it has no limit of its own of processes and of cgroups that it may make, one
    /// container must not use up what others need too.
    pub(crate) fn for_container(self, resources: Option<&LinuxResources>) -> LinuxResources {
        let mut resources = resources.cloned().unwrap_or_default();
        let mut unified = resources.unified().clone().unwrap_or_default();
        let has_limit = resources.pids().as_ref().is_some_and(|pids| pids.limit() != 0)
            || unified.contains_key("pids.max");
        if !has_limit {
            let limit = i64::try_from(self.processes / 2).unwrap_or(i64::MAX);
            resources.set_pids(LinuxPidsBuilder::default().limit(limit).build().ok());
        }
        unified
            .entry("cgroup.max.descendants".to_owned())
            .or_insert_with(|| CGROUPS_OF_A_CONTAINER.to_string());
        resources.set_unified(Some(unified));
        resources
    }

    fn resources(self) -> LinuxResources {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let levels = ("cgroup.max.depth".to_owned(), LEVELS.to_string());
        LinuxResourcesBuilder::default()
            .memory(LinuxMemoryBuilder::default().limit(number(self.memory)).build().unwrap_or_default())
            .pids(LinuxPidsBuilder::default().limit(number(self.processes)).build().unwrap_or_default())
            .unified([levels])
            .build()
            .unwrap_or_default()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reserve {
    /// Mount point of cgroup2.
    cgroups: PathBuf,
    /// The pod's cgroup, once it is limited. Without a lock: who asks for counts must not wait for limits that are being set.
    cgroup: OnceLock<Cgroup>,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    start: Memory,
    kernel: Kernel,
    now: Allocatable,
}

impl Kept {
    fn follow(&mut self, cgroup: &Cgroup) -> Result<Option<Allocatable>, ReserveError> {
        let now = Allocatable::of(self.start, guests_memory()?.total, self.kernel);
        if now == self.now {
            return Ok(None);
        }
        cgroup.apply(&now.resources())?;
        tracing::info!(memory = now.memory, processes = now.processes, "limits of the pod");
        self.now = now;
        Ok(Some(now))
    }
}

impl Reserve {
    /// Nothing is limited yet.
    pub(crate) fn new(cgroups: &Path) -> Reserve {
        Reserve { cgroups: cgroups.to_owned(), cgroup: OnceLock::new(), kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the pod's cgroup, and limits it by what the guest has left now. Blocks. A second call changes nothing.
    pub(crate) fn begin(&self) {
        let mut kept = self.kept();
        if kept.is_some() {
            return;
        }
        match limited(&self.cgroups) {
            Ok((cgroup, made)) => {
                tracing::info!(memory = made.now.memory, processes = made.now.processes, "limits of the pod");
                // Nobody else fills it: that needs the lock.
                drop(self.cgroup.set(cgroup));
                *kept = Some(made);
            }
            Err(error) => tracing::error!(error = %chain(&error), "the pod's cgroup has no limits"),
        }
    }

    /// Limits the pod by the memory that the guest has now. Gives the new limits if they are others. Blocks: where there is
    /// less memory than before, until the pod's is taken back.
    pub(crate) fn follow(&self) -> Option<Allocatable> {
        let mut kept = self.kept();
        let kept = kept.as_mut()?;
        let failed = |error: ReserveError| tracing::error!(error = %chain(&error), "the limits of the pod are not changed");
        kept.follow(self.cgroup.get()?).map_err(failed).ok()?
    }

    /// The limits in force; none before the pod began, and where they could not be set.
    pub(crate) fn now(&self) -> Option<Allocatable> {
        self.kept().as_ref().map(|kept| kept.now)
    }

    /// How often the pod has met its limit of memory and could reclaim nothing.
    pub(crate) fn memory_limit_hits(&self) -> u64 {
        self.cgroup.get().and_then(|cgroup| cgroup.memory_limit_hits().ok()).unwrap_or(0)
    }
}

fn limited(cgroups: &Path) -> Result<(Cgroup, Kept), ReserveError> {
    let path = CgroupPath::parse(POD, "")?;
    let cgroup = match Cgroup::create(cgroups, &path) {
        Err(cgroup::Error::Exists { .. }) => Cgroup::open(cgroups, &path),
        made => made,
    }?;
    const IDS: &str = "/proc/sys/kernel/pid_max";
    let start = guests_memory()?;
    let process_ids = std::fs::read_to_string(IDS).ok().and_then(|text| text.trim().parse().ok());
    let process_ids = process_ids.unwrap_or(PROCESS_IDS);
    let kernel = Kernel { page: rustix::param::page_size() as u64, process_ids };
    let now = Allocatable::of(start, start.total, kernel);
    cgroup.apply(&now.resources())?;
    Ok((cgroup, Kept { start, kernel, now }))
}

/// What the guest has now. Huge pages that are put aside are charged to no cgroup's memory, so they are no memory here.
fn guests_memory() -> Result<Memory, ReserveError> {
    const FILE: &str = "/proc/meminfo";
    let text = std::fs::read_to_string(FILE).map_err(|source| ReserveError::Read(FILE, source))?;
    memory(&text).ok_or(ReserveError::Text(FILE))
}

/// Bytes of an item of `/proc/meminfo`, whose numbers are in units of 1024 bytes (proc_meminfo(5)).
pub(crate) fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Reads `/proc/meminfo`.
fn memory(text: &str) -> Option<Memory> {
    let value = |name: &str| meminfo(text, name);
    let put_aside = value("Hugetlb").unwrap_or(0);
    Some(Memory { total: value("MemTotal")?.saturating_sub(put_aside), available: value("MemAvailable")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const KERNEL: Kernel = Kernel { page: 4096, process_ids: PROCESS_IDS };

    fn start(total: u64, available: u64) -> Memory {
        Memory { total: total * MIB, available: available * MIB }
    }

    fn of(total: u64, available: u64) -> Allocatable {
        Allocatable::of(start(total, available), total * MIB, KERNEL)
    }

    #[test]
    fn some_memory_is_left_to_the_kernel_and_the_agent() {
        assert_eq!(of(32, 20).memory, 18 * MIB);
        assert_eq!(of(128, 100).memory, 92 * MIB);
        assert_eq!(of(512, 480).memory, 448 * MIB);
        assert_eq!(of(2048, 2000).memory, 1936 * MIB);
        assert_eq!(of(65_536, 65_000).memory, 64_936 * MIB);
        assert_eq!(of(128, 100).file_system(), 46 * MIB);
    }

    #[test]
    fn a_guest_without_memory_is_not_left_without_a_pod() {
        assert_eq!(of(16, 1).memory, 2 * MIB);
        assert_eq!(of(0, 0).memory, 2 * MIB);
    }

    #[test]
    fn limits_follow_the_memory_that_is_added_and_taken_away() {
        let begun = start(512, 480);
        let grown = Allocatable::of(begun, 8192 * MIB, KERNEL);
        assert_eq!(grown.memory, (8192 - 32 - 64 - (8192 - 512) / 64) * MIB);
        assert_eq!(Allocatable::of(begun, 256 * MIB, KERNEL).memory, (256 - 32 - 16) * MIB);
        assert_eq!(Allocatable::of(begun, 0, KERNEL).memory, 2 * MIB);
    }

    #[test]
    fn processes_are_by_memory_and_leave_some_ids() {
        assert_eq!(of(32, 20).processes, 1024);
        assert_eq!(of(2048, 2000).processes, 16_384);
        assert_eq!(of(65_536, 65_000).processes, 31_744);
        assert_eq!(
            Allocatable::of(start(64, 64), 64 * MIB, Kernel { process_ids: 300, ..KERNEL }).processes,
            1024
        );
    }

    /// Larger pages are fewer, so there is less to describe; and each stack takes a whole one.
    #[test]
    fn larger_pages_take_fewer_descriptions_and_larger_stacks() {
        let begun = start(512, 480);
        for (page, descriptions, processes) in
            [(16 << 10, 7680 / 256, 31_744), (64 << 10, 7680 / 1024, 16_384)]
        {
            let grown = Allocatable::of(begun, 8192 * MIB, Kernel { page, ..KERNEL });
            assert_eq!(grown.memory.div_ceil(MIB), 8192 - 32 - 64 - descriptions, "{page}");
            assert_eq!(grown.processes, processes, "{page}");
        }
    }

    #[test]
    fn a_container_has_the_limits_that_it_asked_for_and_else_some() {
        let allocatable = Allocatable { memory: 100 * MIB, processes: 1000 };
        let limits = |text: &str| {
            let asked: LinuxResources = serde_json::from_str(text).unwrap();
            let resources = allocatable.for_container(Some(&asked));
            let unified = resources.unified().clone().unwrap();
            (
                resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit),
                unified["cgroup.max.descendants"].clone(),
            )
        };
        assert_eq!(limits("{}"), (Some(500), "4096".into()));
        assert_eq!(limits(r#"{"pids": {"limit": 0}}"#), (Some(500), "4096".into()));
        assert_eq!(limits(r#"{"pids": {"limit": -1}}"#), (Some(-1), "4096".into()));
        assert_eq!(limits(r#"{"pids": {"limit": 900}}"#), (Some(900), "4096".into()));
        let unified = r#"{"unified": {"pids.max": "7", "cgroup.max.descendants": "max"}}"#;
        assert_eq!(limits(unified), (None, "max".into()));
        assert!(allocatable.for_container(None).pids().is_some());
    }

    #[test]
    fn the_table_of_memory_is_read() {
        let text = "MemTotal:         125164 kB\nMemFree:  9 kB\nMemAvailable:     100 kB\n";
        assert_eq!(memory(text), Some(Memory { total: 125_164 << 10, available: 100 << 10 }));
        let with_huge_pages = format!("{text}Hugetlb:         65536 kB\n");
        assert_eq!(memory(&with_huge_pages).map(|memory| memory.total), Some((125_164 - 65_536) << 10));
        assert_eq!(meminfo("MemTotal:  100 kB\nMemFree: 5 kB\n", "MemFree"), Some(5 * 1024));
        assert_eq!(meminfo("", "MemFree"), None);
        assert_eq!(memory("MemTotal: 1 kB\n"), None);
        assert_eq!(memory("MemTotal: x kB\nMemAvailable: 1 kB\n"), None);
    }

    #[test]
    fn the_pods_cgroup_is_made_once_and_limited() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join(POD)).unwrap();
        for file in ["memory.max", "pids.max", "cgroup.max.depth"] {
            std::fs::write(tree.path().join(POD).join(file), "max\n").unwrap();
        }
        let events = tree.path().join(POD).join("memory.events");
        std::fs::write(&events, "oom 4\noom_kill 5\n").unwrap();
        let reserve = Reserve::new(tree.path());
        assert_eq!((reserve.now(), reserve.follow(), reserve.memory_limit_hits()), (None, None, 0));
        reserve.begin();
        reserve.begin();
        let now = reserve.now().unwrap();
        let written = |file: &str| std::fs::read_to_string(tree.path().join(POD).join(file)).unwrap();
        assert_eq!(written("memory.max"), now.memory.to_string());
        assert_eq!(written("pids.max"), now.processes.to_string());
        assert_eq!(written("cgroup.max.depth"), "64");
        assert_eq!(reserve.memory_limit_hits(), 4);
        assert_eq!(reserve.follow(), None);
        // The machine that tests run on has less memory by now, as it seems.
        reserve.kept().as_mut().unwrap().now.memory += 1;
        assert_eq!(reserve.follow(), Some(now));
    }
}
