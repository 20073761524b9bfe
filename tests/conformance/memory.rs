//! Memory: probing, swap, reclaim, and file systems in memory.

use anyhow::{Result, ensure};
use protocols::agent::*;
use tests::Code;

use crate::case::{Case, cases};
use crate::sandbox::{SCRATCH, tmpfs};
use crate::world::World;

pub(crate) const CASES: &[Case] = cases! {
    Pod "MemHotplugByProbe" Success no_memory_is_nothing_to_probe;
    Pod "MemHotplugByProbe" Failure a_kernel_without_a_memory_probe_says_so;
    Disks "AddSwap" Success a_swap_disk_is_found_by_its_slots;
    Disks "AddSwap" Failure an_empty_slot_is_no_swap;
    Disks "AddSwapPath" Success a_swap_disk_is_found_by_its_node;
    Disks "AddSwapPath" Failure what_is_no_swap_is_refused;
    Disks "MemAgentMemcgSet" Success settings_of_the_reclaimer_change_one_by_one;
    Disks "MemAgentMemcgSet" Failure settings_of_the_reclaimer_out_of_range_are_refused;
    Disks "MemAgentCompactSet" Success settings_of_the_compactor_change_one_by_one;
    Disks "MemAgentCompactSet" Failure settings_of_the_compactor_out_of_range_are_refused;
    Pod "MemAgentMemcgSet" Failure a_reclaimer_that_is_off_has_no_settings;
    Pod "MemAgentCompactSet" Failure a_compactor_that_is_off_has_no_settings;
    Pod "UpdateEphemeralMounts" Success a_file_system_in_memory_grows_while_it_is_used;
    Pod "UpdateEphemeralMounts" Failure what_is_not_mounted_does_not_grow;
};

async fn no_memory_is_nothing_to_probe(world: &World) -> Result<()> {
    world.done("MemHotplugByProbe", &MemHotplugByProbeRequest::new()).await
}

async fn a_kernel_without_a_memory_probe_says_so(world: &World) -> Result<()> {
    let request = MemHotplugByProbeRequest { memHotplugProbeAddr: vec![1 << 40], ..Default::default() };
    world.refused("MemHotplugByProbe", &request, Code::UNIMPLEMENTED).await?;
    Ok(())
}

/// KiB of swap in the guest.
async fn swap(world: &World) -> Result<u64> {
    Ok(world
        .shared()
        .await?
        .sh("sed -n 's/^SwapTotal:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/meminfo")
        .await?
        .parse()?)
}

/// The slot of a disk on the root complex, from its place in sysfs.
async fn slot(world: &World, disk: &str) -> Result<u32> {
    let inspector = world.inspector().await?;
    let path = inspector.sh(&format!("readlink -f /sys/block/{disk}")).await?;
    let device = path.split('/').find_map(|part| part.strip_prefix("0000:00:"));
    let slot = device.and_then(|device| device.split('.').next());
    let slot = slot.ok_or_else(|| anyhow::anyhow!("{path} is not on the root complex"))?;
    Ok(u32::from_str_radix(slot, 16)?)
}

async fn a_swap_disk_is_found_by_its_slots(world: &World) -> Result<()> {
    let before = swap(world).await?;
    let request = AddSwapRequest { PCIPath: vec![slot(world, "vdb").await?], ..Default::default() };
    world.done("AddSwap", &request).await?;
    let after = swap(world).await?;
    ensure!(after > before, "swap was {before} KiB and is {after} KiB");
    Ok(())
}

async fn an_empty_slot_is_no_swap(world: &World) -> Result<()> {
    let before = swap(world).await?;
    world.refused("AddSwap", &AddSwapRequest::new(), Code::INVALID_ARGUMENT).await?;
    let far = AddSwapRequest { PCIPath: vec![32], ..Default::default() };
    world.refused("AddSwap", &far, Code::INVALID_ARGUMENT).await?;
    let empty = AddSwapRequest { PCIPath: vec![0x1e], ..Default::default() };
    world.refused("AddSwap", &empty, Code::DEADLINE_EXCEEDED).await?;
    ensure!(swap(world).await? == before);
    Ok(())
}

fn path(path: &str) -> AddSwapPathRequest {
    AddSwapPathRequest { path: path.into(), ..Default::default() }
}

async fn a_swap_disk_is_found_by_its_node(world: &World) -> Result<()> {
    let before = swap(world).await?;
    world.done("AddSwapPath", &path("/dev/vdc")).await?;
    let after = swap(world).await?;
    ensure!(after > before, "swap was {before} KiB and is {after} KiB");
    Ok(())
}

async fn what_is_no_swap_is_refused(world: &World) -> Result<()> {
    let before = swap(world).await?;
    world.refused("AddSwapPath", &path(""), Code::INVALID_ARGUMENT).await?;
    // A disk without a swap header, one that is in use, and none.
    world.refused("AddSwapPath", &path("/dev/vdd"), Code::INVALID_ARGUMENT).await?;
    world.refused("AddSwapPath", &path("/dev/vda"), Code::FAILED_PRECONDITION).await?;
    world.refused("AddSwapPath", &path("/dev/vdz"), Code::DEADLINE_EXCEEDED).await?;
    world.refused("AddSwapPath", &path("/run/none"), Code::NOT_FOUND).await?;
    ensure!(swap(world).await? == before);
    Ok(())
}

