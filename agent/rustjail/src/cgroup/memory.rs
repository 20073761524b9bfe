//! Memory and swap limits.
//!
//! Owns: the arithmetic between OCI's `swap`, which counts memory and swap together as cgroup v1 did, and v2's
//! `memory.swap.max`, which counts swap alone; and the order of the writes. Promises: a live change never passes
//! through a state tighter than both the old and the new one. Must never: write `memory.high` or `memory.min`.

use oci_spec::runtime::LinuxMemory;

use super::Error;
use super::limits::{Absent, Limit, Now, Plan, limit_text, oci_limit};

pub(super) fn plan(memory: &LinuxMemory, now: &Now, plan: &mut Plan) -> Result<(), Error> {
    let limit = oci_limit("memory.limit", memory.limit())?;
    let reservation = oci_limit("memory.reservation", memory.reservation())?;
    let total = oci_limit("memory.swap", memory.swap())?;
    let swap = swap_alone(limit, total, now)?;

    if let Some(Some(limit)) = limit
        && memory.check_before_update().unwrap_or(false)
        && now.memory_current > limit
    {
        let problem = format!("{limit} is below the {} bytes in use (checkBeforeUpdate)", now.memory_current);
        return Err(Error::resource("memory.limit", problem));
    }

    let mut writes = Vec::new();
    if let Some(limit) = limit {
        writes.push(("memory.max", limit, now.memory_max, Absent::Refuse));
    }
    if let Some(swap) = swap {
        let absent = Absent::Warn("this kernel has no swap, so none is used");
        writes.push(("memory.swap.max", swap, now.swap_max, absent));
    }
    // What is raised comes first: lowering memory.max reclaims at once, and may need the swap that is about to be
    // allowed. The sort is stable, so of two that go down memory is first, while the old swap is still there.
    writes.sort_by_key(|&(_, new, old, _)| is_lower(new, old));
    for (file, new, _, absent) in writes {
        plan.set(file, limit_text(new), if new.is_none() { Absent::Satisfied } else { absent });
    }
    if let Some(reservation) = reservation {
        plan.limit("memory.low", reservation);
    }
    warn_of_v1(memory, plan)
}

fn is_lower(new: Limit, old: Limit) -> bool {
    new.unwrap_or(u64::MAX) < old.unwrap_or(u64::MAX)
}

/// `memory.swap.max` for OCI's memory and memory+swap limits; none to leave it alone.
fn swap_alone(limit: Option<Limit>, total: Option<Limit>, now: &Now) -> Result<Option<Limit>, Error> {
    let refused = |problem: String| Err(Error::resource("memory.swap", problem));
    let total = match total {
        // Unlimited memory without a word about swap meant unlimited both on v1.
        None if limit == Some(None) => return Ok(Some(None)),
        None => return Ok(None),
        Some(None) => return Ok(Some(None)),
        Some(Some(total)) => total,
    };
    // An update may name swap only; it counts from the limit in force then.
    match limit.unwrap_or(now.memory_max) {
        None => refused(format!("{total} counts memory and swap together, so it needs a memory.limit")),
        Some(limit) if total < limit => refused(format!(
            "{total} counts memory and swap together, so it cannot be below memory.limit {limit}"
        )),
        Some(limit) => Ok(Some(Some(total - limit))),
    }
}

