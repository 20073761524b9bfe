//! Where the time of a boot goes, from power-on to the ready line, by a real boot.
//!
//! Owns reading what a guest says of itself: the kernel's initcalls (`initcall_debug`), the steps of `/init` and of the agent
//! (`agent.log=debug`). Promises one axis for all, whose zero is power-on. Must never guess: what nobody reported is drawn as
//! what it is, time between two reports.

mod kernel_log;
mod svg;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub use svg::draw;

use kernel_log::Symbols;
use machine::vm::{CONSOLE_PORT, DEBUG_CONSOLE, Vm, VmConfig, VmError};

/// Words that make a guest report. The kernel's ring must hold every initcall.
const WORDS: [&str; 3] = ["initcall_debug", "log_buf_len=4M", "agent.log=debug"];
/// How long the debug console may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// What is asked on the debug console: the kernel's log, then a command that nobody has, whose refusal marks the log's end.
/// It is quoted in the middle, so that an echo of it is not taken for the refusal.
const QUESTION: &str = "dmesg\nend-of''-log\n";
/// How a shell refuses it, and how the agent does, which answers itself where there is no shell.
const REFUSALS: [&str; 2] = ["end-of-log", "unknown command \"end-of''-log\""];

/// Why there is no chart.
#[derive(Debug, thiserror::Error)]
pub enum BootchartError {
    /// The guest did not boot.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The debug console did not answer.
    #[error("the guest's debug console did not show the kernel's log")]
    Console(#[source] io::Error),
    /// A file cannot be read.
    #[error("cannot read {path}; `image-builder build` makes it")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Who spent a piece of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// The VMM and its firmware, before the kernel counts.
    Machine,
    /// The kernel outside of initcalls.
    Kernel,
    /// An initcall of the kernel.
    Initcall,
    /// A step of `/init`.
    Init,
    /// A step of the agent.
    Agent,
}

/// A piece of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Who.
    pub who: Who,
    /// What.
    pub name: String,
    /// Microseconds from power-on to its beginning.
    pub start_us: u64,
    /// Its length in microseconds.
    pub length_us: u64,
}

/// A boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chart {
    /// The accelerator.
    pub accel: String,
    /// Microseconds from power-on to the ready line.
    pub ready_us: u64,
    /// The pieces, in order of their beginning.
    pub spans: Vec<Span>,
}

/// Boots `config` and reads when everything happened. `symbols` is the kernel's System.map.
///
/// # Errors
/// When the guest does not boot, or its debug console does not answer.
pub async fn record(mut config: VmConfig, symbols: &Path) -> Result<Chart, BootchartError> {
    let map = std::fs::read_to_string(symbols)
        .map_err(|source| BootchartError::Read { path: symbols.to_path_buf(), source })?;
    config.cmdline.extend(WORDS.into_iter().chain(DEBUG_CONSOLE).map(str::to_owned));
    let vm = Vm::boot(config).await?;
    let log = kernel_log(&vm).await?;
    let timing = vm.boot_timing();
    let (accel, console) = (vm.accel().to_owned(), vm.console_log());
    vm.stop().await?;
    Ok(assemble(
        accel,
        timing.power_on_to_kernel(),
        timing.power_on_to_ready,
        timing.kernel_to_init,
        &kernel_log::initcalls(&log, &Symbols::parse(&map)),
        kernel_log::initramfs(&log),
        &agent_steps(&console),
    ))
}

async fn kernel_log(vm: &Vm) -> Result<String, BootchartError> {
    let mut stream = vm.dial(CONSOLE_PORT).await?;
    let talk = async {
        stream.write_all(QUESTION.as_bytes()).await?;
        let (mut log, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while !is_whole(&log) {
            let count = tokio::time::timeout(SILENCE, stream.read(&mut buffer)).await??;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            log.extend_from_slice(&buffer[..count]);
        }
        Ok(String::from_utf8_lossy(&log).into_owned())
    };
    talk.await.map_err(BootchartError::Console)
}

/// Whether a refusal is at the log's end, or before the prompt behind it.
fn is_whole(log: &[u8]) -> bool {
    let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(400)..]);
    REFUSALS.iter().any(|refusal| tail.contains(refusal))
}

/// The agent's reports: what ended, and when on the kernel's clock.
fn agent_steps(console: &str) -> Vec<(String, Duration)> {
    let step = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line.trim()).ok()?;
        (record["msg"] == "boot step").then_some(())?;
        let microseconds = &record["microseconds"];
        let ended = microseconds.as_u64().or_else(|| microseconds.as_str()?.parse().ok())?;
        Some((record["step"].as_str()?.to_owned(), Duration::from_micros(ended)))
    };
    console.lines().filter_map(step).collect()
}

