//! `wait`, `rm`, `restart`, `pause`, `unpause`, `top`, `inspect` and `port`.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Args;
use machine::vm::AgentClient;
use pods::run::exec::{ExecCommand, ExecStreams, exec};
use pods::run::state::{ContainerPhase, Phase, PodRecord, StateError};
use protocols::agent::{PauseContainerRequest, ResumeContainerRequest};
use protocols::client::CallError;
use serde_json::json;

use crate::detach;
use crate::global::{Global, columns, state};
use crate::look::{POLL, stop};

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// The pods.
    #[arg(value_name = "POD", required = true)]
    pods: Vec<String>,
}

impl WaitArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such pod, or when one leaves nothing behind that tells its status.
    pub async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let state = state();
        // All are looked up before any is waited for: a name that is wrong is told at once.
        let pods: Vec<PodRecord> =
            self.pods.iter().map(|name| Ok(state.find_any(name)?.1)).collect::<Result<_, StateError>>()?;
        let mut codes = Vec::new();
        for pod in pods {
            let code = loop {
                match state.find_any(&pod.name) {
                    Ok((_, now)) if now.phase == Phase::Ended => break now.exit_code.unwrap_or_default(),
                    Ok((_, now)) if now.pid == pod.pid => {}
                    // It left nothing, or another one has its name.
                    _ => bail!(
                        "pod {:?} has ended and left no status; it was run with --rm, or was killed",
                        pod.name
                    ),
                }
                tokio::time::sleep(POLL).await;
            };
            codes.push(json!({"pod": pod.name, "exit_code": code}));
        }
        let lines = || codes.iter().map(|one| one["exit_code"].to_string()).collect::<Vec<_>>().join("\n");
        global.print(&codes, lines)
    }
}

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// The pods.
    #[arg(value_name = "POD", required_unless_present = "all")]
    pods: Vec<String>,
    /// All pods that have ended.
    #[arg(short, long, conflicts_with = "pods")]
    all: bool,
    /// Also remove running pods. They are stopped first.
    #[arg(short, long)]
    force: bool,
}

impl RmArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such pod, or when one runs.
    pub async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let state = state();
        let names: Vec<String> = if self.all {
            let pods = state.all()?.into_iter();
            pods.filter(|pod| self.force || pod.phase == Phase::Ended).map(|pod| pod.name).collect()
        } else {
            self.pods
        };
        let mut removed = Vec::new();
        for name in names {
            let (_, pod) = state.find_any(&name)?;
            if pod.phase != Phase::Ended {
                ensure!(self.force, StateError::StillRunning(pod.name));
                stop(&state, &pod, None).await?;
            }
            match state.remove(&pod.name) {
                // One that leaves nothing behind has gone by itself.
                Ok(()) | Err(StateError::NoPod { .. }) => removed.push(pod.name),
                Err(error) => return Err(error.into()),
            }
        }
        global.print(&removed, || removed.join("\n"))
    }
}

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// The pod.
    pod: String,
}

impl RestartArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such pod, or when it cannot be started again.
    pub async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let state = state();
        let (_, pod) = state.find_any(&self.pod)?;
        let origin = pod.origin.clone().with_context(|| {
            format!("pod {:?} cannot be started again: its manifest came from standard input", pod.name)
        })?;
        if pod.phase != Phase::Ended {
            stop(&state, &pod, None).await?;
        }
        let arguments: Vec<OsString> = origin.arguments.iter().map(OsString::from).collect();
        detach::start(&pod.name, &arguments, Some(&origin.directory), &state, global).await
    }
}

/// Arguments of `pause` and `unpause`.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// The pod.
    pod: String,
    /// One of its containers [default: all].
    container: Option<String>,
}

