//! What the agent's work takes: calls, execs, statistics and lives of containers, in a guest of this tree and, if told, in one of
//! another tree, which take turns.
//!
//! Promises that the two do each piece of work right after one another, so that a busy moment of the host hits both alike. Must
//! never assert a time: it prints.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use machine::vm::AgentClient;
use protocols::health::CheckRequest;
use serde_json::json;
use tests::figures::Durations;
use tests::{Container, Guest, Machine, dockers_profile};

const USAGE: &str = "usage: bench-work [--rounds N] [--against DIR] [--json]\n\
    Prints medians of N rounds (40 unless told) of what the agent does, in milliseconds.\n\
    With --against, a guest of the products in DIR (the out/ of another tree) takes turns with ours, and ratios are to it.";

/// One kind of work.
#[derive(Debug, Clone, Copy)]
enum Work {
    Check,
    Stats,
    Exec,
    ExecUnderProfile,
    Create,
    CreateUnderProfile,
    Start,
    Wait,
    Remove,
    ReadSmall,
    ReadLarge,
    Write,
}

/// Bytes that go through a standard stream.
const BULK: usize = 64 << 20;
/// Bytes of a call of a shim's.
const SMALL: usize = 32 << 10;
/// Bytes of a call of who wants it fast.
const LARGE: usize = 1 << 20;
/// Streams are measured in one round of this many: each takes as long as all the rest.
const BULK_ROUNDS: usize = 8;

impl Work {
    const ALL: [Work; 12] = [
        Work::Check,
        Work::Stats,
        Work::Exec,
        Work::ExecUnderProfile,
        Work::Create,
        Work::CreateUnderProfile,
        Work::Start,
        Work::Wait,
        Work::Remove,
        Work::ReadSmall,
        Work::ReadLarge,
        Work::Write,
    ];

    fn name(self) -> &'static str {
        match self {
            Work::Check => "Check",
            Work::Stats => "statistics of a container",
            Work::Exec => "exec, to its end",
            Work::ExecUnderProfile => "exec under Docker's profile",
            Work::Create => "create",
            Work::CreateUnderProfile => "create under Docker's profile",
            Work::Start => "start",
            Work::Wait => "output and end",
            Work::Remove => "remove",
            Work::ReadSmall => "64 MiB of output, 32 KiB a call",
            Work::ReadLarge => "64 MiB of output, 1 MiB a call",
            Work::Write => "64 MiB of input, 32 KiB a call",
        }
    }
}

/// A guest that takes its turns.
struct Contender {
    guest: Guest,
    free: Container,
    bound: Container,
    times: [Durations; Work::ALL.len()],
}

impl Contender {
    async fn boot(against: Option<&PathBuf>) -> Result<Contender> {
        let builder = Guest::builder().machine(Machine::Microvm);
        let guest = match against {
            Some(directory) => builder.products(directory),
            None => builder,
        };
        let guest = guest.boot().await?;
        guest.sandbox().await?;
        let free = guest.container("free").run().await?;
        let profile = dockers_profile()?;
        let bound =
            guest.container("bound").linux(|linux| linux.Seccomp = Some(profile).into()).run().await?;
        Ok(Contender { guest, free, bound, times: Default::default() })
    }

    async fn timed<T>(&mut self, work: Work, done: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let result = done.await.with_context(|| work.name())?;
        self.times[work as usize].push(begun.elapsed());
        Ok(result)
    }

    /// All work once. `round` is part of the names of what is made.
    async fn round(&mut self, round: usize) -> Result<()> {
        let health = self.guest.client().health.clone();
        let (free, bound) = (self.free.clone(), self.bound.clone());
        self.timed(Work::Check, async { Ok(health.check(AgentClient::call(), &CheckRequest::new()).await?) })
            .await?;
        self.timed(Work::Stats, async { Ok(free.stats().await?) }).await?;
        self.timed(Work::Exec, async { free.exec(["true"]).run().await?.success() }).await?;
        self.timed(Work::ExecUnderProfile, async { bound.exec(["true"]).run().await?.success() }).await?;
        let life = self.guest.container(&format!("life{round}")).script("echo up");
        let container = self.timed(Work::Create, life.create()).await?;
        self.timed(Work::Start, async { Ok(container.start().await?) }).await?;
        self.timed(Work::Wait, container.output()).await?;
        self.timed(Work::Remove, async { Ok(container.remove().await?) }).await?;
        let profile = dockers_profile()?;
        let second = self
            .guest
            .container(&format!("bound{round}"))
            .linux(|linux| linux.Seccomp = Some(profile).into());
        let container = self.timed(Work::CreateUnderProfile, second.create()).await?;
        container.remove().await?;
        if round.is_multiple_of(BULK_ROUNDS) {
            self.timed(Work::ReadSmall, read(&free, SMALL)).await?;
            self.timed(Work::ReadLarge, read(&free, LARGE)).await?;
            self.timed(Work::Write, write(&free)).await?;
        }
        Ok(())
    }
}

