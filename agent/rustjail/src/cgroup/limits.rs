//! OCI resources as writes to control files.
//!
//! Owns: what `linux.resources` means on cgroup v2. The meaning is worked out first, purely ([`plan`]), from the
//! resources and the few present values it depends on ([`Now`]); nothing is written if a value is wrong. Promises: an
//! unset value is not written; `-1` is `max`; a limit that the kernel cannot hold is an error, and what has no
//! meaning on cgroup v2 is a [`Warning`]. Must never: write a file that OCI did not ask for.
//!
//! `memory.oom.group` is one of those: OCI has no field for it, so the kernel's default stays and an out-of-memory
//! kill takes one process, not the container. A spec that wants the other says so in `unified`.
//!
//! 0 counts as unset wherever the wire cannot tell the two apart (protobuf's default) and 0 makes no sense as a limit.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxPids, LinuxRdma, LinuxResources};

use super::{Cgroup, Error};

/// Something in the resources that cgroup v2 cannot or need not do, and that does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number, or none for `max`.
pub(super) type Limit = Option<u64>;

/// The values in force that a plan depends on. Absent files read as unlimited and unused.
#[derive(Debug, Default)]
pub(super) struct Now {
    /// `memory.max`.
    pub(super) memory_max: Limit,
    /// `memory.swap.max`.
    pub(super) swap_max: Limit,
    /// `memory.current`.
    pub(super) memory_current: u64,
    /// The first word of `cpu.max`.
    pub(super) cpu_quota: Limit,
    /// Whether `io.bfq.weight` is there.
    pub(super) has_bfq: bool,
}

/// One write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: String,
    pub(super) value: String,
    pub(super) absent: Absent,
}

/// What it means that a setting's file is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// The limit cannot be held.
    Refuse,
    /// What was asked for is so anyway.
    Satisfied,
    /// So anyway, but worth a line in the log.
    Warn(&'static str),
}

/// Everything to do, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) settings: Vec<Setting>,
    pub(super) warnings: Vec<Warning>,
}

impl Plan {
    pub(super) fn set(&mut self, file: impl Into<String>, value: impl fmt::Display, absent: Absent) {
        self.settings.push(Setting { file: file.into(), value: value.to_string(), absent });
    }

    /// Sets a limit; `max` needs no controller.
    pub(super) fn limit(&mut self, file: impl Into<String>, limit: Limit) {
        let absent = if limit.is_none() { Absent::Satisfied } else { Absent::Refuse };
        self.set(file, limit_text(limit), absent);
    }

    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(Warning(text.into()));
    }
}

pub(super) fn limit_text(limit: Limit) -> String {
    limit.map_or_else(|| "max".to_owned(), |value| value.to_string())
}

