//! What a guest costs: bytes of its files, instructions and time of its boot, and memory at rest.
//!
//! Promises that what varies is a median of rounds in which two trees take turns, and that instructions are counted by QEMU
//! itself, so that they are the same in every run. Must never assert a figure: it prints.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use machine::vm::{AgentClient, Machine, Vm, VmConfig, unpacked_initrd};
use protocols::agent::GetMetricsRequest;
use protocols::health::CheckRequest;
use serde_json::json;
use tests::Options;

const USAGE: &str = "usage: bench-guest [--rounds N] [--against DIR] [--json]\n\
    Prints sizes, instructions and times of boots, and memory. Times are medians of N rounds (5 unless told).\n\
    With --against, the products in DIR (the out/ of another tree) take turns with ours, and ratios are ours to theirs. Their \
    guests boot without the shortcuts that `pith run` takes under emulation.";

/// What the agent prints when it is ready.
const MARK: &str = "agent ready: ";
/// How long a boot may take whose instructions are counted.
const PATIENCE: Duration = Duration::from_secs(180);
/// The block in which st_blocks counts, in bytes.
const BLOCK: u64 = 512;

/// A tree's products.
struct Contender {
    out: PathBuf,
    /// Whether its guests boot as ours do.
    shortcuts: bool,
}

/// A machine, and what boots on it.
struct Boot {
    name: &'static str,
    machine: Machine,
    option: &'static str,
    kernel: &'static str,
    words: &'static str,
    /// Further words, for a guest with shortcuts.
    shortcut: &'static str,
}

const BOOTS: [Boot; 2] = [
    Boot {
        name: "microvm, sandbox",
        machine: Machine::Microvm,
        option: "microvm,acpi=off,x-option-roms=off,rtc=on",
        kernel: "vmlinux-sandbox",
        words: "acpi=off pci=off nolapic_timer",
        shortcut: "",
    },
    Boot {
        name: "q35, kata",
        machine: Machine::Q35,
        option: "q35",
        kernel: "vmlinux",
        words: "",
        shortcut: "nolapic_timer",
    },
];

/// A row of the result: what it is, its unit, and a figure of each tree.
struct Row {
    name: String,
    unit: &'static str,
    figures: Vec<f64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut against = None;
    let options = Options::read(USAGE, 5, |option, value| {
        let is_known = option == "--against";
        if is_known {
            against = Some(PathBuf::from(value()?));
        }
        Ok(is_known)
    })?;
    let Some(Options { rounds, as_json }) = options else { return Ok(()) };
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../out");
    let mut trees = vec![Contender { out, shortcuts: true }];
    trees.extend(against.map(|out| Contender { out, shortcuts: false }));
    let mut rows = sizes(&trees);
    let mut accelerator = "";
    for boot in &BOOTS {
        let counted = trees.iter().map(|tree| instructions(tree, boot)).collect::<Result<Vec<_>>>()?;
        rows.push(row(format!("{}: to /init", boot.name), "instr. (million)", &counted, |count| count.0));
        rows.push(row(format!("{}: /init to ready", boot.name), "instr. (million)", &counted, |count| {
            count.1
        }));
        let mut times = vec![Vec::new(); trees.len()];
        for round in 0..rounds {
            for (tree, times) in trees.iter().zip(&mut times) {
                let (seconds, engine) = first_check(tree, boot).await?;
                eprintln!("{} round {}: {} ms", boot.name, round + 1, (seconds * 1e3).round());
                times.push(seconds);
                accelerator = engine;
            }
        }
        let medians: Vec<f64> = times.into_iter().map(median).collect();
        rows.push(row(format!("{}: power-on to first Check", boot.name), "ms", &medians, |time| time * 1e3));
    }
    let mut small = Vec::new();
    let mut touched = Vec::new();
    for tree in &trees {
        small.push(at_rest(tree, 128).await?);
        touched.push(at_rest(tree, 256).await?);
    }
    rows.push(row("128 MiB guest: not available".into(), "MiB", &small, |rest| rest.taken));
    rows.push(row("128 MiB guest: the agent's resident memory".into(), "MiB", &small, |rest| rest.agent));
    rows.push(row("256 MiB guest: touched".into(), "MiB", &touched, |rest| rest.touched));
    rows.push(row("256 MiB guest: QEMU's share of the host's memory".into(), "MiB", &touched, |rest| {
        rest.host
    }));
    print(&rows, rounds, accelerator, as_json)
}

fn row<T>(name: String, unit: &'static str, figures: &[T], figure: impl Fn(&T) -> f64) -> Row {
    Row { name, unit, figures: figures.iter().map(figure).collect() }
}

/// Of products that all trees have.
fn sizes(trees: &[Contender]) -> Vec<Row> {
    ["initrd.img", "initrd-sandbox.img", "vmlinuz", "vmlinuz-sandbox"]
        .into_iter()
        .filter_map(|name| {
            let sizes = trees.iter().map(|tree| Some(tree.out.join(name).metadata().ok()?.len() as f64));
            Some(Row { name: name.into(), unit: "bytes", figures: sizes.collect::<Option<_>>()? })
        })
        .collect()
}

