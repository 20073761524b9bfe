//! Containers that take all that their limits leave them, and leave as much as they can to be cleaned up.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::{Code, Container, expect_code, until};

use crate::scene::Scene;

/// Within this the agent promises that a container's cgroups are gone (docs/architecture/bounds.md).
const CGROUPS: Duration = Duration::from_secs(15);

/// Removes a container within the promise.
async fn removed(container: &Container) -> Result<()> {
    let began = Instant::now();
    container.remove().await.with_context(|| format!("remove {}", container.id()))?;
    ensure!(began.elapsed() < CGROUPS, "its removal took {:?}", began.elapsed());
    Ok(())
}

pub(crate) async fn no_memory(scene: &Scene) -> Result<()> {
    let tiny = scene.guest.container("tiny");
    let tiny = tiny.resources(|resources| resources.Memory.mut_or_insert_default().Limit = 4096);
    let text = expect_code(tiny.try_create().await, Code::RESOURCE_EXHAUSTED);
    ensure!(text.contains("want of memory") && text.contains("4096 bytes is too low"), "{text}");
    Ok(())
}

/// Processes that are killed for memory, one after the other, and nobody asks for the events; then one that fills a tmpfs.
pub(crate) async fn memory_hogs(scene: &Scene) -> Result<()> {
    let hog =
        "for n in $(seq 10); do tail /dev/zero; done; echo killed; cat /dev/zero > /dev/shm/all; sleep 1000";
    let hog = scene.guest.container("hog").script(hog);
    let hog =
        hog.resources(|resources| resources.Memory.mut_or_insert_default().Limit = 16 << 20).run().await?;
    hog.init().read_until("killed").await?;
    scene.neighbour_lives().await.context("beside the hogs")?;
    let kills = "sed -n 's/^oom_kill //p' /guest/cgroup/test/hog/memory.events";
    until("it fills its memory", async || Ok(scene.inspector.sh(kills).await?.parse::<u32>()? > 10)).await?;
    scene.neighbour_lives().await.context("beside a full tmpfs")?;
    removed(&hog).await
}

pub(crate) async fn fork_bomb(scene: &Scene) -> Result<()> {
    let bomb = scene.guest.container("bomb").script("f() { f | f & }; f; while :; do f; sleep 1; done");
    let bomb = bomb.resources(|resources| resources.Pids.mut_or_insert_default().Limit = 1000).run().await?;
    // An exec takes its time beside it; the look is a call.
    until("the bomb goes off", async || Ok(bomb.stats().await?.cgroup_stats.pids_stats.current > 800))
        .await?;
    scene.neighbour_lives().await.context("beside the bomb")?;
    removed(&bomb).await
}

pub(crate) async fn cgroups(scene: &Scene) -> Result<()> {
    // As many below one, and nearly as many in one another as the pod may have (`cgroup.max.depth`).
    let make = "cd /sys/fs/cgroup && seq 1 3000 | xargs mkdir && cd 1 && mkdir -p $(seq -s / 1 50) && echo made; sleep 1000";
    let container = scene.with_own_cgroup("forest").script(make).run().await?;
    container.init().read_until("made").await?;
    let count = scene.inspector.sh("find /guest/cgroup/test/forest -type d | wc -l").await?;
    ensure!(count == "3051", "{count} cgroups");
    removed(&container).await
}
