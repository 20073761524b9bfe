//! Containers' lives, each with an exec, one after the other: what the agent holds stays flat.
//!
//! `make soak` runs ten thousand; `SOAK` is another share of that. What is held is looked at after each tenth, and the last
//! tenth is compared with the first. In a short run it is compared with the first tenth that has filled the log's backlog.

use std::time::Instant;

use anyhow::{Result, ensure};
use tests::{Container, Footprint, Guest};

use tests::figures::{Durations, HEAD};

/// Lives of a whole soak.
const LIVES: f64 = 10_000.0;
/// The share that is run where nobody says how much: 500 lives.
const SHARE: f64 = 0.05;
/// What may differ between the first tenth and the last, in percent. Of a few threads or mounts that is none.
const PERCENT: u64 = 2;
/// Lives until the log's backlog (256 KiB) is full: 250 were seen to do it. What the agent holds grows until then.
const FILLED: usize = 300;
/// Less than this is no growth, in KiB: pages of code that were never needed before.
const PAGES_KIB: u64 = 64;

/// Lives in a tenth of the soak.
fn tenth() -> usize {
    let share = std::env::var("SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(SHARE);
    ((LIVES * share / 10.0) as usize).max(1)
}

#[derive(Default)]
struct Times {
    create: Durations,
    start: Durations,
    exec: Durations,
    end: Durations,
    remove: Durations,
}

impl Times {
    fn table(&self) -> String {
        let rows = [
            self.create.line("create"),
            self.start.line("start"),
            self.exec.line("exec to end"),
            self.end.line("end"),
            self.remove.line("remove"),
        ];
        format!("{HEAD}\n{}", rows.join("\n"))
    }
}

/// One container's life: it waits for a line, meanwhile a process runs beside it, then it prints and fails.
async fn life(guest: &Guest, host: &Container, number: usize, times: &mut Times) -> Result<()> {
    let mut timed = Instant::now();
    let mut lap = |durations: &mut Durations| {
        durations.push(timed.elapsed());
        timed = Instant::now();
    };
    let container =
        guest.container(&format!("c{number}")).script("read line; echo $line; exit 4").create().await?;
    lap(&mut times.create);
    container.start().await?;
    lap(&mut times.start);
    // In turn in the container that goes and in the one that stays.
    let place = if number.is_multiple_of(2) { &container } else { host };
    let finished = place.exec(["echo", "output"]).run().await?;
    ensure!((finished.status, finished.stdout.as_slice()) == (0, &b"output\n"[..]), "{finished:?}");
    lap(&mut times.exec);
    container.init().write(b"up\n").await?;
    let finished = container.output().await?;
    ensure!((finished.status, finished.stdout.as_slice()) == (4, &b"up\n"[..]), "{finished:?}");
    lap(&mut times.end);
    container.remove().await?;
    lap(&mut times.remove);
    Ok(())
}

fn line(lives: usize, held: &Footprint) -> String {
    format!(
        "{lives:>6} {:>10} {:>9} {:>11} {:>8} {:>8} {:>7} {:>8} {:>6} {:>9}",
        held.agent_kib,
        held.heap_kib,
        held.forker_kib,
        held.threads,
        held.descriptors,
        held.mounts,
        held.cgroups,
        held.dying_cgroups,
        held.slab_kib
    )
}

/// Head of a table of [`line`]s.
const COLUMNS: &str =
    " lives  agent KiB  heap KiB  forker KiB  threads      fds  mounts  cgroups  dying  slab KiB";

#[tokio::test]
async fn lives_and_execs_leave_the_agent_as_it_was() -> Result<()> {
    let tenth = tenth();
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let host = guest.container("host").run().await?;
    // Some, for what is made at the first time and kept: threads, arenas, tables.
    for number in 0..20 {
        life(&guest, &host, number, &mut Times::default()).await?;
    }
    let mut held = vec![inspector.footprint().await?];
    println!("{COLUMNS}\n{}", line(0, &held[0]));
    let mut times = Times::default();
    for round in 1..=10 {
        for number in 0..tenth {
            life(&guest, &host, number, &mut times).await?;
        }
        held.push(inspector.footprint().await?);
        println!("{}", line(round * tenth, &held[round]));
    }
    println!("{}", times.table());
    let begin = FILLED.div_ceil(tenth).clamp(1, 9);
    let (first, last) = (held[begin], held[10]);
    let flat = |what: &str, first: u64, last: u64, least: u64| {
        let most = first + (first * PERCENT / 100).max(least);
        ensure!(last <= most, "{what}: {first} after {} lives became {last} after all", begin * tenth);
        Ok(())
    };
    // Less is no better: something that should be there is gone.
    let equal = |what: &str, first: u64, last: u64| {
        let is_equal = first.abs_diff(last) <= first * PERCENT / 100;
        ensure!(is_equal, "{what}: {first} after {} lives became {last} after all", begin * tenth);
        Ok(())
    };
    flat("resident memory of the agent in KiB", first.agent_kib, last.agent_kib, PAGES_KIB)?;
    flat("resident memory of the forker in KiB", first.forker_kib, last.forker_kib, PAGES_KIB)?;
    equal("descriptors", first.descriptors, last.descriptors)?;
    equal("children", first.children, last.children)?;
    equal("mounts", first.mounts, last.mounts)?;
    equal("cgroups", first.cgroups, last.cgroups)?;
    equal("threads", first.threads, last.threads)?;
    // The kernel lets go of a cgroup when the last page of it is used again, of most of them at once.
    flat("cgroups that do not die", first.dying_cgroups, last.dying_cgroups, 50)?;
    flat("the kernel's own memory in KiB", first.slab_kib, last.slab_kib, 4096)
}
