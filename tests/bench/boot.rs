//! Power-on to `/init`: our kernels and Debian's for clouds, the same machine, the same words, the same init, taking turns.
//!
//! Promises that each figure is a median of runs that alternate, so that a busy moment of the host hits all alike. Must never
//! assert a time: it prints.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use image_builder::format::cpio;
use image_builder::kernel;
use image_builder::layout::Layout;
use image_builder::tree::{Kind, Node, Tree, TreePath};
use image_builder::vm;
use serde_json::json;

const USAGE: &str = "usage: bench-boot [--rounds N] [--json]\n\
    Prints medians of N rounds (10 unless told) from starting QEMU to the first line of /init, and ratios to Debian's kernel.";

/// What the init prints, by `probe --hello`.
const MARK: &str = "probe says hello";
const PATIENCE: Duration = Duration::from_secs(120);

/// The machines, and what each wants on the command line.
const MACHINES: [(&str, &str, &str); 2] = [
    ("q35", "q35", ""),
    ("microvm", "microvm,acpi=off,x-option-roms=off,rtc=on", "acpi=off pci=off nolapic_timer"),
];

fn main() -> Result<()> {
    let (mut rounds, mut as_json) = (10, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().and_then(|text| text.parse().ok()).context(USAGE)?,
            "--json" => as_json = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => bail!(USAGE),
        }
    }
    ensure!(rounds > 0, USAGE);
    let layout = Layout::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".."), None);
    let directory = tempfile::tempdir()?;
    let initrd = directory.path().join("initrd");
    std::fs::write(&initrd, archive(&layout)?)?;
    let debian = debian_kernel()?;
    // Ours come in two forms; of Debian's there is one.
    let kernels = [
        ("sandbox vmlinux", layout.kernel_file("vmlinux", "sandbox")),
        ("sandbox vmlinuz", layout.kernel_file("vmlinuz", "sandbox")),
        ("kata vmlinux", layout.kernel_file("vmlinux", kernel::SHIPPED)),
        ("kata vmlinuz", layout.kernel_file("vmlinuz", kernel::SHIPPED)),
        ("debian vmlinuz", debian),
    ];
    for (name, path) in &kernels {
        ensure!(path.is_file(), "the kernel {name} is missing at {}: run `make images`", path.display());
    }
    let mut figures = Vec::new();
    for (machine, option, words) in MACHINES {
        // The sandbox kernel has no PCI and no ACPI, so it has no business on a PC.
        let fits = |(name, _): &&(&str, PathBuf)| machine != "q35" || !name.starts_with("sandbox");
        let kernels: Vec<_> = kernels.iter().filter(fits).collect();
        let mut times = vec![Vec::new(); kernels.len()];
        for round in 0..rounds {
            for (index, (name, path)) in kernels.iter().enumerate() {
                let time =
                    boot(path, &initrd, option, words).with_context(|| format!("{name} on {machine}"))?;
                times[index].push(time);
                eprintln!("{machine} round {}: {name} {} ms", round + 1, time.as_millis());
            }
        }
        let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
        let yardstick = medians[kernels.len() - 1];
        for ((name, path), median) in kernels.iter().zip(&medians) {
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
        "power-on to /init, TCG, medians of {rounds} rounds taking turns; ratio to Debian's kernel for clouds"
    );
    for figure in figures {
        println!(
            "{:<8} {:<16} {:>11} bytes {:>7} ms {:>6}",
            figure["machine"].as_str().unwrap_or_default(),
            figure["kernel"].as_str().unwrap_or_default(),
            figure["bytes"],
            figure["median_ms"],
            figure["ratio"]
        );
    }
    Ok(())
}

/// An initrd with the probe as `/init`, and the nodes for its output. Not packed: unpacking it is not what is measured.
fn archive(layout: &Layout) -> Result<Vec<u8>> {
    let probe = layout.program("probe");
    let content = std::fs::read(&probe)
        .with_context(|| format!("{} is missing: run `make programs`", probe.display()))?;
    let mut tree = Tree::default();
    tree.insert(TreePath::parse("/init")?, Node::new(0o755, Kind::File(content)))?;
    for (path, major, minor) in [("/dev/console", 5, 1), ("/dev/kmsg", 1, 11)] {
        tree.insert(TreePath::parse(path)?, Node::new(0o600, Kind::Character { major, minor }))?;
    }
    Ok(cpio::archive(&tree, 0)?)
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
    let mut command = Command::new(std::env::var_os("PITH_QEMU").unwrap_or("qemu-system-x86_64".into()));
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

/// In seconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    let half = times.len() / 2;
    let middle = if times.len() % 2 == 1 { times[half] } else { (times[half - 1] + times[half]) / 2 };
    middle.as_secs_f64()
}
