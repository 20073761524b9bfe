//! `stats`: shows the resource usage of containers, once or every second.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use machine::vm::AgentClient;
use pods::run::state::{ContainerPhase, PodRecord};
use protocols::agent::{BlkioStatsEntry, StatsContainerRequest, StatsContainerResponse};
use serde::Serialize;
use store::progress::bytes;

use crate::global::{Global, columns, state, write};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Begins a terminal's screen anew.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Arguments of `stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// The pods [default: all running pods].
    #[arg(value_name = "POD")]
    pods: Vec<String>,
    /// Show the figures once, and end.
    #[arg(long)]
    no_stream: bool,
}

/// What one container uses.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Usage {
    pod: String,
    container: String,
    id: String,
    /// Time on processors so far, in nanoseconds.
    cpu_ns: u64,
    /// Of one processor, in the time between two looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_percent: Option<f64>,
    memory_bytes: u64,
    /// Nothing: it has no limit.
    memory_limit: Option<u64>,
    processes: u64,
    read_bytes: u64,
    written_bytes: u64,
}

impl StatsArgs {
    /// Runs the command, until a signal ends it or none of the pods is left.
    ///
    /// # Errors
    /// When there is no such pod, or when a guest does not answer.
    pub async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let live = !self.no_stream && (global.json || std::io::stdout().is_terminal());
        let mut before = look(&self.records(false)?, &[]).await?;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let mut records = self.records(live)?;
            let usages = match look(&records, &before).await {
                // A guest may have ended after its pod's record was read.
                Err(_) if live => {
                    tokio::time::sleep(INTERVAL).await;
                    records = self.records(live)?;
                    look(&records, &before).await?
                }
                usages => usages?,
            };
            let now: Vec<Usage> = usages.iter().map(|(usage, _)| usage.clone()).collect();
            if !live {
                return global.print(&now, || table(&now));
            }
            if global.json {
                write(&lines(&now)?)?;
            } else {
                write(&format!("{CLEAR}{}\n", table(&now)))?;
            }
            if records.is_empty() {
                return Ok(());
            }
            before = usages;
        }
    }

    /// The running pods that are asked for. Once figures were shown (`is_late`), a pod may have ended: it is left out.
    fn records(&self, is_late: bool) -> anyhow::Result<Vec<PodRecord>> {
        let state = state();
        if self.pods.is_empty() {
            return Ok(state.pods()?);
        }
        let mut found = Vec::new();
        for name in &self.pods {
            match state.find(name) {
                Ok((_, record)) => found.push(record),
                Err(_) if is_late => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }
}

/// One object per line, as others read a stream.
fn lines(usages: &[Usage]) -> anyhow::Result<String> {
    let mut text = String::new();
    for usage in usages {
        text += &serde_json::to_string(usage)?;
        text.push('\n');
    }
    Ok(text)
}

/// What all running containers of these pods use.
async fn look(records: &[PodRecord], before: &[(Usage, Instant)]) -> anyhow::Result<Vec<(Usage, Instant)>> {
    let mut usages = Vec::new();
    for pod in records {
        // One that is starting has no guest yet.
        let Some(endpoint) = &pod.endpoint else { continue };
        let client = AgentClient::connect(endpoint).await.with_context(|| format!("pod {}", pod.name))?;
        for container in pod.containers.iter().filter(|one| one.phase == ContainerPhase::Running) {
            let mut request = StatsContainerRequest::new();
            request.container_id.clone_from(&container.id);
            // It may have ended this instant.
            let Ok(stats) = client.agent.stats_container(AgentClient::call(), &request).await else {
                continue;
            };
            let now = Instant::now();
            let mut usage = Usage { pod: pod.name.clone(), container: container.name.clone(), ..of(&stats) };
            usage.id.clone_from(&container.id);
            let last = before.iter().find(|(last, _)| last.id == usage.id);
            usage.cpu_percent = last.map(|(last, at)| {
                let spent = usage.cpu_ns.saturating_sub(last.cpu_ns) as f64;
                let percent = spent / now.duration_since(*at).as_nanos().max(1) as f64 * 100.0;
                (percent * 10.0).round() / 10.0
            });
            usages.push((usage, now));
        }
    }
    Ok(usages)
}

fn of(stats: &StatsContainerResponse) -> Usage {
    let group = &stats.cgroup_stats;
    let memory = &group.memory_stats.usage;
    let moved = |what: &str| {
        let entries = group.blkio_stats.io_service_bytes_recursive.iter();
        let of_kind = |entry: &&BlkioStatsEntry| entry.op.eq_ignore_ascii_case(what);
        entries.filter(of_kind).map(|entry| entry.value).fold(0, u64::saturating_add)
    };
    Usage {
        cpu_ns: group.cpu_stats.cpu_usage.total_usage,
        memory_bytes: memory.usage,
        // The largest numbers stand for none.
        memory_limit: Some(memory.limit).filter(|limit| (1..1 << 60).contains(limit)),
        processes: group.pids_stats.current,
        read_bytes: moved("read"),
        written_bytes: moved("write"),
        ..Usage::default()
    }
}

fn table(usages: &[Usage]) -> String {
    let mut rows = vec![
        ["POD", "CONTAINER", "CPU", "MEMORY", "LIMIT", "PROCESSES", "READ", "WRITTEN"].map(str::to_owned),
    ];
    rows.extend(usages.iter().map(|usage| {
        [
            usage.pod.clone(),
            usage.container.clone(),
            usage.cpu_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}%")),
            bytes(usage.memory_bytes),
            usage.memory_limit.map_or_else(|| "-".to_owned(), bytes),
            usage.processes.to_string(),
            bytes(usage.read_bytes),
            bytes(usage.written_bytes),
        ]
    }));
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_taken_out_of_an_answer_and_shown() {
        let mut stats = StatsContainerResponse::new();
        let group = stats.cgroup_stats.mut_or_insert_default();
        group.cpu_stats.mut_or_insert_default().cpu_usage.mut_or_insert_default().total_usage = 5_000_000;
        let memory = group.memory_stats.mut_or_insert_default().usage.mut_or_insert_default();
        (memory.usage, memory.limit) = (2_000_000, u64::MAX);
        group.pids_stats.mut_or_insert_default().current = 3;
        for (op, value) in [("Read", 10), ("write", 20), ("read", 5)] {
            let entry = BlkioStatsEntry { op: op.into(), value, ..BlkioStatsEntry::default() };
            group.blkio_stats.mut_or_insert_default().io_service_bytes_recursive.push(entry);
        }
        let usage = Usage { pod: "web".into(), container: "a".into(), cpu_percent: Some(12.5), ..of(&stats) };
        assert_eq!(
            (usage.cpu_ns, usage.memory_limit, usage.read_bytes, usage.written_bytes),
            (5_000_000, None, 15, 20)
        );
        let stream = lines(&[usage.clone(), Usage { container: "b".into(), ..usage.clone() }]).unwrap();
        let stream: Vec<serde_json::Value> =
            stream.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!([&stream[0]["container"], &stream[1]["container"]], ["a", "b"]);
        assert_eq!(
            table(&[usage]),
            "POD  CONTAINER  CPU    MEMORY   LIMIT  PROCESSES  READ  WRITTEN\n\
             web  a          12.5%  2.00 MB  -      3          15 B  20 B"
        );
    }
}
