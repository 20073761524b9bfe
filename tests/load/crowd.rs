//! Thirty-two clients, each with a connection of its own, each running twenty containers' lives with execs and streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use machine::vm::AgentClient;
use protocols::health::CheckRequest;
use tests::Guest;

use tests::figures::{Durations, HEAD};

const CLIENTS: usize = 32;
const LIVES: usize = 20;

async fn check(client: &AgentClient) -> Result<Duration> {
    let start = Instant::now();
    client.health.check(AgentClient::call(), &CheckRequest::new()).await.context("Check")?;
    Ok(start.elapsed())
}

/// One container's life: a first process that echoes, an exec that takes 32 KiB there and back, another that fails, an
/// end by a signal, and a removal.
async fn life(guest: &Guest, client: &AgentClient, id: &str) -> Result<()> {
    let container =
        guest.container(id).over(client).script("read line; echo got $line; sleep 1000").run().await?;
    let data = id.repeat(32 * 1024 / id.len());
    let cat = container.exec(["cat"]).id("cat").stdin(data.as_bytes()).run().await?;
    ensure!(cat.status == 0 && cat.stdout == data.as_bytes(), "{id}: cat gave {} bytes", cat.stdout.len());
    let failing = container.exec(["sh", "-c", "echo out; echo err >&2; exit 3"]).id("failing").run().await?;
    ensure!((failing.status, failing.stderr.as_slice()) == (3, &b"err\n"[..]), "{id}: {failing:?}");
    container.init().write(b"it\n").await?;
    container.init().read_until("got it\n").await?;
    container.signal("", 9).await?;
    ensure!(container.wait().await? == 137, "{id} did not end by the signal");
    container.remove().await.with_context(|| format!("remove {id}"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_clients_run_twenty_lives_each() -> Result<()> {
    let guest = Arc::new(Guest::builder().memory(1024).cpus(2).boot().await?);
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    life(&guest, guest.client(), "warm").await?;
    let mut idle = Durations::default();
    for _ in 0..200 {
        idle.push(check(guest.client()).await?);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = inspector.snapshot().await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let threads = inspector.agent_threads().await?;

    let start = Instant::now();
    let crowd: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let guest = Arc::clone(&guest);
            tokio::spawn(async move {
                let client = guest.vm().client().await.context("dial")?;
                let mut lives = Durations::default();
                for turn in 0..LIVES {
                    let begun = Instant::now();
                    life(&guest, &client, &format!("c{number}-{turn}")).await?;
                    lives.push(begun.elapsed());
                }
                anyhow::Ok(lives)
            })
        })
        .collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn({
        let (guest, is_over) = (Arc::clone(&guest), Arc::clone(&is_over));
        async move {
            // One begins every 100 ms, whether the one before has its answer or not: a call that starves must not hide
            // those that would have starved after it.
            let mut beat = tokio::time::interval(Duration::from_millis(100));
            let mut checks = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                beat.tick().await;
                let client = guest.client().clone();
                checks.push(tokio::spawn(async move { check(&client).await }));
            }
            let mut busy = Durations::default();
            for check in checks {
                busy.push(check.await??);
            }
            anyhow::Ok(busy)
        }
    });
    let mut lives = Durations::default();
    for client in crowd {
        lives.extend(client.await??);
    }
    let took = start.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let busy = watcher.await??;

    println!("{CLIENTS} clients, {LIVES} lives each, in {:.1} s", took.as_secs_f64());
    println!("{HEAD}\n{}\n{}\n{}", idle.line("Check, idle"), busy.line("Check, busy"), lives.line("life"));
    assert_eq!(lives.count(), CLIENTS * LIVES);
    assert_eq!(inspector.settled(&before).await?, before);
    // Threads that block are kept for two seconds after their work, which asking for them is too.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let now = inspector.agent_threads().await?;
    assert!(now <= threads + 2, "{threads} threads before, {now} after");
    assert!(busy.count() >= 100, "{} Checks are too few to tell of starving", busy.count());
    Ok(())
}
