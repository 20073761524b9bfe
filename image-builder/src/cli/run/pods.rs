//! `ps`, `logs`, `stop` and `timings`: what concerns a pod as a whole.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use image_builder::run::exec;
use image_builder::run::output::Lines;
use image_builder::run::state::{self, ContainerPhase, ContainerRecord, LOG_SEGMENTS, PodRecord, StateDir};
use image_builder::run::timing::Timings;
use image_builder::text;
use image_builder::vm::AgentClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{BENCH_EXEC, Global, state};

pub(super) const POLL: Duration = Duration::from_millis(50);
/// How long the pod's process may take to switch its machine off.
const SWITCH_OFF: Duration = Duration::from_secs(10);

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// The pod whose containers to list, with the ids that the agent's API knows them by.
    pod: Option<String>,
}

impl PsArgs {
    pub(super) fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        if let Some(name) = &self.pod {
            let (_, pod) = state().find(name)?;
            global.print(&pod, || containers(&pod))?;
            return Ok(ExitCode::SUCCESS);
        }
        let pods = state().pods()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        global.print(&pods, || table(&pods, now))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// How a container is, in a word or two.
fn status(container: &ContainerRecord) -> String {
    match (container.phase, container.exit_code) {
        (ContainerPhase::Exited, Some(code)) => format!("ended ({code})"),
        (ContainerPhase::Exited, None) => "ended".to_owned(),
        (ContainerPhase::Waiting, Some(code)) => format!("waiting (ended with {code})"),
        (ContainerPhase::Waiting, None) => "waiting".to_owned(),
        (ContainerPhase::Running, _) if container.ready => "running".to_owned(),
        (ContainerPhase::Running, _) => "running, not ready".to_owned(),
    }
}

fn containers(pod: &PodRecord) -> String {
    let mut rows = vec![["CONTAINER", "ID", "KIND", "STATUS", "RESTARTS", "IMAGE"].map(str::to_owned)];
    for container in &pod.containers {
        rows.push([
            container.name.clone(),
            container.id.clone(),
            format!("{:?}", container.role).to_lowercase(),
            status(container),
            container.restarts.to_string(),
            container.image.clone(),
        ]);
    }
    columns(&rows)
}

fn table(pods: &[PodRecord], now: u64) -> String {
    let mut rows = vec![["POD", "PHASE", "CONTAINERS", "UP", "ACCEL", "PID", "PORTS"].map(str::to_owned)];
    for pod in pods {
        let containers =
            pod.containers.iter().map(|container| match (container.phase, container.exit_code) {
                (ContainerPhase::Exited, Some(code)) => format!("{}({code})", container.name),
                (ContainerPhase::Waiting, _) => format!("{}(waiting)", container.name),
                (ContainerPhase::Running, _) if !container.ready => format!("{}(not ready)", container.name),
                _ => container.name.clone(),
            });
        rows.push([
            pod.name.clone(),
            format!("{:?}", pod.phase).to_lowercase(),
            containers.collect::<Vec<_>>().join(","),
            format!("{} s", now.saturating_sub(pod.started)),
            pod.accel.clone().unwrap_or_default(),
            pod.pid.to_string(),
            ports(pod).join(","),
        ]);
    }
    columns(&rows)
}

/// What of the host leads into a pod.
fn ports(pod: &PodRecord) -> Vec<String> {
    let published = pod.ports.iter().map(ToString::to_string);
    published.chain(pod.sandbox_api.map(|address| format!("{address}->sandbox-api"))).collect()
}

/// Rows with their cells below each other.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on until the container has ended.
    #[arg(short, long)]
    follow: bool,
    /// The pod.
    pod: String,
    /// The container; not needed when there is only one.
    container: Option<String>,
}