/// Millions of instructions from the kernel's first to the first of `/init`, and from there to the agent's readiness. With
/// `-icount shift=0`, each instruction takes one nanosecond of the guest's clock.
fn instructions(tree: &Contender, boot: &Boot) -> Result<(f64, f64)> {
    let initrd = tree.out.join("initrd.img");
    let initrd = if tree.shortcuts { unpacked_initrd(&initrd) } else { initrd };
    let shortcut = if tree.shortcuts { boot.shortcut } else { "" };
    let words = format!(
        "console=ttyS0 loglevel=7 panic=-1 reboot=t no_timer_check nokaslr cryptomgr.notests {} {shortcut}",
        boot.words
    );
    let mut command = Command::new(std::env::var_os("PITH_QEMU").unwrap_or("qemu-system-x86_64".into()));
    command
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"])
        .args(["-accel", "tcg,thread=single", "-icount", "shift=0", "-cpu", "max,-erms,-fsrm", "-m", "256M"])
        .args(["-machine", boot.option, "-append", &words, "-kernel"])
        .arg(tree.out.join(boot.kernel))
        .arg("-initrd")
        .arg(initrd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("start qemu-system-x86_64")?;
    let output = child.stdout.take().context("the output is piped")?;
    let (say, heard) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || say.send(seen(output)));
    let result = heard.recv_timeout(PATIENCE);
    child.kill().ok();
    child.wait()?;
    drop(reader.join());
    let (init, ready) = result.context("the guest does not get ready")?.context("the guest ends")?;
    Ok((init * 1e3, (ready - init) * 1e3))
}

/// The guest's clock in seconds: when the kernel starts `/init`, and when the agent is ready.
fn seen(output: impl Read) -> Option<(f64, f64)> {
    let mut init = None;
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line.ok()?).into_owned();
        if line.contains("Run /init as init process") {
            init = line.trim_start_matches('[').split(']').next()?.trim().parse().ok();
        }
        if let Some((_, rest)) = line.split_once(MARK) {
            let milliseconds: f64 = rest.split(' ').next()?.parse().ok()?;
            return Some((init?, milliseconds / 1e3));
        }
    }
    None
}

fn config(tree: &Contender, kernel: &str, directory: &Path) -> VmConfig {
    let mut config = VmConfig::new(tree.out.join(kernel), tree.out.join("initrd.img"), directory);
    config.shortcuts = tree.shortcuts;
    config
}

/// Seconds from starting QEMU to the answer of the first Check, and the accelerator.
async fn first_check(tree: &Contender, boot: &Boot) -> Result<(f64, &'static str)> {
    let directory = tempfile::tempdir()?;
    let mut config = config(tree, boot.kernel, directory.path());
    config.machine = boot.machine;
    let vm = Vm::boot(config).await.with_context(|| format!("boot {}", boot.name))?;
    let client = vm.client().await?;
    client.health.check(AgentClient::call(), &CheckRequest::new()).await.context("Check")?;
    let (time, engine) = (vm.since_power_on(), vm.accel());
    vm.stop().await?;
    Ok((time.as_secs_f64(), engine))
}

/// Memory of a guest that does nothing, in MiB.
struct AtRest {
    /// Of the guest's, what nobody can have.
    taken: f64,
    /// The agent's and its helper's that is in memory.
    agent: f64,
    /// Of the guest's, what was written at least once.
    touched: f64,
    /// QEMU's proportional set size.
    host: f64,
}

async fn at_rest(tree: &Contender, memory_mib: u32) -> Result<AtRest> {
    let directory = tempfile::tempdir()?;
    let mut config = config(tree, "vmlinux", directory.path());
    config.memory_mib = memory_mib;
    let vm = Vm::boot(config).await.context("boot a guest to rest")?;
    let client = vm.client().await?;
    let touched = touched(vm.pid())? as f64 / f64::from(1 << 20);
    let host = proportional(vm.pid())? as f64 / 1024.0;
    let answer = client.agent.get_metrics(AgentClient::call(), &GetMetricsRequest::new()).await?.metrics;
    vm.stop().await?;
    let metric = |name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(name));
        let value: f64 = line.with_context(|| format!("no {name}"))?.trim().parse()?;
        anyhow::Ok(value / f64::from(1 << 20))
    };
    let available = metric("kata_guest_meminfo{item=\"mem_available\"}")?;
    let agent = metric("kata_agent_total_rss")?;
    Ok(AtRest { taken: f64::from(memory_mib) - available, agent, touched, host })
}

/// Bytes of the guest's memory that QEMU's memfd has.
fn touched(pid: u32) -> Result<u64> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        if std::fs::read_link(&path)
            .is_ok_and(|link| link.to_string_lossy().contains("memfd:memory-backend-memfd"))
        {
            return Ok(std::fs::metadata(path)?.blocks() * BLOCK);
        }
    }
    bail!("the guest's memory is no memfd")
}

/// Kilobytes of the host's memory, each page divided by how many processes have it.
fn proportional(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let half = times.len() / 2;
    if times.len() % 2 == 1 { times[half] } else { (times[half - 1] + times[half]) / 2.0 }
}

fn print(rows: &[Row], rounds: usize, accelerator: &str, as_json: bool) -> Result<()> {
    let ratio = |figures: &[f64]| figures.get(1).map(|other| figures[0] / other);
    if as_json {
        let rows = rows.iter().map(|row| {
            let other = row.figures.get(1);
            json!({ "name": row.name, "unit": row.unit, "ours": row.figures[0], "other": other, "ratio": ratio(&row.figures) })
        });
        let text =
            json!({ "rounds": rounds, "accelerator": accelerator, "figures": rows.collect::<Vec<_>>() });
        println!("{}", serde_json::to_string_pretty(&text)?);
        return Ok(());
    }
    println!(
        "a guest's cost; accelerator {accelerator}, times are medians of {rounds} rounds taking turns; other, ours, ratio"
    );
    for Row { name, unit, figures } in rows {
        let number =
            |figure: &f64| if *unit == "bytes" { format!("{figure:.0}") } else { format!("{figure:.1}") };
        let other = figures.get(1).map(number).unwrap_or_default();
        let ratio = ratio(figures).map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        println!("{name:<50} {unit:<17} {other:>10} {:>10} {ratio:>6}", number(&figures[0]));
    }
    Ok(())
}