impl PauseArgs {
    /// Pauses, or lets go on.
    ///
    /// # Errors
    /// When the pod does not run, or when the guest refuses.
    pub async fn execute(self, global: &Global, pause: bool) -> anyhow::Result<()> {
        let (_, record) = state().find(&self.pod)?;
        let containers = match &self.container {
            Some(name) => vec![record.container(Some(name))?],
            None => {
                let running = record.containers.iter();
                running.filter(|container| container.phase == ContainerPhase::Running).collect()
            }
        };
        ensure!(!containers.is_empty(), "no container of pod {:?} runs", record.name);
        let client = AgentClient::connect(record.endpoint()?).await?;
        let mut done = Vec::new();
        for container in containers {
            let verb = if pause { "pause" } else { "unpause" };
            let answer = if pause {
                let mut request = PauseContainerRequest::new();
                request.container_id.clone_from(&container.id);
                client.agent.pause_container(AgentClient::call(), &request).await
            } else {
                let mut request = ResumeContainerRequest::new();
                request.container_id.clone_from(&container.id);
                client.agent.resume_container(AgentClient::call(), &request).await
            };
            answer.map_err(CallError::from).with_context(|| format!("cannot {verb} {}", container.name))?;
            done.push(container.id.clone());
        }
        global.print(&done, || done.join("\n"))
    }
}

/// Lists processes in a container whose image has no `ps`.
const PROCESSES: &str = "printf '%-7s %-5s %s\\n' PID STATE COMMAND; for d in /proc/[0-9]*; do \
    { read -r s < $d/stat; } 2>/dev/null || continue; n=${s#*(}; n=${n%)*}; r=${s##*) }; p=${d#/proc/}; \
    [ $p = $$ ] || printf '%-7s %-5s %s\\n' $p ${r%% *} \"$n\"; done";

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// The pod, or the id of a container.
    pod: String,
    /// The container. Only needed if the pod has several.
    container: Option<String>,
}

impl TopArgs {
    /// Runs the command: the container's own `ps`, or its shell where it has none.
    ///
    /// # Errors
    /// When the pod does not run, or when the image has neither.
    pub async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let (_, record) = state().find(&self.pod)?;
        let container = record.container(self.container.as_deref().or(record.container_in(&self.pod)))?;
        let client = AgentClient::connect(record.endpoint()?).await?;
        for command in [&["ps", "-o", "pid,user,time,args"][..], &["sh", "-c", PROCESSES][..]] {
            let args = command.iter().map(|&word| word.to_owned()).collect();
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let streams = ExecStreams { stdout: Box::new(theirs), ..ExecStreams::none() };
            let command = ExecCommand { args, ..ExecCommand::default() };
            let mut text = String::new();
            let mut ours = tokio::io::BufReader::new(tokio::io::AsyncReadExt::take(ours, 4 << 20));
            let read = tokio::io::AsyncReadExt::read_to_string(&mut ours, &mut text);
            let (code, read) = tokio::join!(exec(&client, container, &command, streams), read);
            if read.is_ok() && code.is_ok_and(|code| code == 0) && !text.trim().is_empty() {
                let lines: Vec<&str> =
                    text.lines().filter(|line| !line.ends_with("ps -o pid,user,time,args")).collect();
                return global.print(&lines, || lines.join("\n"));
            }
        }
        bail!(
            "the image of {} has neither `ps` nor a shell; `pith stats` counts its processes",
            container.name
        )
    }
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The pods, or ids of their containers.
    #[arg(value_name = "POD", required = true)]
    pods: Vec<String>,
}

impl InspectArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn execute(self) -> anyhow::Result<()> {
        let state = state();
        let mut found = Vec::new();
        for name in &self.pods {
            let (directory, pod) = state.find_any(name)?;
            let mut value = serde_json::to_value(&pod)?;
            value["directory"] = json!(directory);
            if pod.phase != Phase::Ended {
                value["socket"] = json!(directory.join("vm/vsock.sock"));
            }
            found.push(value);
        }
        // It is JSON with and without the option.
        Global { json: true, ..Global::default() }.print(&found, String::new)
    }
}

/// Arguments of `port`.
#[derive(Debug, Args)]
pub struct PortArgs {
    /// The pod [default: all running pods].
    pod: Option<String>,
}

impl PortArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn execute(self, global: &Global) -> anyhow::Result<()> {
        let pods = match &self.pod {
            Some(name) => vec![state().find(name)?.1],
            None => state().pods()?,
        };
        let ports: Vec<_> =
            pods.iter().flat_map(|pod| pod.ports.iter().map(|port| (&pod.name, port))).collect();
        let value: Vec<_> = ports.iter().map(|(pod, port)| json!({"pod": pod, "port": port})).collect();
        global.print(&value, || {
            let rows: Vec<[String; 2]> =
                ports.iter().map(|(pod, port)| [(*pod).clone(), port.to_string()]).collect();
            columns(&rows)
        })
    }
}
