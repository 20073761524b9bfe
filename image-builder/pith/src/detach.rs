//! `run --detach`: runs the same program again, in the background.
//!
//! The parent shows the child's messages until the pod is ready. After that, nothing of the pod is shown; use `logs`.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pods::run::output::{Event, Sink};
use pods::run::state::{ContainerPhase, ContainerRecord, ContainerRole, Phase, PodRecord, StateDir};

use crate::global::Global;

/// Set in the environment of the child.
const DETACHED: &str = "PITH_DETACHED";
const POLL: Duration = Duration::from_millis(20);
/// How long published ports are waited for when everything else is up.
const PORTS_WITHIN: Duration = Duration::from_secs(2);

/// What the pod is called, if this process is the child.
pub(crate) fn child() -> Option<String> {
    std::env::var(DETACHED).ok()
}

/// Shows everything but containers' output.
pub(crate) struct NotesOnly<S>(pub(crate) S);

impl<S: Sink> Sink for NotesOnly<S> {
    fn show(&self, event: &Event) {
        if !matches!(event, Event::Output { .. }) {
            self.0.show(event);
        }
    }
}

/// Starts the child and waits until its pod is up, or it has ended.
pub(crate) async fn run(pod: &str, state: &StateDir, global: &Global) -> anyhow::Result<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    start(pod, &arguments, None, state, global).await
}

/// Starts the child with these arguments, in this directory or where we are, and prints the pod's name once it is up.
pub(crate) async fn start(
    pod: &str,
    arguments: &[OsString],
    directory: Option<&Path>,
    state: &StateDir,
    global: &Global,
) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let notes = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    let for_child = notes.reopen().context("cannot open a temporary file")?;
    let mut command = Command::new(program);
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    let mut child = command
        .args(arguments)
        .env(DETACHED, pod)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(for_child)
        // Ctrl-C at the terminal is for whoever is in the foreground.
        .process_group(0)
        .spawn()
        .context("cannot start the pod's process")?;
    let mut said = notes.reopen().context("cannot open a temporary file")?;
    let mut signals = crate::exec::Signals::listen()?;
    let outcome = tokio::select! {
        outcome = until_up(&mut child, &mut said, pod, state) => outcome,
        number = signals.next() => {
            // Not reaped yet, so the number is its own.
            let pid = Pid::from_raw(child.id().cast_signed());
            kill(pid, Signal::SIGTERM).ok();
            loop {
                tokio::select! {
                    ended = until_ended(&mut child) => break ended?,
                    // Whoever asks again wants it at once, and has it at the third time.
                    _ = signals.next() => drop(kill(pid, Signal::SIGTERM)),
                }
            }
            Ok(crate::exec::ended_by(number))
        }
    };
    relay(&mut said);
    let up = matches!(&outcome, Ok(code) if *code == ExitCode::SUCCESS);
    if up {
        global.print(&serde_json::json!({"pod": pod}), || pod.to_owned())?;
    }
    outcome
}

async fn until_up(
    child: &mut Child,
    said: &mut impl Read,
    pod: &str,
    state: &StateDir,
) -> anyhow::Result<ExitCode> {
    let mut up_since = None;
    loop {
        relay(said);
        if let Some(status) = child.try_wait().context("cannot wait for the pod's process")? {
            // One that was up and has ended meanwhile was up.
            if state.find_any(pod).is_ok_and(|(_, record)| record.pid == child.id() && record.error.is_none())
            {
                return Ok(ExitCode::SUCCESS);
            }
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255);
            return Ok(ExitCode::from(code));
        }
        if let Ok((_, record)) = state.find(pod)
            && record.pid == child.id()
            && is_up(&record)
        {
            // A server that is ready is reached a moment later; a port that nobody serves does not hold this up for long.
            let since = *up_since.get_or_insert_with(Instant::now);
            if record.waiting_ports.is_empty() || since.elapsed() > PORTS_WITHIN {
                return Ok(ExitCode::SUCCESS);
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether all containers have started, and those with a probe have become ready. Containers that have ended for good, and init
/// containers, need not be waited for.
fn is_up(record: &PodRecord) -> bool {
    let done = |container: &ContainerRecord| {
        container.role == ContainerRole::Init
            || container.ready
            || container.phase == ContainerPhase::Exited
            // It has started, and ended before anybody looked.
            || container.restarts > 0 && !container.probed
    };
    match record.phase {
        Phase::Running => record.containers.iter().all(done),
        Phase::Finished => true,
        Phase::Starting | Phase::Stopping | Phase::Ended => false,
    }
}

async fn until_ended(child: &mut Child) -> anyhow::Result<()> {
    while child.try_wait().context("cannot wait for the pod's process")?.is_none() {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn relay(said: &mut impl Read) {
    let mut text = Vec::new();
    // What cannot be relayed is not worth failing for.
    drop(said.read_to_end(&mut text).and_then(|_| std::io::stderr().write_all(&text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(container: ContainerRecord) -> PodRecord {
        let init = ContainerRecord { role: ContainerRole::Init, ..ContainerRecord::default() };
        let record = serde_json::json!({
            "name": "web", "pid": 1, "phase": "running", "started": 0, "accel": null, "endpoint": null,
            "containers": [init, container], "timings": pods::run::timing::Timings::default(),
        });
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn a_pod_is_up_when_its_probes_have_passed_and_not_because_it_was_started_again() {
        let container = ContainerRecord { probed: true, ..ContainerRecord::default() };
        let running = ContainerRecord { phase: ContainerPhase::Running, ..container.clone() };
        let waiting = ContainerRecord { phase: ContainerPhase::Waiting, ..container };
        for (container, expected) in [
            (running.clone(), false),
            (ContainerRecord { ready: true, ..running.clone() }, true),
            (ContainerRecord { restarts: 2, ..running.clone() }, false),
            (ContainerRecord { restarts: 2, ready: true, ..running.clone() }, true),
            (ContainerRecord { restarts: 2, ..waiting.clone() }, false),
            (ContainerRecord { restarts: 2, probed: false, ..waiting.clone() }, true),
            (ContainerRecord { phase: ContainerPhase::Exited, ..waiting }, true),
        ] {
            assert_eq!(is_up(&pod(container.clone())), expected, "{container:?}");
        }
        let starting =
            PodRecord { phase: Phase::Starting, ..pod(ContainerRecord { ready: true, ..running }) };
        assert!(!is_up(&starting));
    }
}
