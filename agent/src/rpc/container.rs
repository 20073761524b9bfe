//! The life of containers, and their statistics.

use protocols::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, CreateContainerRequest, ExecProcessRequest,
    GetDiagnosticDataRequest, GetDiagnosticDataResponse, HugetlbStats, MemoryData, MemoryStats, OOMEvent,
    PidsStats, RemoveContainerRequest, StatsContainerResponse, ThrottlingData, UpdateContainerRequest,
};
use protocols::spec;
use rustjail::cgroup::{self, MemoryUsage};

use super::status::Failure;
use super::validate;
use crate::container::Tools;
use crate::pod::Pod;

/// The log that GetDiagnosticData gives.
const TERMINATION_LOG: &str = "termination-log";

pub(super) async fn create(pod: &Pod, request: CreateContainerRequest) -> Result<(), Failure> {
    let (id, request) = validate::create(request)?;
    // Boxed, since each call around this one would hold it, and move it on.
    Ok(pod.create_container(id, Box::new(request)).await?)
}

pub(super) async fn start(pod: &Pod, id: &str) -> Result<(), Failure> {
    Ok(pod.container(id)?.start().await?)
}

pub(super) async fn remove(pod: &Pod, request: RemoveContainerRequest) -> Result<(), Failure> {
    Ok(pod.container(&request.container_id)?.remove(request.timeout).await?)
}

pub(super) async fn exec(pod: &Pod, request: ExecProcessRequest) -> Result<(), Failure> {
    let (container, request) = validate::exec(request)?;
    Ok(pod.container(&container)?.exec(Box::new(request)).await?)
}

pub(super) async fn pause(pod: &Pod, id: &str) -> Result<(), Failure> {
    Ok(pod.container(id)?.pause().await?)
}

pub(super) async fn resume(pod: &Pod, id: &str) -> Result<(), Failure> {
    Ok(pod.container(id)?.resume().await?)
}

pub(super) async fn update(pod: &Pod, request: UpdateContainerRequest) -> Result<(), Failure> {
    let container = pod.container(&request.container_id)?;
    // COMPAT(kata): `an_update_without_resources_changes_nothing`. Shims send it.
    let Some(wire) = request.resources.into_option() else { return Ok(()) };
    Ok(container.update(spec::resources_from_wire(&wire)?).await?)
}

/// Waits for the next kill. Kills that nobody was told of are told before the end of the sandbox, after which there are none.
pub(super) async fn oom_event(pod: &Pod, tools: &Tools) -> Result<OOMEvent, Failure> {
    let next = tokio::select! {
        biased;
        next = tools.memory_events.next() => next,
        () = pod.ended() => None,
    };
    let id = next.ok_or_else(|| Failure::internal("the sandbox has ended"))?;
    Ok(OOMEvent { container_id: id.to_string(), ..Default::default() })
}

pub(super) async fn diagnostics(
    pod: &Pod,
    request: GetDiagnosticDataRequest,
) -> Result<GetDiagnosticDataResponse, Failure> {
    // Whatever a shim calls the end of it.
    if !request.log_type.starts_with("termination") {
        let text = format!("log type {:?} is unknown (there is: {TERMINATION_LOG})", request.log_type);
        return Err(Failure::invalid(text));
    }
    let data = pod.container(&request.container_id)?.termination_message().await?;
    Ok(GetDiagnosticDataResponse { data, ..Default::default() })
}

pub(super) async fn stats(pod: &Pod, id: &str) -> Result<StatsContainerResponse, Failure> {
    let stats = pod.container(id)?.stats().await?;
    Ok(StatsContainerResponse { cgroup_stats: Some(encode(stats)).into(), ..Default::default() })
}

fn encode(stats: cgroup::Stats) -> CgroupStats {
    let cpu = CpuStats {
        cpu_usage: Some(CpuUsage {
            total_usage: stats.cpu.total_ns,
            usage_in_kernelmode: stats.cpu.system_ns,
            usage_in_usermode: stats.cpu.user_ns,
            ..Default::default()
        })
        .into(),
        throttling_data: Some(ThrottlingData {
            periods: stats.cpu.periods,
            throttled_periods: stats.cpu.throttled_periods,
            throttled_time: stats.cpu.throttled_ns,
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    let memory = MemoryStats {
        cache: stats.memory.cache,
        usage: Some(memory_data(&stats.memory.usage)).into(),
        swap_usage: Some(memory_data(&stats.memory.swap)).into(),
        kernel_usage: Some(memory_data(&stats.memory.kernel)).into(),
        // cgroup v2 always counts what is below.
        use_hierarchy: true,
        stats: stats.memory.stat.into_iter().collect(),
        ..Default::default()
    };
    let pids =
        PidsStats { current: stats.pids.current, limit: stats.pids.limit.unwrap_or(0), ..Default::default() };
    let mut blkio = BlkioStats::default();
    for device in &stats.io {
        let entry = |op: &str, value: u64| BlkioStatsEntry {
            major: device.major,
            minor: device.minor,
            op: op.to_owned(),
            value,
            ..Default::default()
        };
        let bytes = [
            entry("Read", device.read_bytes),
            entry("Write", device.write_bytes),
            entry("Discard", device.discard_bytes),
        ];
        let counts =
            [entry("Read", device.reads), entry("Write", device.writes), entry("Discard", device.discards)];
        blkio.io_service_bytes_recursive.extend(bytes);
        blkio.io_serviced_recursive.extend(counts);
    }
    let hugetlb = stats.hugetlb.into_iter().map(|(size, now)| {
        (size, HugetlbStats { usage: now.usage, failcnt: now.failures, ..Default::default() })
    });
    CgroupStats {
        cpu_stats: Some(cpu).into(),
        memory_stats: Some(memory).into(),
        pids_stats: Some(pids).into(),
        blkio_stats: Some(blkio).into(),
        hugetlb_stats: hugetlb.collect(),
        ..Default::default()
    }
}

fn memory_data(usage: &MemoryUsage) -> MemoryData {
    MemoryData {
        usage: usage.usage,
        max_usage: usage.max_usage,
        failcnt: usage.failures,
        // COMPAT(kata): `statistics_tell_what_was_used`. What the shims take for "no limit".
        limit: usage.limit.unwrap_or(u64::MAX),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_keep_their_places() {
        let mut stats = cgroup::Stats::default();
        stats.cpu.total_ns = 7;
        stats.cpu.throttled_ns = 8;
        stats.memory.usage.usage = 9;
        stats.memory.stat.insert("anon".into(), 10);
        stats.io.push(cgroup::IoStats { major: 254, writes: 3, ..Default::default() });
        let wire = encode(stats);
        assert_eq!(wire.cpu_stats.cpu_usage.total_usage, 7);
        assert_eq!(wire.cpu_stats.throttling_data.throttled_time, 8);
        assert_eq!(wire.memory_stats.usage.usage, 9);
        assert_eq!(wire.memory_stats.usage.limit, u64::MAX);
        assert_eq!(wire.memory_stats.stats["anon"], 10);
        assert_eq!(wire.pids_stats.limit, 0);
        let writes = &wire.blkio_stats.io_serviced_recursive[1];
        assert_eq!((writes.major, writes.op.as_str(), writes.value), (254, "Write", 3));
    }
}
