//! Memory that a container does not use any more goes back to the guest, and free memory is put together.

use anyhow::{Context as _, Result};
use machine::vm::AgentClient;
use protocols::agent::{MemAgentCompactConfig, MemAgentMemcgConfig};
use tempfile::TempDir;
use tests::{Code, Container, Guest, expect_code, until};

const MIB: u64 = 1 << 20;
/// What a container reads.
const READ: u64 = 64 * MIB;
/// A guest under emulation stalls for reasons of its own: here no pressure holds anything back.
const CALM: [&str; 4] = [
    "agent.mem_agent_memcg_period_psi_percent_limit=100",
    "agent.mem_agent_memcg_eviction_psi_percent_limit=100",
    "agent.mem_agent_compact_period_psi_percent_limit=100",
    "agent.mem_agent_compact_psi_percent_limit=100",
];

async fn boot(directory: &TempDir, words: &[&str]) -> Result<Guest> {
    let disk = directory.path().join("data.raw");
    std::fs::File::create(&disk)?.set_len(READ)?;
    let guest = Guest::builder()
        .cmdline(&["agent.mem_agent_enable=1"])
        .cmdline(&CALM)
        .cmdline(words)
        .disk(&disk)
        .boot()
        .await?;
    guest.sandbox().await?;
    Ok(guest)
}

/// Reads all of the disk and keeps it open: closed for good, a device takes its cache with it.
async fn reader(guest: &Guest) -> Result<Container> {
    guest
        .container("reader")
        .privileged()
        .mount("/guest/dev", "bind", "/dev", &["rbind"])
        .script("exec 3</guest/dev/vdb; dd bs=1M <&3 >/dev/null 2>&1; echo read; exec sleep 1000")
        .run()
        .await
}

/// Bytes of page cache, and the most memory there ever was.
async fn cache(container: &Container) -> Result<(u64, u64)> {
    let stats = container.stats().await?;
    let memory = &stats.cgroup_stats.memory_stats;
    Ok((memory.cache, memory.usage.max_usage))
}

#[tokio::test]
async fn a_container_gives_back_what_it_has_read_and_left() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let words =
        ["agent.mem_agent_memcg_period_secs=1", "agent.mem_agent_memcg_eviction_run_aging_count_min=2"];
    let guest = boot(&directory, &words).await?;
    let container = reader(&guest).await?;
    until("the cache is taken", async || {
        let (now, most) = cache(&container).await?;
        Ok(most > READ / 2 && now < READ / 8)
    })
    .await?;
    // Said after it is done.
    until("a line of it", async || Ok(guest.vm().console_log().contains("memory reclaimed"))).await?;
    // It lives on, and what it needs comes back.
    assert_eq!(container.sh("dd if=/guest/dev/vdb bs=1M count=1 2>/dev/null | wc -c").await?, "1048576");
    Ok(())
}

#[tokio::test]
async fn settings_of_the_reclaimer_count_at_once() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let guest = boot(&directory, &["agent.mem_agent_memcg_disable=1"]).await?;
    let set = async |change: MemAgentMemcgConfig| {
        guest.api().mem_agent_memcg_set(AgentClient::call(), &change).await
    };
    let container = reader(&guest).await?;
    until("the disk is read", async || Ok(cache(&container).await?.0 > READ / 2)).await?;
    // A refused change changes nothing, not even what is right in it.
    let wrong = MemAgentMemcgConfig {
        disabled: Some(false),
        period_secs: Some(1),
        swappiness_max: Some(201),
        ..Default::default()
    };
    let text = expect_code(set(wrong).await, Code::INVALID_ARGUMENT);
    assert!(text.contains("swappiness_max is 201"), "{text}");
    assert!(!guest.vm().console_log().contains("memory settings changed"));
    set(MemAgentMemcgConfig { period_secs: Some(1), ..Default::default() }).await?;
    set(MemAgentMemcgConfig { disabled: Some(false), ..Default::default() }).await?;
    until("the cache is taken", async || Ok(cache(&container).await?.0 < READ / 8)).await?;
    // With a period of ten minutes what is read again stays.
    set(MemAgentMemcgConfig { period_secs: Some(600), ..Default::default() }).await?;
    container.sh("dd if=/guest/dev/vdb of=/dev/null bs=1M 2>/dev/null").await?;
    assert!(cache(&container).await?.0 > READ / 2);
    Ok(())
}

