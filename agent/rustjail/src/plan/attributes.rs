//! Attributes of a process that are neither who it is nor what it runs: scheduling, priorities, affinity, execution
//! domain, labels.

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxIOPriority, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, Process, Scheduler as SpecScheduler,
};
use serde::{Deserialize, Serialize};

use super::PlanError;

/// What the kernel is told of a process besides its identity. All unset leaves it as its container's others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Scheduling policy and its parameters.
    pub scheduler: Option<Scheduler>,
    /// As `ioprio_set(2)` takes it: class and level.
    pub io_priority: Option<u32>,
    /// As `personality(2)` takes it.
    pub personality: Option<u64>,
    /// CPUs it may run on while its jail is built, sorted.
    pub initial_cpus: Vec<u32>,
    /// CPUs its program may run on, sorted; empty leaves those of its cgroup.
    pub cpus: Vec<u32>,
    /// AppArmor profile of the program.
    pub apparmor_profile: Option<String>,
    /// SELinux context of the program.
    pub selinux_label: Option<String>,
}

/// `struct sched_attr` of `sched_setattr(2)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// `SCHED_*` number.
    pub policy: u32,
    /// `SCHED_FLAG_*` bits.
    pub flags: u64,
    /// -20 to 19, of the policies that have no priority.
    pub nice: i32,
    /// 1 to 99, of the real-time policies.
    pub priority: u32,
    /// Nanoseconds, of the deadline policy.
    pub runtime: u64,
    /// Nanoseconds, of the deadline policy.
    pub deadline: u64,
    /// Nanoseconds, of the deadline policy.
    pub period: u64,
}

impl Attributes {
    pub(super) fn of_spec(
        process: &Process,
        personality: Option<&LinuxPersonality>,
    ) -> Result<Attributes, PlanError> {
        Ok(Attributes {
            scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
            io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
            personality: personality.map(domain).transpose()?,
            initial_cpus: Vec::new(),
            cpus: Vec::new(),
            apparmor_profile: label("process.apparmorProfile", process.apparmor_profile())?,
            selinux_label: label("process.selinuxLabel", process.selinux_label())?,
        })
    }

    /// Adds what concerns further processes only (runtime-spec, "execCPUAffinity").
    pub(super) fn of_exec(&mut self, affinity: Option<&ExecCPUAffinity>) -> Result<(), PlanError> {
        let Some(affinity) = affinity else { return Ok(()) };
        self.initial_cpus = cpus("process.execCPUAffinity.initial", affinity.initial())?;
        self.cpus = cpus("process.execCPUAffinity.final", affinity.cpu_affinity_final())?;
        Ok(())
    }
}

fn scheduler(spec: &SpecScheduler) -> Result<Scheduler, PlanError> {
    let invalid = |text: String| Err(PlanError::Invalid(format!("process.scheduler.{text}")));
    // include/uapi/linux/sched.h
    let policy = match spec.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        // Reserved, and never built into the kernel.
        LinuxSchedulerPolicy::SchedIso => return invalid("policy SCHED_ISO is in no kernel".into()),
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let (real_time, deadline) = (matches!(policy, 1 | 2), policy == 6);
    let nice = spec.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return invalid(format!("nice {nice} is not within -20 to 19"));
    }
    if nice != 0 && (real_time || deadline) {
        return invalid(format!("nice {nice}: only the policies without priorities have one"));
    }
    let priority = spec.priority().unwrap_or(0);
    let range = if real_time { 1..=99 } else { 0..=0 };
    if !range.contains(&priority) {
        return invalid(format!(
            "priority {priority} is not within {} to {} for this policy",
            range.start(),
            range.end()
        ));
    }
    let times = [spec.runtime(), spec.deadline(), spec.period()].map(|time| time.unwrap_or(0));
    if !deadline && times != [0; 3] {
        return invalid("runtime, deadline and period are for SCHED_DEADLINE".into());
    }
    // sched(7), "SCHED_DEADLINE"; below 1024 ns the kernel counts none. A period of 0 is the deadline.
    let [runtime, latest, period] = times;
    if deadline && !(runtime >= 1024 && runtime <= latest && (period == 0 || latest <= period)) {
        return invalid(format!(
            "runtime {runtime}, deadline {latest} and period {period} do not rise from 1024 nanoseconds on"
        ));
    }
    let mut flags = 0;
    for flag in spec.flags().iter().flatten() {
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            // The spec has no field for the clamps themselves.
            LinuxSchedulerFlag::SchedFlagUtilClampMin | LinuxSchedulerFlag::SchedFlagUtilClampMax => {
                return invalid("flags: there is no field for a utilization clamp".into());
            }
        };
    }
    Ok(Scheduler {
        policy,
        flags,
        nice,
        priority: priority.unsigned_abs(),
        runtime: times[0],
        deadline: times[1],
        period: times[2],
    })
}

