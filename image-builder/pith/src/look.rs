//! `ps`, `stop` and `timings`.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use machine::vm::AgentClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pods::run::exec;
use pods::run::state::{ContainerPhase, ContainerRecord, Phase, PodRecord, StateDir};
use pods::run::timing::Timings;

use crate::global::{Global, columns, state};
use crate::images::span;
use crate::run::BENCH_EXEC;

pub(crate) const POLL: Duration = Duration::from_millis(50);
/// How long the pod's process may take to switch its machine off.
const SWITCH_OFF: Duration = Duration::from_secs(10);

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// List the containers of this pod, with their ids in the agent's API.
    pod: Option<String>,
    /// Also list pods that have ended.
    #[arg(short, long)]
    all: bool,
    /// Print only the names.
    #[arg(short, long)]
    quiet: bool,
}

impl PsArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such pod, or when the state directory cannot be used.
    pub fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        if let Some(name) = &self.pod {
            let (_, pod) = state().find_any(name)?;
            let names = || pod.containers.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join("\n");
            global.print(&pod, || if self.quiet { names() } else { containers(&pod) })?;
            return Ok(ExitCode::SUCCESS);
        }
        let pods = if self.all { state().all()? } else { state().pods()? };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let names = || pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>().join("\n");
        global.print(&pods, || if self.quiet { names() } else { table(&pods, now) })?;
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
            match pod.exit_code {
                Some(code) => format!("ended ({code})"),
                None => format!("{:?}", pod.phase).to_lowercase(),
            },
            containers.collect::<Vec<_>>().join(","),
            span(pod.ended.unwrap_or(now).saturating_sub(pod.started)),
            pod.accel.clone().unwrap_or_default(),
            if pod.phase == Phase::Ended { String::new() } else { pod.pid.to_string() },
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

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// The pods.
    #[arg(value_name = "POD", required_unless_present = "all")]
    pods: Vec<String>,
    /// All running pods.
    #[arg(short, long, conflicts_with = "pods")]
    all: bool,
    /// Switch the guest off after this many seconds, even if containers still run [default: long enough for their grace
    /// periods and an orderly end].
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

impl StopArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such pod, or when one does not end.
    pub async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let state = state();
        let names =
            if self.all { state.pods()?.into_iter().map(|pod| pod.name).collect() } else { self.pods };
        for name in &names {
            let (_, record) = state.find(name)?;
            stop(&state, &record, self.timeout.map(Duration::from_secs)).await?;
        }
        if global.json {
            global.print(&names, String::new)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Ends a pod: first asks its process to end in order, then to switch the guest off, then ends it, and the machine with it.
pub(crate) async fn stop(
    state: &StateDir,
    record: &PodRecord,
    orderly: Option<Duration>,
) -> anyhow::Result<()> {
    let orderly = orderly.unwrap_or(Duration::from_secs(record.stop_within));
    for (order, within) in
        [(Signal::SIGTERM, orderly), (Signal::SIGTERM, SWITCH_OFF), (Signal::SIGKILL, SWITCH_OFF)]
    {
        let pid = Pid::from_raw(record.pid.cast_signed());
        match kill(pid, order) {
            // The process holds the pod's lock, so the number was its own; now it is gone.
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot signal process {pid}")),
        }
        if is_gone(state, record, within).await {
            return Ok(());
        }
    }
    anyhow::bail!("process {} of pod {:?} does not end, not even by SIGKILL", record.pid, record.name)
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
pub struct TimingsArgs {
    /// The pod.
    pod: String,
    /// The container to measure in [default: the first running one].
    container: Option<String>,
    /// How many execs to measure.
    #[arg(long, value_name = "N", default_value_t = BENCH_EXEC)]
    bench_exec: u32,
    /// The command to execute.
    #[arg(last = true, default_value = "/bin/true")]
    command: Vec<String>,
}

impl TimingsArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the pod does not run, or when the command cannot be started.
    pub async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
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
    use pods::run::state::ProcessRecord;

    use super::*;

    #[test]
    fn containers_are_listed_with_their_ids() {
        let pod: PodRecord = serde_json::from_value(serde_json::json!({
            "name": "web", "pid": 1, "phase": "running", "started": 0, "accel": null, "endpoint": null,
            "timings": pods::run::timing::Timings::default(),
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