/// Reads `max` or a number, as the kernel prints limits.
pub(super) fn parse_limit(text: &str) -> Option<Limit> {
    match text.trim() {
        "max" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

/// An OCI limit: unset and 0 are none, -1 is `max`.
pub(super) fn oci_limit(field: &str, value: Option<i64>) -> Result<Option<Limit>, Error> {
    match value {
        None | Some(0) => Ok(None),
        Some(-1) => Ok(Some(None)),
        Some(value) => match u64::try_from(value) {
            Ok(value) => Ok(Some(Some(value))),
            Err(_) => Err(Error::resource(field, format!("{value} is neither a limit nor -1 (unlimited)"))),
        },
    }
}

impl Cgroup {
    /// Applies the limits in `resources`, to a new cgroup or to a live one. Device rules are not among them: see
    /// [`Cgroup::apply_devices`].
    ///
    /// # Errors
    /// [`Error::Resource`] before anything is written if a value cannot be right. [`Error::Write`] with the file and
    /// the value that the kernel refused; what came before it stays. [`Error::NoController`],
    /// [`Error::ControllerRefused`] or [`Error::NoFile`] if a limit needs what the kernel does not have.
    pub fn apply(&self, resources: &LinuxResources) -> Result<Vec<Warning>, Error> {
        let plan = plan(resources, &self.now()?)?;
        let mut warnings = plan.warnings;
        for Setting { file, value, absent } in plan.settings {
            if self.directory.write(&file, &value)? {
                continue;
            }
            match absent {
                Absent::Refuse => return Err(self.explain_missing(&file)?),
                Absent::Satisfied => {}
                Absent::Warn(reason) => warnings.push(Warning(format!("{file} is missing: {reason}"))),
            }
        }
        Ok(warnings)
    }

    fn now(&self) -> Result<Now, Error> {
        let limit = |file| {
            let text = self.directory.read(file)?.unwrap_or_default();
            Ok::<_, Error>(text.split_whitespace().next().and_then(parse_limit).flatten())
        };
        Ok(Now {
            memory_max: limit("memory.max")?,
            swap_max: limit("memory.swap.max")?,
            memory_current: limit("memory.current")?.unwrap_or(0),
            cpu_quota: limit("cpu.max")?,
            has_bfq: self.directory.has("io.bfq.weight"),
        })
    }
}

/// What to write for `resources`, in order; `unified` comes last and so has the last word.
pub(super) fn plan(resources: &LinuxResources, now: &Now) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    if let Some(cpu) = resources.cpu() {
        plan_cpu(cpu, now, &mut plan)?;
    }
    if let Some(memory) = resources.memory() {
        super::memory::plan(memory, now, &mut plan)?;
    }
    if let Some(pids) = resources.pids() {
        plan_pids(pids, &mut plan);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        plan_hugepages(limit, &mut plan)?;
    }
    if let Some(block_io) = resources.block_io() {
        super::io::plan(block_io, now, &mut plan)?;
    }
    if let Some(rdma) = resources.rdma() {
        plan_rdma(rdma, &mut plan)?;
    }
    if let Some(network) = resources.network()
        && (network.class_id().is_some_and(|id| id != 0)
            || network.priorities().iter().flatten().next().is_some())
    {
        plan.warn("network class and priorities: cgroup v2 has neither");
    }
    if let Some(unified) = resources.unified() {
        plan_unified(unified, &mut plan)?;
    }
    Ok(plan)
}

/// v1 shares (2 to 262144, 1024 by default) as a v2 weight (1 to 10000), on the straight line that container
/// runtimes agreed on. Unlike the later curve, it keeps the ratio between the containers of a pod.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn plan_cpu(cpu: &LinuxCpu, now: &Now, plan: &mut Plan) -> Result<(), Error> {
    let idle = match cpu.idle() {
        None => false,
        Some(idle @ (0 | 1)) => {
            plan.set("cpu.idle", idle, if idle == 1 { Absent::Refuse } else { Absent::Satisfied });
            idle == 1
        }
        Some(other) => return Err(Error::resource("cpu.idle", format!("{other} is neither 0 nor 1"))),
    };
    match cpu.shares() {
        None | Some(0) => {}
        Some(_) if idle => plan.warn("cpu.shares: an idle cgroup has no weight"),
        Some(shares) => plan.set("cpu.weight", weight_of_shares(shares), Absent::Refuse),
    }
    let burst = cpu.burst();
    let period = cpu.period().filter(|&period| period != 0);
    // Any negative quota is unlimited; that is what v1 reads back as -1.
    let quota = cpu.quota().filter(|&quota| quota != 0).map(|quota| u64::try_from(quota).ok());
    if quota.is_some() || period.is_some() {
        // The burst may not exceed the quota at any moment, so it steps aside while the quota changes.
        if burst.is_some() && quota.is_some() {
            plan.set("cpu.max.burst", 0, Absent::Satisfied);
        }
        let quota = quota.unwrap_or(now.cpu_quota);
        let absent = if quota.is_none() { Absent::Satisfied } else { Absent::Refuse };
        let text = limit_text(quota);
        // One number leaves the period as it is (cgroup-v2, "cpu.max").
        let value = period.map_or_else(|| text.clone(), |period| format!("{text} {period}"));
        plan.set("cpu.max", value, absent);
    }
    if let Some(burst) = burst {
        plan.set("cpu.max.burst", burst, if burst == 0 { Absent::Satisfied } else { Absent::Refuse });
    }
    if cpu.realtime_runtime().unwrap_or(0) > 0 || cpu.realtime_period().unwrap_or(0) > 0 {
        plan.warn("cpu.realtimeRuntime and cpu.realtimePeriod: cgroup v2 has neither");
    }
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_deref().map(str::trim).filter(|list| !list.is_empty()) {
            plan.set(file, list, Absent::Refuse);
        }
    }
    Ok(())
}

fn plan_pids(pids: &LinuxPids, plan: &mut Plan) {
    plan.limit("pids.max", u64::try_from(pids.limit()).ok().filter(|&limit| limit > 0));
}

fn plan_hugepages(hugepages: &LinuxHugepageLimit, plan: &mut Plan) -> Result<(), Error> {
    let size = hugepages.page_size();
    let digits = ["KB", "MB", "GB"].into_iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::resource("hugepageLimits.pageSize", format!("{size:?} is no size such as 2MB")));
    }
    let limit = u64::try_from(hugepages.limit()).ok();
    // Kubelets send a limit of 0 for every page size of the host, which the guest need not have.
    let absent = match limit {
        None => Absent::Satisfied,
        Some(0) => Absent::Warn("no huge pages of this size can be limited here"),
        Some(_) => Absent::Refuse,
    };
    plan.set(format!("hugetlb.{size}.max"), limit_text(limit), absent);
    // Counts at mmap(2) instead of at the page fault, which would end in SIGBUS. Linux 5.7.
    plan.set(format!("hugetlb.{size}.rsvd.max"), limit_text(limit), Absent::Satisfied);
    Ok(())
}

fn plan_rdma(rdma: &HashMap<String, LinuxRdma>, plan: &mut Plan) -> Result<(), Error> {
    for (device, limits) in rdma.iter().collect::<BTreeMap<_, _>>() {
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(Error::resource("rdma", format!("{device:?} is no device name")));
        }
        let mut value = device.clone();
        for (key, limit) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())] {
            if let Some(limit) = limit {
                value += &format!(" {key}={limit}");
            }
        }
        if value.len() > device.len() {
            plan.set("rdma.max", value, Absent::Refuse);
        }
    }
    Ok(())
}

fn plan_unified(unified: &HashMap<String, String>, plan: &mut Plan) -> Result<(), Error> {
    for (file, text) in unified.iter().collect::<BTreeMap<_, _>>() {
        let refused = |problem| Err(Error::resource(format!("unified[{file:?}]"), problem));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !file.contains('.') || file.starts_with('.') || !file.bytes().all(plain) {
            return refused("not the name of a control file");
        }
        // The others are the runtime's: processes, freezer, kill, and what children get.
        let limits = ["cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"];
        if file.starts_with("cgroup.") && !limits.contains(&file.as_str()) {
            return refused("this file is not a resource");
        }
        // Nested keyed files take one line per write.
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            plan.set(file, line, Absent::Refuse);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
