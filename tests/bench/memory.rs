//! What guests cost in memory: one at rest, each idle container, the smallest machine, and many guests on one host.
//!
//! Promises that all trees get the same machines, on which the kernel unpacks the initrd itself, as real monitors have it. Must
//! never assert a figure: it prints.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use machine::vm::AgentClient;
use protocols::agent::GetMetricsRequest;
use serde_json::json;
use tests::figures::Row;
use tests::{Guest, GuestBuilder, Options, qemu};

const USAGE: &str = "usage: bench-memory [--guests N] [--against DIR] [--json]\n\
    Prints the memory of a guest at rest, of an idle container, and of N guests (16 unless told) on one host; and the smallest\n\
    machine that runs a container.\n\
    With --against, the same is measured of the products in DIR (the out/ of another tree), and ratios are ours to theirs.";

/// The block in which st_blocks counts, in bytes.
const BLOCK: u64 = 512;
/// Bytes of a MiB.
const MIB: f64 = (1 << 20) as f64;
/// Containers among which their memory is divided.
const IDLE: usize = 20;
/// Memory of the guests of which there are many, in MiB.
const ONE_OF_MANY: u32 = 128;
/// The host's memory in which guests are counted, in MiB.
const HOST: f64 = 8192.0;
/// Sizes that are tried as the smallest machine, in MiB.
const SMALLEST: [u32; 6] = [24, 28, 32, 36, 40, 48];
/// How long a machine that may be too small can take to get ready: one that is says nothing.
const PATIENCE: Duration = Duration::from_secs(25);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (mut against, mut guests) = (None, 16);
    let options = Options::read(USAGE, 1, |option, value| {
        match option {
            "--against" => against = Some(PathBuf::from(value()?)),
            "--guests" => guests = value()?.parse().ok().context(USAGE)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let Some(options) = options else { return Ok(()) };
    ensure!(guests > 0, USAGE);
    let trees: Vec<Option<PathBuf>> = [None].into_iter().chain(against.map(Some)).collect();
    let mut seen = Vec::new();
    for tree in &trees {
        seen.push(Seen::of(tree.as_ref(), guests).await?);
    }
    let rows = [
        Row::of("128 MiB guest: not available", "MiB", &seen, |seen| seen.small.taken),
        Row::of("256 MiB guest: touched", "MiB", &seen, |seen| seen.large.touched),
        Row::of("256 MiB guest: QEMU's share of the host's memory", "MiB", &seen, |seen| seen.large.host),
        Row::of("agent and fork server: their share of memory", "KiB", &seen, |seen| seen.agent),
        Row::of(format!("each of {IDLE} idle containers"), "KiB", &seen, |seen| seen.container),
        Row::of("smallest microvm that runs a container", "MiB", &seen, |seen| seen.smallest),
        Row::of(format!("each of {guests} guests of {ONE_OF_MANY} MiB, on the host"), "MiB", &seen, |seen| {
            seen.many
        }),
        Row::of("the same without QEMU's own memory", "MiB", &seen, |seen| seen.many - seen.empty),
        Row::of("such guests in 8 GiB of the host, computed", "guests", &seen, |seen| {
            (HOST / seen.many).floor()
        }),
    ];
    let accelerator = seen[0].accelerator;
    let head = format!("memory; accelerator {accelerator}, each figure measured once");
    Row::print(&rows, &head, json!({ "guests": guests, "accelerator": accelerator }), options.as_json)
}

/// All that is measured of a tree. Memory is in MiB, unless told.
struct Seen {
    accelerator: &'static str,
    small: AtRest,
    large: AtRest,
    /// KiB of the agent's processes, each page divided by how many processes have it.
    agent: f64,
    /// KiB that a container which sleeps takes.
    container: f64,
    smallest: f64,
    many: f64,
    empty: f64,
}

impl Seen {
    async fn of(tree: Option<&PathBuf>, guests: usize) -> Result<Seen> {
        let name = tree.map_or("this tree".into(), |tree| tree.display().to_string());
        let say = |what: &str| eprintln!("{name}: {what}");
        say("guests at rest");
        let (small, accelerator) = at_rest(tree, 128).await?;
        let (large, _) = at_rest(tree, 256).await?;
        say("containers");
        let (agent, container) = containers(tree).await?;
        say("the smallest machine");
        let smallest = smallest(tree).await?;
        say("many guests");
        let many = many(tree, guests).await?;
        let empty = empty(accelerator)?;
        Ok(Seen { accelerator, small, large, agent, container, smallest, many, empty })
    }
}

fn builder(tree: Option<&PathBuf>, memory_mib: u32) -> GuestBuilder {
    let builder = Guest::builder().plain().memory(memory_mib);
    match tree {
        Some(directory) => builder.products(directory),
        None => builder,
    }
}

/// Memory of a guest that does nothing, in MiB.
struct AtRest {
    /// Of the guest's, what nobody can have.
    taken: f64,
    /// Of the guest's, what was written at least once.
    touched: f64,
    /// QEMU's proportional set size.
    host: f64,
}

async fn at_rest(tree: Option<&PathBuf>, memory_mib: u32) -> Result<(AtRest, &'static str)> {
    let guest = builder(tree, memory_mib).boot().await.context("boot a guest to rest")?;
    let pid = guest.vm().pid();
    let (touched, host) = (touched(pid)?, proportional(pid)?);
    let taken = f64::from(memory_mib) - available(&guest).await?;
    Ok((AtRest { taken, touched, host }, guest.vm().accel()))
}

/// What the guest could still give to programs, in MiB.
async fn available(guest: &Guest) -> Result<f64> {
    let answer = guest.api().get_metrics(AgentClient::call(), &GetMetricsRequest::new()).await?.metrics;
    let name = "kata_guest_meminfo{item=\"mem_available\"}";
    let line = answer.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.with_context(|| format!("no {name}"))?.trim().parse::<f64>()? / MIB)
}

/// KiB of the agent's processes, and of each container that sleeps.
async fn containers(tree: Option<&PathBuf>) -> Result<(f64, f64)> {
    let guest = builder(tree, 256).boot().await?;
    guest.sandbox().await?;
    // Not the harness's inspector, which looks at what only this tree's guests have.
    let looker = guest.container("looker").privileged();
    let looker = looker.mount("/guest/proc", "bind", "/proc", &["rbind", "rslave"]).run().await?;
    // All processes that run the agent's program: the agent, its fork server, and what else it may keep.
    let script = "agent=$(readlink /guest/proc/1/exe); for p in /guest/proc/[0-9]*; do \
        [ \"$(readlink $p/exe 2>/dev/null)\" = \"$agent\" ] && sed -n 's/^Pss: *\\([0-9]*\\) kB/\\1/p' $p/smaps_rollup; \
        done | awk '{ sum += $1 } END { print sum }'";
    let agent = looker.sh(script).await?.parse().context("KiB of the agent's processes")?;
    // The first one brings the image's pages and the kernel's first objects of each kind.
    guest.container("first").run().await?;
    let before = available(&guest).await?;
    for number in 0..IDLE {
        guest.container(&format!("idle{number}")).run().await?;
    }
    let after = available(&guest).await?;
    Ok((agent, (before - after) * 1024.0 / IDLE as f64))
}

/// MiB of the smallest machine with the kernel `sandbox` that runs a container.
async fn smallest(tree: Option<&PathBuf>) -> Result<f64> {
    for memory_mib in SMALLEST {
        let machine = builder(tree, memory_mib).kernel("sandbox").deadline(PATIENCE);
        let Ok(guest) = machine.boot().await else { continue };
        let runs = async {
            guest.sandbox().await?;
            let container = guest.container("small").run().await?;
            container.sh("echo runs").await
        };
        if tokio::time::timeout(PATIENCE, runs).await.is_ok_and(|said| said.is_ok_and(|said| said == "runs"))
        {
            return Ok(memory_mib.into());
        }
    }
    bail!("no machine of {SMALLEST:?} MiB runs a container")
}

/// MiB of the host that each of many guests takes while all are there.
async fn many(tree: Option<&PathBuf>, count: usize) -> Result<f64> {
    let mut guests = Vec::new();
    for _ in 0..count {
        guests.push(builder(tree, ONE_OF_MANY).boot().await?);
    }
    let shares = guests.iter().map(|guest| proportional(guest.vm().pid())).collect::<Result<Vec<_>>>()?;
    Ok(shares.iter().sum::<f64>() / count as f64)
}

/// MiB of a QEMU that has not started its guest.
fn empty(accelerator: &str) -> Result<f64> {
    let mut command = qemu();
    command
        .args(["-S", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "microvm"])
        .args(["-accel", accelerator, "-m", &ONE_OF_MANY.to_string()])
        .stdin(Stdio::null());
    let mut child = command.spawn().context("start qemu-system-x86_64")?;
    // It has made its machine in a fraction of that.
    std::thread::sleep(Duration::from_secs(2));
    let share = proportional(child.id());
    child.kill().ok();
    child.wait()?;
    share
}

/// MiB of the guest's memory that QEMU's memfd has.
fn touched(pid: u32) -> Result<f64> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        if std::fs::read_link(&path)
            .is_ok_and(|link| link.to_string_lossy().contains("memfd:memory-backend-memfd"))
        {
            return Ok((std::fs::metadata(path)?.blocks() * BLOCK) as f64 / MIB);
        }
    }
    bail!("the guest's memory is no memfd")
}

/// MiB of the host's memory, each page divided by how many processes have it.
fn proportional(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