/// Puts all reports on one axis.
fn assemble(
    accel: String,
    to_kernel: Duration,
    to_ready: Duration,
    kernel_to_init: Duration,
    initcalls: &[kernel_log::Initcall],
    initramfs: Option<(Duration, Duration)>,
    steps: &[(String, Duration)],
) -> Chart {
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let span = |who, name: &str, start: Duration, end: Duration| Span {
        who,
        name: name.to_owned(),
        start_us: us(start),
        length_us: us(end.saturating_sub(start)),
    };
    let mut spans = vec![span(Who::Machine, "VMM and firmware", Duration::ZERO, to_kernel)];
    let ends = initcalls.iter().map(|call| call.began + call.took);
    let first = initcalls.iter().map(|call| call.began).min().unwrap_or(kernel_to_init);
    let last = ends.max().unwrap_or(kernel_to_init);
    for (name, from, to) in [
        ("kernel, before initcalls", Duration::ZERO, first),
        ("kernel, initcalls", first, last),
        ("kernel, after initcalls", last, kernel_to_init),
    ] {
        spans.push(span(Who::Kernel, name, to_kernel + from, to_kernel + to));
    }
    if let Some((began, ended)) = initramfs {
        spans.push(span(Who::Kernel, "kernel, unpack the initramfs", to_kernel + began, to_kernel + ended));
    }
    for call in initcalls {
        let start = to_kernel + call.began;
        spans.push(span(Who::Initcall, &call.name, start, start + call.took));
    }
    let (mut began, mut who) = (kernel_to_init, Who::Init);
    for (name, ended) in steps {
        // The table of `/init` prints what it does; the agent's own steps come after it has read its options.
        if name.starts_with("read the options") {
            who = Who::Agent;
        }
        spans.push(span(who, name, to_kernel + began, to_kernel + *ended));
        began = *ended;
    }
    spans.sort_by_key(|span| (span.start_us, span.who));
    Chart { accel, ready_us: us(to_ready), spans }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_ends_with_a_refusal_and_not_with_an_echo() {
        assert!(!is_whole(b"/ # dmesg\r\n[ 0.1] x\r\n/ # end-of''-log\r\n"));
        assert!(is_whole(b"[ 0.1] x\r\n/ # end-of''-log\r\nsh: end-of-log: not found\r\n/ # "));
        assert!(is_whole(b"[ 0.1] x\nunknown command \"end-of''-log\"; `help` lists the commands\n"));
    }

    #[test]
    fn all_reports_are_on_one_axis() {
        let call = kernel_log::Initcall {
            name: "ext4_init_fs".into(),
            began: Duration::from_millis(30),
            took: Duration::from_millis(5),
        };
        let console = "noise\n\
            {\"msg\":\"boot step\",\"step\":\"make directory /proc (0555)\",\"microseconds\":101000}\n\
            {\"msg\":\"other\",\"step\":\"x\",\"microseconds\":1}\n\
            {\"msg\":\"boot step\",\"step\":\"read the options, start the log\",\"microseconds\":\"103000\"}\n\
            {\"msg\":\"boot step\",\"step\":\"listen for calls\",\"microseconds\":110000}\n";
        let ms = Duration::from_millis;
        let chart = assemble(
            "tcg".into(),
            ms(200),
            ms(312),
            ms(100),
            &[call],
            Some((ms(20), ms(70))),
            &agent_steps(console),
        );
        let brief: Vec<_> = chart
            .spans
            .iter()
            .map(|s| (s.who, s.name.as_str(), s.start_us / 1000, s.length_us / 1000))
            .collect();
        assert_eq!(
            brief,
            [
                (Who::Machine, "VMM and firmware", 0, 200),
                (Who::Kernel, "kernel, before initcalls", 200, 30),
                (Who::Kernel, "kernel, unpack the initramfs", 220, 50),
                (Who::Kernel, "kernel, initcalls", 230, 5),
                (Who::Initcall, "ext4_init_fs", 230, 5),
                (Who::Kernel, "kernel, after initcalls", 235, 65),
                (Who::Init, "make directory /proc (0555)", 300, 1),
                (Who::Agent, "read the options, start the log", 301, 2),
                (Who::Agent, "listen for calls", 303, 7),
            ]
        );
        assert_eq!(chart.ready_us, 312_000);
    }
}
