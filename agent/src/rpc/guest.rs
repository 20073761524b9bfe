//! What the guest is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocols::agent::{
    AgentDetails, CopyFileRequest, GuestDetailsRequest, GuestDetailsResponse, MemHotplugByProbeRequest,
    Metrics, OnlineCPUMemRequest, ReseedRandomDevRequest, ResizeVolumeRequest, SetGuestDateTimeRequest,
};
use protocols::csi::{VolumeCondition, VolumeStatsResponse, VolumeUsage, volume_usage::Unit};

use super::api::Api;
use super::policy;
use super::status::Failure;
use super::validate;
use super::{on_a_thread, patiently};
use crate::container::{Tools, follow_memory};
use crate::device::container as device;
use crate::guest::clock::Clock;
use crate::guest::details::{Details, VERSION};
use crate::guest::swap::{self, SwapSource};
use crate::guest::{hotplug, random, resize, volume};
use crate::storage;

pub(super) async fn details(request: GuestDetailsRequest) -> Result<GuestDetailsResponse, Failure> {
    on_a_thread(move || read_details(&request)).await
}

/// Reads sysfs and procfs. Blocks.
fn read_details(request: &GuestDetailsRequest) -> Result<GuestDetailsResponse, Failure> {
    let details = Details::default();
    let supports_seccomp = details.seccomp();
    let mut extra_features: Vec<String> = policy::feature().into_iter().collect();
    extra_features.extend(supports_seccomp.then(|| "seccomp".to_owned()));
    let agent = AgentDetails {
        version: VERSION.to_owned(),
        init_daemon: init::is_pid1(),
        device_handlers: device::KINDS.map(str::to_owned).to_vec(),
        storage_handlers: storage::driver_names().into_iter().map(str::to_owned).collect(),
        supports_seccomp,
        extra_features,
        ..Default::default()
    };
    Ok(GuestDetailsResponse {
        mem_block_size_bytes: if request.mem_block_size { details.memory_block_size()? } else { 0 },
        support_mem_hotplug_probe: request.mem_hotplug_probe && details.memory_probe(),
        agent_details: Some(agent).into(),
        ..Default::default()
    })
}

const SYSFS: &str = "/sys";

pub(super) async fn online(api: Arc<Api>, request: OnlineCPUMemRequest) -> Result<(), Failure> {
    let tools = Arc::clone(&api.tools);
    patiently(&api.pod, &api.tools.patience, move || {
        let result = hotplug::online(&tools.devices, request.nb_cpus, request.cpu_only);
        // Memory may be online though a processor is not.
        follow_memory(&tools.reserve, &tools.storages);
        Ok(result?)
    })
    .await
}

pub(super) async fn probe_memory(
    tools: Arc<Tools>,
    request: MemHotplugByProbeRequest,
) -> Result<(), Failure> {
    on_a_thread(move || {
        let result = hotplug::probe(Path::new(SYSFS), &request.memHotplugProbeAddr);
        follow_memory(&tools.reserve, &tools.storages);
        Ok(result?)
    })
    .await
}

pub(super) async fn metrics(api: Arc<Api>) -> Result<Metrics, Failure> {
    let mut containers = BTreeMap::new();
    for container in api.pod.containers() {
        *containers.entry(container.state().to_string()).or_default() += 1;
    }
    let metrics = on_a_thread(move || Ok(api.metrics.gather(&containers, api.clock.restores()))).await?;
    Ok(Metrics { metrics, ..Default::default() })
}

pub(super) async fn copy_file(api: Arc<Api>, request: CopyFileRequest) -> Result<(), Failure> {
    let entry = validate::copy(request);
    let own = Arc::clone(&api);
    let work = move || Ok(own.copies.copy(&own.tools.paths.shared(), &entry)?);
    patiently(&api.pod, &api.copying, work).await
}

pub(super) async fn reseed(request: ReseedRandomDevRequest) -> Result<(), Failure> {
    on_a_thread(move || Ok(random::reseed(&request.data)?)).await
}

pub(super) async fn add_swap(api: Arc<Api>, place: SwapSource) -> Result<(), Failure> {
    let devices = api.tools.devices.clone();
    patiently(&api.pod, &api.tools.patience, move || Ok(swap::add(&place, &devices)?)).await
}

pub(super) fn set_clock(clock: &Clock, request: &SetGuestDateTimeRequest) -> Result<(), Failure> {
    Ok(clock.set(request.Sec, request.Usec)?)
}

pub(super) async fn volume_stats(path: PathBuf) -> Result<VolumeStatsResponse, Failure> {
    let (bytes, inodes) = on_a_thread(move || Ok(volume::usage(&path)?)).await?;
    let encode = |usage: volume::Usage, unit: Unit| VolumeUsage {
        available: usage.available,
        total: usage.total,
        used: usage.used,
        unit: unit.into(),
        ..Default::default()
    };
    let condition = VolumeCondition { abnormal: false, message: "OK".into(), ..Default::default() };
    Ok(VolumeStatsResponse {
        usage: vec![encode(bytes, Unit::BYTES), encode(inodes, Unit::INODES)],
        volume_condition: Some(condition).into(),
        ..Default::default()
    })
}

pub(super) async fn resize_volume(api: Arc<Api>, request: ResizeVolumeRequest) -> Result<(), Failure> {
    let timeout = api.hotplug_timeout;
    let work = move || Ok(resize::grow(Path::new(&request.volume_guest_path), request.size, timeout)?);
    patiently(&api.pod, &api.tools.patience, work).await
}
