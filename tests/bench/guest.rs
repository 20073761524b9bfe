//! What a guest's start costs: bytes of its files, instructions and time of its boot, and the time of a restore.
//!
//! Promises that what varies is a median of rounds in which two trees take turns, and that instructions are counted by QEMU
//! itself, so that they are the same in every run. Must never assert a figure: it prints.

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use machine::vm::{AgentClient, Machine, Vm, VmConfig, unpacked_initrd};
use protocols::health::CheckRequest;
use serde_json::json;
use tests::figures::{Row, median};
use tests::{Guest, Options, qemu};

const USAGE: &str = "usage: bench-guest [--rounds N] [--against DIR] [--json]\n\
    Prints sizes, instructions and times of boots, and times of restores. Times are medians of N rounds (5 unless told).\n\
    With --against, the products in DIR (the out/ of another tree) take turns with ours, and ratios are ours to theirs. Their \
    guests boot without the shortcuts that `pith run` takes under emulation.";

/// What the agent prints when it is ready.
const MARK: &str = "agent ready: ";
/// How long a boot may take whose instructions are counted.
const PATIENCE: Duration = Duration::from_secs(180);

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
        rows.push(Row::of(format!("{}: to /init", boot.name), "instr. (million)", &counted, |count| count.0));
        rows.push(Row::of(format!("{}: /init to ready", boot.name), "instr. (million)", &counted, |count| {
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
        rows.push(Row::of(format!("{}: power-on to first Check", boot.name), "ms", &medians, |time| {
            time * 1e3
        }));
    }
    rows.push(Row::of("q35, kata: restore to first Check", "ms", &[restore(rounds).await?], |time| {
        time * 1e3
    }));
    let head = format!(
        "a guest's start; accelerator {accelerator}, times are medians of {rounds} rounds taking turns"
    );
    Row::print(&rows, &head, json!({ "rounds": rounds, "accelerator": accelerator }), as_json)
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
    let mut command = qemu();
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

/// Seconds from starting QEMU to the answer of the first Check, and the accelerator.
async fn first_check(tree: &Contender, boot: &Boot) -> Result<(f64, &'static str)> {
    let directory = tempfile::tempdir()?;
    let (kernel, initrd) = (tree.out.join(boot.kernel), tree.out.join("initrd.img"));
    let mut config = VmConfig::new(kernel, initrd, directory.path());
    config.shortcuts = tree.shortcuts;
    config.machine = boot.machine;
    let vm = Vm::boot(config).await.with_context(|| format!("boot {}", boot.name))?;
    let client = vm.client().await?;
    client.health.check(AgentClient::call(), &CheckRequest::new()).await.context("Check")?;
    let (time, engine) = (vm.since_power_on(), vm.accel());
    vm.stop().await?;
    Ok((time.as_secs_f64(), engine))
}

/// Seconds from starting QEMU with a saved guest of this tree to the answer of the first Check, the median of rounds. The guest
/// of 128 MiB was saved while it did nothing.
async fn restore(rounds: usize) -> Result<f64> {
    let guest = Guest::builder().savable().memory(128).boot().await?;
    let directory = tempfile::tempdir()?;
    let saved = guest.save(&directory.path().join("machine")).await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let guest = saved.restore().await?;
        guest.client().health.check(AgentClient::call(), &CheckRequest::new()).await.context("Check")?;
        times.push(guest.vm().since_power_on().as_secs_f64());
    }
    Ok(median(times))
}
