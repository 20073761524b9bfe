//! `attach`: connects the user's terminal to a container's standard input, and shows the container's output.
//!
//! The output comes from the container's log, because only the process that runs the pod can read the container's streams.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use machine::vm::AgentClient;
use pods::run::exec::{WRITE, attach};
use pods::run::output::Lines;
use pods::run::state::{self, ContainerPhase};
use pods::run::terminal::{RawMode, read_stdin};
use tokio::sync::mpsc;

use crate::exec::{Signals, ended_by, resizes};
use crate::global::{exit_code, state};
use crate::logs::copy_new;
use crate::look::POLL;

/// Ctrl-P and Ctrl-Q, one after the other.
const LEAVE: [u8; 2] = [0x10, 0x11];

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The pod.
    pod: String,
    /// The container. Only needed if the pod has several.
    container: Option<String>,
}

impl AttachArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the container does not run, or has no input.
    pub async fn execute(self) -> anyhow::Result<ExitCode> {
        let pods = state();
        let (dir, record) = pods.find(&self.pod)?;
        let container = record.container(self.container.as_deref())?.clone();
        anyhow::ensure!(
            container.stdin,
            "the input of {} is closed; start it with `run -i`, or with stdin: true in its manifest",
            container.name
        );
        let mut log = state::log(&dir, &container.name);
        // What was written before is `logs`' to show.
        while !log.next_piece().context("cannot read the log")?.bytes.is_empty() {}
        let client = AgentClient::connect(record.endpoint()?).await?;
        let mut signals = Signals::listen()?;
        let raw = if container.tty { RawMode::enter().context("cannot set up the terminal")? } else { None };
        // Without raw mode the terminal would obey what the container writes.
        let mut lines = (raw.is_none() && std::io::stdout().is_terminal()).then(Lines::default);
        let (stdin, mut left) = watch_for_leave(read_stdin(WRITE), raw.is_some());
        let resizes = if container.tty { Some(resizes()?) } else { None };
        // Aborted with this scope. The end of the input is not the end of the output.
        let mut side = tokio::task::JoinSet::new();
        let fed = container.clone();
        side.spawn(async move { attach(&client, &fed, stdin, resizes).await });
        loop {
            // Asked before reading: what was written before the end is read after it.
            let now = pods.find(&self.pod).ok();
            let now = now.and_then(|(_, record)| record.container(Some(&container.name)).ok().cloned());
            copy_new(&container.name, &mut log, lines.as_mut())?;
            match now {
                Some(now) if now.phase != ContainerPhase::Exited => {}
                Some(now) => return Ok(exit_code(now.exit_code.unwrap_or_default())),
                None => anyhow::bail!("pod {:?} has ended", self.pod),
            }
            tokio::select! {
                // By return, so that the terminal is put back.
                number = signals.next() => return Ok(ended_by(number)),
                Some(()) = left.recv() => {
                    eprint!("\r\npith: left {}; it goes on\r\n", container.name);
                    return Ok(ExitCode::SUCCESS);
                }
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

/// Passes input on, and on a terminal tells when its user wants to leave.
fn watch_for_leave(
    mut input: mpsc::Receiver<Vec<u8>>,
    on_terminal: bool,
) -> (mpsc::Receiver<Vec<u8>>, mpsc::Receiver<()>) {
    let (leave, left) = mpsc::channel(1);
    if !on_terminal {
        return (input, left);
    }
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut keys = Keys::default();
        while let Some(bytes) = input.recv().await {
            let (pass, leaves) = keys.take(&bytes);
            if !pass.is_empty() && sender.send(pass).await.is_err() {
                return;
            }
            if leaves {
                leave.send(()).await.ok();
                // The container's input must not end with this.
                std::future::pending::<()>().await;
            }
        }
    });
    (receiver, left)
}

/// Looks for the two keys, which may come in two pieces.
#[derive(Debug, Default)]
struct Keys {
    first: bool,
}

impl Keys {
    /// What is to be passed on, and whether the user leaves.
    fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if self.first && byte == LEAVE[1] {
                return (pass, true);
            }
            if self.first {
                pass.push(LEAVE[0]);
            }
            self.first = byte == LEAVE[0];
            if !self.first {
                pass.push(byte);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_leave_and_everything_else_is_passed_on() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"ab"), (b"ab".to_vec(), false));
        assert_eq!(keys.take(b"\x10"), (vec![], false));
        assert_eq!(keys.take(b"x\x10\x10"), (b"\x10x\x10".to_vec(), false));
        assert_eq!(keys.take(b"\x11rest"), (vec![], true));
        assert_eq!(Keys::default().take(b"a\x11b\x10\x11c"), (b"a\x11b".to_vec(), true));
    }
}
