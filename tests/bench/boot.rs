//! Power-on to `/init`: our kernels and Debian's for clouds, the same machine, the same words, the same init, taking turns.
//!
//! Promises that each figure is a median of runs that alternate, so that a busy moment of the host hits all alike. Must never
//! assert a time: it prints.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fs_image::{Inode, Kind, Tree, cpio};
use machine::vm;
use products::kernel;
use serde_json::json;
use store::layout::Layout;
use tests::figures::median;
use tests::{Options, qemu};

const USAGE: &str = "usage: bench-boot [--rounds N] [--against DIR] [--json]\n\
    Prints medians of N rounds (10 unless told) from starting QEMU to the first line of /init, and ratios to Debian's kernel.\n\
    With --against, the kernels in DIR (the out/ of another tree) take turns with ours, and the ratios are to them.";

/// What the init prints, by `probe --hello`.
const MARK: &str = "probe says hello";
const PATIENCE: Duration = Duration::from_secs(120);

/// The machines, and what each wants on the command line.
const MACHINES: [(&str, &str, &str); 2] = [
    ("q35", "q35", ""),
    ("microvm", "microvm,acpi=off,x-option-roms=off,rtc=on", "acpi=off pci=off nolapic_timer"),
];

fn main() -> Result<()> {
    let mut against = None;
    let options = Options::read(USAGE, 10, |option, value| {
        let is_known = option == "--against";
        if is_known {
            against = Some(PathBuf::from(value()?));
        }
        Ok(is_known)
    })?;
    let Some(Options { rounds, as_json }) = options else { return Ok(()) };
    let layout = Layout::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".."), None);
    let directory = tempfile::tempdir()?;
    let initrd = directory.path().join("initrd");
    std::fs::write(&initrd, archive(&layout)?)?;
    let kernels = contenders(&layout, against.as_deref())?;
    let mut figures = Vec::new();
    for (machine, option, words) in MACHINES {
        let mut times = vec![Vec::new(); kernels.len()];
        for round in 0..rounds {
            for (index, Contender { name, path, .. }) in kernels.iter().enumerate() {
                let time =
                    boot(path, &initrd, option, words).with_context(|| format!("{name} on {machine}"))?;
                times[index].push(time.as_secs_f64());
                eprintln!("{machine} round {}: {name} {} ms", round + 1, time.as_millis());
            }
        }
        let medians: Vec<f64> = times.into_iter().map(median).collect();
        for (Contender { name, path, yardstick }, median) in kernels.iter().zip(&medians) {
            let yardstick = medians[*yardstick];
            figures.push(json!({
                "machine": machine,
                "kernel": name,
                "bytes": path.metadata()?.len(),
                "median_ms": (median * 1e3).round() as u64,
                "ratio": (median / yardstick * 1000.0).round() / 1000.0,
            }));
        }
    }
    if as_json {
        println!("{}", serde_json::to_string_pretty(&json!({ "rounds": rounds, "figures": figures }))?);
        return Ok(());
    }
    println!(
        "power-on to /init, TCG, medians of {rounds} rounds taking turns; ratio to {}",
        against.map_or("Debian's kernel for clouds".to_owned(), |dir| format!(
            "the kernels of {}",
            dir.display()
        ))
    );
    for figure in figures {
        println!(
            "{:<8} {:<24} {:>11} bytes {:>7} ms {:>6}",
            figure["machine"].as_str().unwrap_or_default(),
            figure["kernel"].as_str().unwrap_or_default(),
            figure["bytes"],
            figure["median_ms"],
            figure["ratio"]
        );
    }
    Ok(())
}

/// A kernel that takes its turn.
struct Contender {
    name: String,
    path: PathBuf,
    /// Whose median its own is divided by: the place in the list.
    yardstick: usize,
}

/// Ours, each in two forms, and those that they are compared with: Debian's one, or the same of another tree, as far as it has
/// them.
fn contenders(layout: &Layout, against: Option<&Path>) -> Result<Vec<Contender>> {
    let ours = ["sandbox", kernel::SHIPPED].map(|profile| {
        ["vmlinux", "vmlinuz"].map(|file| (format!("{profile} {file}"), layout.kernel_file(file, profile)))
    });
    let mut ours = ours.into_iter().flatten().collect::<Vec<_>>();
    let mut others = Vec::new();
    if let Some(directory) = against {
        let other =
            |path: &Path| path.file_name().map(|name| directory.join(name)).filter(|path| path.is_file());
        ours.retain(|(_, path)| other(path).is_some());
        ensure!(!ours.is_empty(), "no kernel of ours is in {}, too", directory.display());
        others.extend(ours.iter().filter_map(|(name, path)| Some((format!("{name}, other"), other(path)?))));
    } else {
        others.push(("debian vmlinuz".to_owned(), debian_kernel()?));
    }
    let (first, count) = (ours.len(), others.len());
    let all = ours.into_iter().chain(others).enumerate();
    let all = all.map(|(index, (name, path))| {
        ensure!(path.is_file(), "the kernel {name} is missing at {}: run `make images`", path.display());
        Ok(Contender { name, path, yardstick: first + index % first % count })
    });
    all.collect()
}

/// An initrd with the probe as `/init`, and the nodes for its output. Not packed: unpacking it is not what is measured.
fn archive(layout: &Layout) -> Result<Vec<u8>> {
    let probe = layout.program("probe");
    let content = std::fs::read(&probe)
        .with_context(|| format!("{} is missing: run `make programs`", probe.display()))?;
    let mut tree = Tree::default();
    tree.insert("/init", Inode::new(0o755, Kind::File(content.into())))?;
    for (path, major, minor) in [("/dev/console", 5, 1), ("/dev/kmsg", 1, 11)] {
        tree.insert(path, Inode::new(0o600, Kind::Char { major, minor }))?;
    }
    Ok(cpio::archive(&tree)?)
}

fn debian_kernel() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/debian-kernel.sh");
    let output = Command::new(&script).stderr(Stdio::inherit()).output().context("run debian-kernel.sh")?;
    ensure!(output.status.success(), "Debian's kernel cannot be had");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// One boot, until the init speaks.
fn boot(kernel: &Path, initrd: &Path, machine: &str, words: &str) -> Result<Duration> {
    let mut cmdline =
        format!("console=ttyS0 quiet panic=-1 reboot=t no_timer_check nokaslr cryptomgr.notests {words}");
    if let Some(khz) = vm::host_tsc_khz() {
        cmdline += &format!(" tsc_early_khz={khz} tsc=reliable");
    }
    cmdline += " -- --hello";
    let mut command = qemu();
    command
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"])
        .args(["-accel", "tcg,thread=multi", "-cpu", "max,-erms,-fsrm", "-m", "512M", "-machine", machine])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", &cmdline])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let begun = Instant::now();
    let mut child = command.spawn().context("start qemu-system-x86_64")?;
    let output = child.stdout.take().context("the output is piped")?;
    let (speak, heard) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut seen = String::new();
        for line in BufReader::new(output).split(b'\n').map_while(|line| line.ok()) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains(MARK) {
                speak.send(begun.elapsed()).ok();
                return seen;
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        seen
    });
    let answer = heard.recv_timeout(PATIENCE);
    child.kill().ok();
    child.wait()?;
    let seen = reader.join().unwrap_or_default();
    answer.map_err(|_| anyhow::anyhow!("the guest never came to /init; its console:\n{seen}"))
}
