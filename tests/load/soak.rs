//! Two thousand execs and five hundred containers' lives, one after the other: what the agent holds stays flat.

use std::time::Instant;

use anyhow::{Result, ensure};
use tests::{Guest, Inspector, Snapshot};

use tests::figures::{Durations, HEAD};

/// `SOAK=0.1` runs a tenth of it, `SOAK=10` ten times as much.
fn scaled(count: usize) -> usize {
    let factor = std::env::var("SOAK").ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0);
    ((count as f64 * factor) as usize).max(10)
}

/// What may grow for good, in KiB: what an allocator keeps, not what a leak of a page for each exec would make.
const SLACK_KIB: u64 = 1024;

/// A row of the table.
struct Row {
    snapshot: Snapshot,
    threads: usize,
    agent_kib: u64,
    forker_kib: u64,
}

impl Row {
    async fn read(inspector: &Inspector, expected: Option<&Row>) -> Result<Row> {
        let snapshot = match expected {
            Some(row) => inspector.settled(&row.snapshot).await?,
            None => inspector.snapshot().await?,
        };
        // Threads that block are kept for two seconds.
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        Ok(Row {
            snapshot,
            threads: inspector.agent_threads().await?,
            agent_kib: inspector.agent_rss_kib().await?,
            forker_kib: inspector.forker_rss_kib().await?,
        })
    }

    fn line(&self, name: &str) -> String {
        format!(
            "{name:<20} {:>5} {:>8} {:>8} {:>7} {:>10} {:>11}",
            self.snapshot.descriptors,
            self.threads,
            self.snapshot.cgroups.len(),
            self.snapshot.mounts.len(),
            self.agent_kib,
            self.forker_kib
        )
    }
}

#[tokio::test]
async fn execs_and_lives_leave_the_agent_as_it_was() -> Result<()> {
    let (execs, lives) = (scaled(2000), scaled(500));
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let host = guest.container("host").run().await?;
    // Once each, for what is made at the first time and kept: threads, arenas, tables.
    for number in 0..20 {
        ensure!(host.exec(["true"]).run().await?.status == 0);
        guest.container(&format!("warm{number}")).script("echo up").run().await?.remove().await?;
    }
    let first = Row::read(&inspector, None).await?;

    let [mut exec, mut create, mut start, mut end, mut remove] = [(); 5].map(|()| Durations::default());
    for _ in 0..execs {
        let begun = Instant::now();
        let finished = host.exec(["echo", "output"]).run().await?;
        exec.push(begun.elapsed());
        ensure!((finished.status, finished.stdout.as_slice()) == (0, &b"output\n"[..]), "{finished:?}");
    }
    let between = Row::read(&inspector, Some(&first)).await?;
    for number in 0..lives {
        let mut timed = Instant::now();
        let mut lap = |durations: &mut Durations| {
            durations.push(timed.elapsed());
            timed = Instant::now();
        };
        let container = guest.container(&format!("c{number}")).script("echo up; exit 4").create().await?;
        lap(&mut create);
        container.start().await?;
        lap(&mut start);
        let finished = container.output().await?;
        lap(&mut end);
        ensure!((finished.status, finished.stdout.as_slice()) == (4, &b"up\n"[..]), "{finished:?}");
        container.remove().await?;
        lap(&mut remove);
    }
    let last = Row::read(&inspector, Some(&first)).await?;

    println!("{:<20}   fds  threads  cgroups  mounts  agent KiB  forker KiB", "");
    println!("{}", first.line("first"));
    println!("{}", between.line(&format!("after {execs} execs")));
    println!("{}", last.line(&format!("after {lives} lives")));
    println!("{HEAD}");
    for (name, durations) in
        [("exec to end", &exec), ("create", &create), ("start", &start), ("end", &end), ("remove", &remove)]
    {
        println!("{}", durations.line(name));
    }
    assert_eq!(last.snapshot, first.snapshot);
    // The look itself is work for one thread or two.
    assert!(last.threads <= first.threads + 2, "{} threads became {}", first.threads, last.threads);
    for (what, before, after) in
        [("agent", first.agent_kib, last.agent_kib), ("forker", first.forker_kib, last.forker_kib)]
    {
        assert!(after <= before + SLACK_KIB, "the {what} grew from {before} to {after} KiB");
    }
    Ok(())
}
