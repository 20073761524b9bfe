//! The options of a run, and its result.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::network::Network;
use super::sandbox_api::SandboxApi;
use super::state::{Origin, StateDir};
use super::timing::Timings;
use images::image::Ceiling;
use machine::vm::{Accel, Machine, Root};
use store::arch::Arch;
use store::cache::Cache;

/// How urgently a run should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum StopRequest {
    /// It should not.
    #[default]
    No,
    /// In good order: signals first.
    Graceful,
    /// At once.
    Now,
}

/// How to run a pod.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The kernel to boot.
    pub kernel: PathBuf,
    /// What the guest runs.
    pub root: Root,
    /// The architecture of the guest, and of the images that are taken.
    pub arch: Arch,
    /// The machine model, which must be one of that architecture; chosen by the number of devices when absent.
    pub machine: Option<Machine>,
    /// The accelerator.
    pub accel: Accel,
    /// Guest memory; computed from the containers' limits when absent.
    pub memory_mib: Option<u32>,
    /// Guest CPUs.
    pub cpus: u32,
    /// Bytes of a disk for what containers write, instead of what the pod's limits add up to.
    pub scratch: Option<u64>,
    /// More words for the kernel's command line.
    pub cmdline: Vec<String>,
    /// How the guest is connected.
    pub network: Network,
    /// Where the guest's sandbox API is reached, if it is wanted.
    pub sandbox_api: Option<SandboxApi>,
    /// What relative paths in the manifest are relative to.
    pub base: PathBuf,
    /// Where disks of images are kept.
    pub cache: Cache,
    /// Where running pods are known.
    pub state: StateDir,
    /// Whether the pod stays up after its main containers ended, until it is stopped.
    pub keep: bool,
    /// How many execs are measured once the main containers ended.
    pub bench_exec: u32,
    /// Sizes of products, for the table.
    pub sizes: Timings,
    /// Whether the table is shown in the end.
    pub table: bool,
    /// The most that an image may unpack to.
    pub ceiling: Ceiling,
    /// Images that are elsewhere than the manifest says: what it says, and where they are.
    pub sources: BTreeMap<String, String>,
    /// Whether the record and the logs stay when the pod has ended.
    pub leave_record: bool,
    /// How the pod was started, for whoever starts it again.
    pub origin: Option<Origin>,
    /// Whether the output of containers is shown as it comes, and not by lines.
    pub verbatim: bool,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// 124 when the pod's time was over; else the status of an init container that failed; else the first non-zero status of
    /// a main container, in the manifest's order; else 0.
    pub code: i32,
    /// What was measured.
    pub timings: Timings,
}