#[tokio::test]
async fn free_memory_in_pieces_is_put_together() -> Result<()> {
    let directory = tempfile::tempdir()?;
    // Off while memory is put into pieces, of which the kernel sees the last ones seconds later: a compaction that
    // begins amid of that gives up.
    let words = ["agent.mem_agent_compact_period_secs=1", "agent.mem_agent_compact_disable=1"];
    let guest = boot(&directory, &words).await?;
    let container = guest.container("c1").run().await?;
    let set = async |change: MemAgentCompactConfig| {
        guest.api().mem_agent_compact_set(AgentClient::call(), &change).await
    };
    let switch = async |disabled: bool| {
        set(MemAgentCompactConfig { disabled: Some(disabled), ..Default::default() }).await
    };
    // Two files take turns at 32,768 pages, and one of them goes. The kernel compacts when a seventh of what is free
    // is scattered, so some of it is filled before.
    let script = r#"dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null
        awk 'BEGIN { page = "x"; while (length(page) < 4096) page = page page
            for (i = 0; i < 16384; i++) {
                printf "%s", page > "/left"; fflush("/left"); printf "%s", page > "/right"; fflush("/right")
            } }'
        rm /left"#;
    container.sh(script).await?;
    let number = |line: &str, name: &str| -> Option<u64> {
        let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
        rest.trim_start_matches('"').split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let pieces = "awk '{ p = 1; for (i = 5; i < NF - 1; i++) { sum += $i * p; p *= 2 } } END { print sum }' /proc/buddyinfo";
    until("memory in pieces", async || {
        Ok(container.sh(pieces).await?.parse::<u64>().context("pages in pieces")? > 13_000)
    })
    .await?;
    switch(false).await?;
    let mut seen = 0;
    until("a compaction that moves pages", async || {
        let log = guest.vm().console_log();
        let compactions: Vec<&str> = log.lines().filter(|line| line.contains("memory compacted")).collect();
        // How far the kernel goes is its own affair: what counts is that it was made to move pages.
        let moved = |line: &&str| line.contains("Scattered") && number(line, "moved").unwrap_or(0) > 0;
        let good = compactions.iter().any(moved);
        if !good && compactions.len() > seen {
            // Switched on again, the agent counts what is left as new.
            seen = compactions.len();
            switch(true).await?;
            switch(false).await?;
        }
        Ok(good)
    })
    .await?;
    // The kernel's own setting is the agent's while this is on, and goes back after.
    let proactiveness = "cat /proc/sys/vm/compaction_proactiveness";
    set(MemAgentCompactConfig { period_secs: Some(600), ..Default::default() }).await?;
    until("the end of it", async || Ok(container.sh(proactiveness).await? == "0")).await?;
    let wrong = MemAgentCompactConfig { disabled: Some(true), compact_order: Some(11), ..Default::default() };
    expect_code(set(wrong).await, Code::INVALID_ARGUMENT);
    assert_eq!(container.sh(proactiveness).await?, "0");
    set(MemAgentCompactConfig { disabled: Some(true), ..Default::default() }).await?;
    until("the kernel's own setting", async || Ok(container.sh(proactiveness).await? == "20")).await?;
    Ok(())
}

#[tokio::test]
async fn settings_of_what_is_off_are_refused() -> Result<()> {
    let guest = Guest::boot().await?;
    let call = AgentClient::call;
    let change = MemAgentMemcgConfig { period_secs: Some(1), ..Default::default() };
    let text = expect_code(guest.api().mem_agent_memcg_set(call(), &change).await, Code::INTERNAL);
    assert_eq!(text, "mem-agent is disabled");
    let change = MemAgentCompactConfig { compact_order: Some(64), ..Default::default() };
    let text = expect_code(guest.api().mem_agent_compact_set(call(), &change).await, Code::INTERNAL);
    assert_eq!(text, "mem-agent is disabled");
    Ok(())
}
