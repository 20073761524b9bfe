//! `run --detach`: the same program again, in the background.
//!
//! The parent relays what the child says until the pod is up, then leaves it alone. Nothing of the pod is shown
//! after that: `logs` has it.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;
use image_builder::run::output::{Event, Sink};
use image_builder::run::state::{Phase, StateDir};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Set in the environment of the child.
const DETACHED: &str = "PITH_DETACHED";
const POLL: Duration = Duration::from_millis(20);

/// Whether this process is the child.
pub(super) fn is_detached() -> bool {
    std::env::var_os(DETACHED).is_some()
}

/// Shows everything but containers' output.
pub(super) struct NotesOnly<S>(pub(super) S);

impl<S: Sink> Sink for NotesOnly<S> {
    fn show(&self, event: &Event) {
        if !matches!(event, Event::Output { .. }) {
            self.0.show(event);
        }
    }
}

/// Starts the child and waits until its pod is up, or it has ended.
pub(super) async fn run(pod: &str, state: &StateDir) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let notes = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    let for_child = notes.reopen().context("cannot open a temporary file")?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(DETACHED, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(for_child)
        // Ctrl-C at the terminal is for whoever is in the foreground.
        .process_group(0)
        .spawn()
        .context("cannot start the pod's process")?;
    let mut said = notes.reopen().context("cannot open a temporary file")?;
    let mut signals = super::exec::Signals::listen()?;
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
            Ok(super::exec::ended_by(number))
        }
    };
    relay(&mut said);
    outcome
}

async fn until_up(
    child: &mut Child,
    said: &mut impl Read,
    pod: &str,
    state: &StateDir,
) -> anyhow::Result<ExitCode> {
    loop {
        relay(said);
        if let Some(status) = child.try_wait().context("cannot wait for the pod's process")? {
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255);
            return Ok(ExitCode::from(code));
        }
        if let Ok((_, record)) = state.find(pod)
            && record.pid == child.id()
            && matches!(record.phase, Phase::Running | Phase::Finished)
        {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(POLL).await;
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