fn warn_of_v1(memory: &LinuxMemory, plan: &mut Plan) -> Result<(), Error> {
    #[allow(deprecated, reason = "a spec may still hold it, and its author should hear that it does nothing")]
    let kernel = memory.kernel();
    if kernel.is_some_and(|limit| limit > 0) || memory.kernel_tcp().is_some_and(|limit| limit > 0) {
        plan.warn("memory.kernel and memory.kernelTCP: cgroup v2 counts both in memory.max");
    }
    match memory.swappiness() {
        None => {}
        Some(swappiness) if swappiness > 100 => {
            return Err(Error::resource(
                "memory.swappiness",
                format!("{swappiness} is not within 0 and 100"),
            ));
        }
        Some(_) => plan.warn("memory.swappiness: cgroup v2 has none"),
    }
    if memory.disable_oom_killer() == Some(true) {
        plan.warn("memory.disableOOMKiller: cgroup v2 cannot switch it off");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxMemoryBuilder;

    use super::*;

    const MIB: i64 = 1 << 20;

    fn writes(memory: &LinuxMemory, now: &Now) -> Vec<String> {
        let mut planned = Plan::default();
        plan(memory, now, &mut planned).unwrap();
        planned.settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    fn limits(limit: i64, swap: i64) -> LinuxMemory {
        LinuxMemoryBuilder::default().limit(limit).swap(swap).build().unwrap()
    }

    fn now(memory: u64, swap: u64) -> Now {
        Now { memory_max: Some(memory), swap_max: Some(swap), ..Now::default() }
    }

    #[test]
    fn swap_is_what_is_left_of_the_total() {
        let fresh = Now::default();
        assert_eq!(writes(&limits(100, 150), &fresh), ["memory.max=100", "memory.swap.max=50"]);
        assert_eq!(writes(&limits(100, 100), &fresh), ["memory.max=100", "memory.swap.max=0"]);
        assert_eq!(writes(&limits(100, -1), &fresh), ["memory.swap.max=max", "memory.max=100"]);
        assert_eq!(writes(&limits(-1, 0), &fresh), ["memory.max=max", "memory.swap.max=max"]);
        assert_eq!(writes(&limits(100, 0), &fresh), ["memory.max=100"]);
        assert_eq!(writes(&limits(0, 0), &fresh), [""; 0]);
    }

    #[test]
    fn a_live_change_raises_before_it_lowers() {
        assert_eq!(writes(&limits(50, 300), &now(100, 100)), ["memory.swap.max=250", "memory.max=50"]);
        assert_eq!(writes(&limits(200, 250), &now(100, 100)), ["memory.max=200", "memory.swap.max=50"]);
        assert_eq!(writes(&limits(200, 500), &now(100, 100)), ["memory.max=200", "memory.swap.max=300"]);
        assert_eq!(writes(&limits(50, 60), &now(100, 100)), ["memory.max=50", "memory.swap.max=10"]);
    }

    #[test]
    fn swap_alone_counts_from_the_limit_in_force() {
        let swap = LinuxMemoryBuilder::default().swap(150).build().unwrap();
        assert_eq!(writes(&swap, &now(100, 0)), ["memory.swap.max=50"]);
        assert!(plan(&swap, &Now::default(), &mut Plan::default()).is_err());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for memory in [limits(100, 99), limits(-1, 100), limits(-2, 0), limits(100, -3)] {
            let error = plan(&memory, &Now::default(), &mut Plan::default()).unwrap_err();
            assert!(matches!(error, Error::Resource { .. }), "{error}");
        }
        let memory = LinuxMemoryBuilder::default().swappiness(101u64).build().unwrap();
        assert!(plan(&memory, &Now::default(), &mut Plan::default()).is_err());
    }

    #[test]
    fn a_check_before_update_spares_the_processes() {
        let used = Now { memory_current: 20 * MIB as u64, ..Now::default() };
        let check =
            |limit| LinuxMemoryBuilder::default().limit(limit).check_before_update(true).build().unwrap();
        assert!(plan(&check(10 * MIB), &used, &mut Plan::default()).is_err());
        assert_eq!(writes(&check(20 * MIB), &used), ["memory.max=20971520"]);
        assert_eq!(writes(&limits(10 * MIB, 0), &used), ["memory.max=10485760"]);
    }

    #[test]
    fn the_reservation_is_protection() {
        let memory = LinuxMemoryBuilder::default().limit(64 * MIB).reservation(32 * MIB).build().unwrap();
        assert_eq!(writes(&memory, &Now::default()), ["memory.max=67108864", "memory.low=33554432"]);
    }

    #[test]
    fn only_a_missing_swap_file_is_harmless() {
        let mut planned = Plan::default();
        plan(&limits(100, 150), &Now::default(), &mut planned).unwrap();
        assert_eq!(planned.settings[0].absent, Absent::Refuse);
        assert!(matches!(planned.settings[1].absent, Absent::Warn(_)));
    }

    #[test]
    fn what_v2_lacks_is_said() {
        let memory = LinuxMemoryBuilder::default()
            .swappiness(10u64)
            .disable_oom_killer(true)
            .kernel_tcp(5i64)
            .build()
            .unwrap();
        let mut planned = Plan::default();
        plan(&memory, &Now::default(), &mut planned).unwrap();
        assert_eq!((planned.settings.len(), planned.warnings.len()), (0, 3));
    }
}