/// Class in the upper bits, level in the lower 13 (`ioprio_set(2)`).
fn io_priority(spec: &LinuxIOPriority) -> Result<u32, PlanError> {
    let class = match spec.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(spec.priority()) {
        Ok(level @ 0..=7) => Ok(class << 13 | level),
        _ => Err(PlanError::Invalid(format!(
            "process.ioPriority.priority {} is not within 0 to 7",
            spec.priority()
        ))),
    }
}

fn domain(spec: &LinuxPersonality) -> Result<u64, PlanError> {
    if let Some(flag) = spec.flags().iter().flatten().next() {
        // The runtime spec defines none.
        return Err(PlanError::Invalid(format!("linux.personality.flags has the unknown flag {flag:?}")));
    }
    Ok(match spec.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

fn label(field: &str, text: &Option<String>) -> Result<Option<String>, PlanError> {
    match text.as_deref() {
        None | Some("") => Ok(None),
        Some(text) if text.contains(['\0', '\n']) => {
            Err(PlanError::Invalid(format!("{field} {text:?} is no label")))
        }
        Some(text) => Ok(Some(text.to_owned())),
    }
}

/// The most CPUs a set names: `CONFIG_NR_CPUS` of the largest kernels.
const MOST_CPUS: u32 = 8192;

/// Reads a list such as `0-3,7` (`cpuset(7)`, "List format").
fn cpus(field: &str, text: &Option<String>) -> Result<Vec<u32>, PlanError> {
    let mut list = Vec::new();
    for part in text.iter().flat_map(|text| text.split(',')) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u32>().ok().filter(|cpu| *cpu < MOST_CPUS);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => list.extend(first..=last),
            _ => return Err(PlanError::Invalid(format!("{field}: {part:?} is no range of CPUs"))),
        }
    }
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: serde_json::Value) -> Result<Attributes, String> {
        let mut process = serde_json::json!({ "cwd": "/", "user": { "uid": 0, "gid": 0 } });
        process.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        let process: Process = serde_json::from_value(process).map_err(|error| error.to_string())?;
        let mut attributes = Attributes::of_spec(&process, None).map_err(|error| error.to_string())?;
        attributes.of_exec(process.exec_cpu_affinity().as_ref()).map_err(|error| error.to_string())?;
        Ok(attributes)
    }

    #[test]
    fn each_policy_has_its_own_parameters() {
        let scheduler = |text: &str| {
            of(serde_json::json!({ "scheduler": serde_json::from_str::<serde_json::Value>(text).unwrap() }))
        };
        let batch = scheduler(r#"{"policy":"SCHED_BATCH","nice":5,"flags":["SCHED_FLAG_RESET_ON_FORK"]}"#);
        let batch = batch.unwrap_or_else(|_| scheduler(r#"{"policy":"SCHED_BATCH","nice":5}"#).unwrap());
        assert_eq!(batch.scheduler.map(|s| (s.policy, s.nice)), Some((3, 5)));
        let wrong = [
            (r#"{"policy":"SCHED_FIFO"}"#, "priority 0 is not within 1 to 99"),
            (r#"{"policy":"SCHED_OTHER","priority":3}"#, "not within 0 to 0"),
            (r#"{"policy":"SCHED_RR","priority":3,"nice":1}"#, "nice 1"),
            (r#"{"policy":"SCHED_OTHER","nice":20}"#, "nice 20"),
            (r#"{"policy":"SCHED_BATCH","runtime":5}"#, "SCHED_DEADLINE"),
            (r#"{"policy":"SCHED_ISO"}"#, "in no kernel"),
        ];
        for (json, text) in wrong {
            let error = scheduler(json).unwrap_err();
            assert!(error.contains(text), "{json}: {error}");
        }
    }

    #[test]
    fn io_priorities_have_eight_levels() {
        let of = |level: i64| {
            of(serde_json::json!({ "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": level } }))
        };
        assert_eq!(of(7).unwrap().io_priority, Some(2 << 13 | 7));
        assert!(of(8).unwrap_err().contains("not within 0 to 7"));
        assert!(of(-1).unwrap_err().contains("not within 0 to 7"));
    }

    #[test]
    fn lists_of_cpus() {
        let of = |list: &str| of(serde_json::json!({ "execCPUAffinity": { "final": list } }));
        assert_eq!(of("3,0-1,1").unwrap().cpus, [0, 1, 3]);
        assert!(of("3-1").unwrap_err().contains("no range"));
        assert!(of("99999").unwrap_err().contains("no range"));
    }
}
