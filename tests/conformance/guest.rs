//! The guest itself: its details, processors, clock, random numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use protocols::agent::*;
use tests::Code;

use crate::case::{Case, cases};
use crate::world::World;

pub(crate) const CASES: &[Case] = cases! {
    Bare "GetGuestDetails" Success a_guest_tells_what_it_is_and_has;
    Bare "GetGuestDetails" Failure details_asked_for_with_garbage_are_refused;
    Pod "OnlineCPUMem" Success processors_and_memory_that_are_there_come_online;
    Pod "OnlineCPUMem" Failure processors_that_do_not_come_are_a_timeout;
    Pod "SetGuestDateTime" Success the_clock_is_what_it_was_set_to;
    Pod "SetGuestDateTime" Failure times_that_are_none_are_refused;
    Pod "ReseedRandomDev" Success random_numbers_are_reseeded;
    Pod "ReseedRandomDev" Failure no_bytes_are_no_seed;
};

async fn a_guest_tells_what_it_is_and_has(world: &World) -> Result<()> {
    let request = GuestDetailsRequest { mem_block_size: true, mem_hotplug_probe: true, ..Default::default() };
    let details: GuestDetailsResponse = world.ok("GetGuestDetails", &request).await?;
    let agent = &details.agent_details;
    ensure!(agent.init_daemon && !agent.version.is_empty(), "{agent:?}");
    for driver in ["blk", "ephemeral", "local", "overlayfs"] {
        ensure!(agent.storage_handlers.iter().any(|name| name == driver), "{driver}: {agent:?}");
    }
    for kind in ["blk", "mmioblk", "nvdimm", "scsi", "vfio-pci", "vfio-pci-gk"] {
        ensure!(agent.device_handlers.iter().any(|name| name == kind), "{kind}: {agent:?}");
    }
    ensure!(agent.supports_seccomp && agent.extra_features.iter().any(|name| name == "seccomp"), "{agent:?}");
    ensure!(details.mem_block_size_bytes.is_power_of_two(), "{details:?}");
    // What is not asked for is not told.
    let unasked: GuestDetailsResponse = world.ok("GetGuestDetails", &GuestDetailsRequest::new()).await?;
    ensure!(unasked.mem_block_size_bytes == 0 && !unasked.support_mem_hotplug_probe, "{unasked:?}");
    Ok(())
}

async fn details_asked_for_with_garbage_are_refused(world: &World) -> Result<()> {
    world.garbage("GetGuestDetails").await.map(drop)
}

fn online(nb_cpus: u32, cpu_only: bool) -> OnlineCPUMemRequest {
    OnlineCPUMemRequest { wait: true, nb_cpus, cpu_only, ..Default::default() }
}

async fn processors_and_memory_that_are_there_come_online(world: &World) -> Result<()> {
    // `nb_cpus` is the wanted total; 0 leaves processors alone.
    for (count, only) in [(2, true), (1, true), (0, false), (2, false)] {
        world.done("OnlineCPUMem", &online(count, only)).await?;
    }
    let count = world.shared().await?.sh("grep -c ^processor /proc/cpuinfo").await?;
    ensure!(count == "2", "{count} processors");
    Ok(())
}

async fn processors_that_do_not_come_are_a_timeout(world: &World) -> Result<()> {
    let text = world.refused("OnlineCPUMem", &online(3, true), Code::DEADLINE_EXCEEDED).await?;
    ensure!(text.contains("2 of 3"), "{text}");
    Ok(())
}

fn time(seconds: i64, microseconds: i64) -> SetGuestDateTimeRequest {
    SetGuestDateTimeRequest { Sec: seconds, Usec: microseconds, ..Default::default() }
}

async fn the_clock_is_what_it_was_set_to(world: &World) -> Result<()> {
    world.done("SetGuestDateTime", &time(2_000_000_000, 5)).await?;
    let container = world.shared().await?;
    let told: u64 = container.sh("date +%s").await?.parse()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    world.done("SetGuestDateTime", &time(now.as_secs() as i64, now.subsec_micros().into())).await?;
    // A guest that sees the host's own clock keeps to that, whatever else it is told.
    let keeps_hosts = !container.sh("ls /sys/class/ptp 2>/dev/null; true").await?.is_empty();
    let is_told = (2_000_000_000..2_000_000_100).contains(&told);
    ensure!(is_told || keeps_hosts && told.abs_diff(now.as_secs()) < 10, "{told}");
    Ok(())
}

async fn times_that_are_none_are_refused(world: &World) -> Result<()> {
    for bad in [time(-5, 0), time(5, 1_000_000), time(5, -1), time(i64::MAX, 0)] {
        world.refused("SetGuestDateTime", &bad, Code::INVALID_ARGUMENT).await?;
    }
    Ok(())
}

async fn random_numbers_are_reseeded(world: &World) -> Result<()> {
    // What the Go shim sends after it has started a guest from a template.
    let request = ReseedRandomDevRequest { data: vec![0x5a; 512], ..Default::default() };
    world.done("ReseedRandomDev", &request).await?;
    let text = world.shared().await?.sh("head -c 8 /dev/urandom | wc -c").await?;
    ensure!(text == "8", "{text}");
    Ok(())
}

async fn no_bytes_are_no_seed(world: &World) -> Result<()> {
    world.refused("ReseedRandomDev", &ReseedRandomDevRequest::new(), Code::INVALID_ARGUMENT).await?;
    Ok(())
}
