//! Output that nobody reads.

use anyhow::{Context as _, Result, ensure};
use tests::until;

use crate::scene::Scene;

/// What unread output may take of the agent: twice 4 MiB and a little (docs/architecture/bounds.md).
const MOST_KIB: u64 = 9 * 1024;
/// Bytes that each of many execs prints.
const TEXT: usize = 120_000;

/// A container's own, while it runs and when it has ended.
pub(crate) async fn talks(scene: &Scene) -> Result<()> {
    let before = scene.inspector.agent_rss_kib().await?;
    let container = scene.guest.container("talks").script("yes & yes >&2 & exec sleep 1000").run().await?;
    scene.neighbour_lives().await.context("beside it")?;
    let now = scene.inspector.agent_rss_kib().await?;
    ensure!(now < before + 1024, "{before} KiB grew to {now} KiB");
    container.signal("", 9).await?;
    ensure!(container.wait().await? == 137);
    Ok(container.remove().await?)
}

/// Of processes that nobody waits for.
pub(crate) async fn unread_output(scene: &Scene) -> Result<()> {
    let before = scene.inspector.agent_rss_kib().await?;
    let container = scene.guest.container("floods").run().await?;
    container.sh(&format!("yes | head -c {TEXT} > /text")).await?;
    let mut last = None;
    for _ in 0..120 {
        last = Some(container.exec(["cat", "/text"]).start().await?);
    }
    // The newest is there; it is read after the look.
    let newest = last.context("no exec")?;
    until("all have ended", async || Ok(container.stats().await?.cgroup_stats.pids_stats.current <= 1))
        .await?;
    let full = scene.inspector.agent_rss_kib().await?;
    println!("agent VmRSS: {before} KiB, {full} KiB with unread output");
    ensure!(full < before + MOST_KIB, "{before} KiB grew to {full} KiB");
    ensure!(newest.finish().await?.stdout.len() == TEXT, "the newest is not whole");
    Ok(container.remove().await?)
}

/// Many small writes cost no more than their bytes.
pub(crate) async fn small_writes(scene: &Scene) -> Result<()> {
    let before = scene.inspector.agent_rss_kib().await?;
    let container = scene.guest.container("drips").run().await?;
    let mut execs = Vec::new();
    for _ in 0..4 {
        let script = "dd if=/dev/zero bs=1 count=60000 2>/dev/null; echo done >&2; sleep 1000";
        execs.push(container.exec(["sh", "-c", script]).start().await?);
    }
    for exec in &execs {
        exec.read_stderr(100).await?;
    }
    let now = scene.inspector.agent_rss_kib().await?;
    println!("agent VmRSS: {before} KiB, {now} KiB with 4 x 60,000 single bytes unread");
    ensure!(now < before + 1536, "{before} KiB grew to {now} KiB");
    Ok(container.remove().await?)
}