/// Reads what a process writes as fast as it can, by calls of so many bytes, one after the other as shims make them.
async fn read(container: &Container, call: usize) -> Result<()> {
    let script = format!("exec head -c {BULK} /dev/zero");
    let running = container.exec(["sh", "-c", &script]).start().await?;
    let mut total = 0;
    while total < BULK {
        let bytes = running.read(call).await?;
        ensure!(!bytes.is_empty(), "the output ended after {total} bytes");
        total += bytes.len();
    }
    ensure!(running.wait().await? == 0, "head failed");
    Ok(())
}

/// Writes to a process that reads as fast as it can.
async fn write(container: &Container) -> Result<()> {
    let running = container.exec(["sh", "-c", "exec cat >/dev/null"]).start().await?;
    let piece = vec![0; SMALL];
    for _ in 0..BULK / SMALL {
        running.write_all(&piece).await?;
    }
    running.close_stdin().await?;
    ensure!(running.wait().await? == 0, "cat failed");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (mut rounds, mut as_json, mut against) = (40, false, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().and_then(|text| text.parse().ok()).context(USAGE)?,
            "--against" => against = Some(PathBuf::from(arguments.next().context(USAGE)?)),
            "--json" => as_json = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => bail!(USAGE),
        }
    }
    ensure!(rounds > 0, USAGE);
    let mut contenders = vec![Contender::boot(None).await.context("a guest of this tree")?];
    if let Some(directory) = &against {
        contenders.push(Contender::boot(Some(directory)).await.context("a guest of the other tree")?);
    }
    for round in 0..rounds {
        // Who goes first changes as well.
        let first = round % contenders.len();
        for turn in 0..contenders.len() {
            let at = (first + turn) % contenders.len();
            contenders[at].round(round).await.with_context(|| format!("round {round}"))?;
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    let medians: Vec<_> =
        contenders.iter().map(|one| one.times.each_ref().map(|times| times.percentile(50))).collect();
    print(&medians, rounds, as_json)?;
    for contender in contenders {
        contender.guest.destroy().await?;
    }
    Ok(())
}

fn print(medians: &[[Duration; Work::ALL.len()]], rounds: usize, as_json: bool) -> Result<()> {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let ratio = |work: usize| medians.get(1).map(|other| ms(medians[0][work]) / ms(other[work]));
    if as_json {
        let figures = Work::ALL.map(|work| {
            json!({
                "work": work.name(),
                "median_ms": ms(medians[0][work as usize]),
                "other_ms": medians.get(1).map(|other| ms(other[work as usize])),
                "ratio": ratio(work as usize),
            })
        });
        println!("{}", serde_json::to_string_pretty(&json!({ "rounds": rounds, "figures": figures }))?);
        return Ok(());
    }
    println!(
        "a guest's work, medians of {rounds} rounds taking turns, in ms; the ratio is to the other tree's"
    );
    for work in Work::ALL {
        let ours = ms(medians[0][work as usize]);
        match (medians.get(1), ratio(work as usize)) {
            (Some(other), Some(ratio)) => {
                println!("{:<34} {ours:>9.2} {:>9.2} {ratio:>6.2}", work.name(), ms(other[work as usize]));
            }
            _ => println!("{:<34} {ours:>9.2}", work.name()),
        }
    }
    for (name, medians) in ["ours", "the other's"].iter().zip(medians) {
        let profile = ms(medians[Work::ExecUnderProfile as usize]) / ms(medians[Work::Exec as usize]);
        println!("exec under a profile against one without, {name}: {profile:.2}");
    }
    Ok(())
}