async fn settings_of_the_reclaimer_change_one_by_one(world: &World) -> Result<()> {
    world.done("MemAgentMemcgSet", &MemAgentMemcgConfig::new()).await?;
    let off = MemAgentMemcgConfig { disabled: Some(true), ..Default::default() };
    world.done("MemAgentMemcgSet", &off).await?;
    let on = MemAgentMemcgConfig {
        disabled: Some(false),
        swap: Some(false),
        swappiness_max: Some(50),
        period_secs: Some(600),
        period_psi_percent_limit: Some(1),
        eviction_psi_percent_limit: Some(1),
        eviction_run_aging_count_min: Some(3),
        ..Default::default()
    };
    world.done("MemAgentMemcgSet", &on).await
}

async fn settings_of_the_reclaimer_out_of_range_are_refused(world: &World) -> Result<()> {
    let pressure = MemAgentMemcgConfig { period_psi_percent_limit: Some(101), ..Default::default() };
    world.refused("MemAgentMemcgSet", &pressure, Code::INVALID_ARGUMENT).await?;
    let swappiness = MemAgentMemcgConfig { swappiness_max: Some(201), ..Default::default() };
    world.refused("MemAgentMemcgSet", &swappiness, Code::INVALID_ARGUMENT).await?;
    Ok(())
}

async fn settings_of_the_compactor_change_one_by_one(world: &World) -> Result<()> {
    world.done("MemAgentCompactSet", &MemAgentCompactConfig::new()).await?;
    let off = MemAgentCompactConfig { disabled: Some(true), ..Default::default() };
    world.done("MemAgentCompactSet", &off).await?;
    let on = MemAgentCompactConfig {
        disabled: Some(false),
        period_secs: Some(600),
        period_psi_percent_limit: Some(1),
        compact_psi_percent_limit: Some(5),
        compact_sec_max: Some(300),
        compact_order: Some(9),
        compact_threshold: Some(1024),
        compact_force_times: Some(u64::MAX),
        ..Default::default()
    };
    world.done("MemAgentCompactSet", &on).await
}

async fn settings_of_the_compactor_out_of_range_are_refused(world: &World) -> Result<()> {
    let pressure = MemAgentCompactConfig { compact_psi_percent_limit: Some(101), ..Default::default() };
    world.refused("MemAgentCompactSet", &pressure, Code::INVALID_ARGUMENT).await?;
    let order = MemAgentCompactConfig { compact_order: Some(64), ..Default::default() };
    world.refused("MemAgentCompactSet", &order, Code::INVALID_ARGUMENT).await?;
    Ok(())
}

async fn a_reclaimer_that_is_off_has_no_settings(world: &World) -> Result<()> {
    let text = world.refused("MemAgentMemcgSet", &MemAgentMemcgConfig::new(), Code::INTERNAL).await?;
    ensure!(text.contains("mem-agent is disabled"), "{text}");
    Ok(())
}

async fn a_compactor_that_is_off_has_no_settings(world: &World) -> Result<()> {
    let text = world.refused("MemAgentCompactSet", &MemAgentCompactConfig::new(), Code::INTERNAL).await?;
    ensure!(text.contains("mem-agent is disabled"), "{text}");
    Ok(())
}

fn grow(storages: Vec<Storage>) -> UpdateEphemeralMountsRequest {
    UpdateEphemeralMountsRequest { storages, ..Default::default() }
}

async fn a_file_system_in_memory_grows_while_it_is_used(world: &World) -> Result<()> {
    let container = world.container().mount("/scratch", "bind", SCRATCH, &["rbind", "rw"]).run().await?;
    container.sh("echo kept > /scratch/file").await?;
    world.done("UpdateEphemeralMounts", &grow(vec![tmpfs(SCRATCH, &["size=8m", "mode=1777"])])).await?;
    let text = container.sh("cat /scratch/file; df -k /scratch | tail -1 | awk '{ print $2 }'").await?;
    ensure!(text == "kept\n8192", "{text}");
    container.sh("rm /scratch/file").await?;
    // Nothing to change is no error.
    world.done("UpdateEphemeralMounts", &grow(Vec::new())).await
}

async fn what_is_not_mounted_does_not_grow(world: &World) -> Result<()> {
    let nowhere = tmpfs("/run/kata-containers/sandbox/ephemeral/none", &["size=8m"]);
    world.refused("UpdateEphemeralMounts", &grow(vec![nowhere]), Code::NOT_FOUND).await?;
    let nonsense = tmpfs(SCRATCH, &["size=sweet"]);
    world.refused("UpdateEphemeralMounts", &grow(vec![nonsense]), Code::INVALID_ARGUMENT).await?;
    Ok(())
}