impl LogsArgs {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let state = state();
        let (dir, record) = state.find(&self.pod)?;
        let name = record.container(self.container.as_deref())?.name.clone();
        let mut log = state::log(&dir, &name);
        // A terminal would obey what the container wrote; anything else gets it as it is.
        let mut lines = std::io::stdout().is_terminal().then(Lines::default);
        loop {
            // Asked before reading: what was written before the end is read after it.
            let ended = match state.find(&self.pod) {
                Ok((_, record)) => record.container(Some(&name))?.phase == ContainerPhase::Exited,
                Err(_) => true,
            };
            copy_new(&name, &mut log, lines.as_mut())?;
            if ended || !self.follow {
                if let Some(last) = lines.as_mut().and_then(Lines::finish) {
                    print(text::coloured(&last).as_bytes())?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Copies what is new in a log, which may not exist yet, to standard output, and says what is gone.
pub(super) fn copy_new(
    container: &str,
    log: &mut state::Reader,
    mut lines: Option<&mut Lines>,
) -> anyhow::Result<()> {
    loop {
        let piece = log.next_piece().with_context(|| format!("cannot read the log of {container}"))?;
        if piece.missing > 0 {
            eprintln!(
                "image-builder: {} bytes of the log of {container} are gone: its last {LOG_SEGMENTS} MiB are kept",
                piece.missing
            );
        }
        if piece.bytes.is_empty() {
            return Ok(());
        }
        match lines.as_mut() {
            Some(lines) => {
                let mut shown = String::new();
                lines.feed(&piece.bytes, |line| shown.extend([text::coloured(&line).as_ref(), "\n"]));
                print(shown.as_bytes())?;
            }
            None => print(&piece.bytes)?,
        }
    }
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The pod.
    pod: String,
    /// Seconds after which the guest is switched off under the containers [default: what their grace period and an orderly
    /// end can take].
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

impl StopArgs {
    /// First asks the pod's process to end in order, then to switch the guest off, then ends it, and the machine with it.
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let state = state();
        let (_, record) = state.find(&self.pod)?;
        let orderly = Duration::from_secs(self.timeout.unwrap_or(record.stop_within));
        for (order, within) in
            [(Signal::SIGTERM, orderly), (Signal::SIGTERM, SWITCH_OFF), (Signal::SIGKILL, SWITCH_OFF)]
        {
            let pid = Pid::from_raw(record.pid.cast_signed());
            match kill(pid, order) {
                // The process holds the pod's lock, so the number was its own; now it is gone.
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("cannot signal process {pid}")),
            }
            if is_gone(&state, &record, within).await {
                return Ok(ExitCode::SUCCESS);
            }
        }
        anyhow::bail!("process {} of pod {:?} does not end, not even by SIGKILL", record.pid, self.pod)
    }
}

/// Waits until the pod is gone; false when it is not within that time.
async fn is_gone(state: &StateDir, pod: &PodRecord, within: Duration) -> bool {
    let begun = Instant::now();
    while state.find(&pod.name).is_ok_and(|(_, now)| now.pid == pod.pid) {
        if begun.elapsed() > within {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// Arguments of `timings`.
#[derive(Debug, Args)]
pub(crate) struct TimingsArgs {
    /// The pod.
    pod: String,
    /// The container to measure in [default: the first that runs].
    container: Option<String>,
    /// How many execs to measure.
    #[arg(long, value_name = "N", default_value_t = BENCH_EXEC)]
    bench_exec: u32,
    /// What to execute.
    #[arg(last = true, default_value = "/bin/true")]
    command: Vec<String>,
}

impl TimingsArgs {
    pub(super) async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let (_, record) = state().find(&self.pod)?;
        let container = match &self.container {
            Some(name) => record.container(Some(name))?,
            None => record
                .containers
                .iter()
                .find(|container| container.phase == ContainerPhase::Running)
                .with_context(|| format!("no container of pod {:?} runs any more", self.pod))?,
        };
        let client = AgentClient::connect(record.endpoint()?).await?;
        let exec_ms = exec::bench(&client, container, &self.command, self.bench_exec).await?;
        let timings = Timings { exec_ms, ..record.timings.clone() };
        global.print(&timings, || timings.table().trim_end().to_owned())?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use image_builder::run::state::ProcessRecord;

    use super::*;

    #[test]
    fn containers_are_listed_with_their_ids() {
        let pod: PodRecord = serde_json::from_value(serde_json::json!({
            "name": "web", "pid": 1, "phase": "running", "started": 0, "accel": null, "endpoint": null,
            "timings": image_builder::run::timing::Timings::default(),
            "containers": [
                {"name": "init", "id": "web-init", "image": "./i", "phase": "exited", "exit_code": 0, "role": "init",
                 "process": ProcessRecord::default()},
                {"name": "a", "id": "web-a", "image": "./a", "phase": "running", "exit_code": null, "restarts": 2,
                 "process": ProcessRecord::default()},
            ],
        }))
        .unwrap();
        assert_eq!(
            containers(&pod),
            "CONTAINER  ID        KIND  STATUS              RESTARTS  IMAGE\n\
             init       web-init  init  ended (0)           0         ./i\n\
             a          web-a     main  running, not ready  2         ./a"
        );
    }
}
