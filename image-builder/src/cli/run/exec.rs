//! `exec` and `console`: the user's terminal in a guest.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use image_builder::run::exec::{ExecCommand, ExecStreams, WRITE, exec};
use image_builder::run::terminal::{RawMode, read_stdin, size};
use image_builder::vm::{AgentClient, CONSOLE_PORT, VmError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Global, exit_code, state};

/// Ctrl-], which ends a console session.
const ESCAPE: u8 = 0x1d;

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Pass standard input on.
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal.
    #[arg(short, long)]
    tty: bool,
    /// Set a variable, on top of the container's.
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Working directory instead of the container's.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User instead of the container's, by number.
    #[arg(short, long, value_name = "UID[:GID]", value_parser = parse_user)]
    user: Option<(u32, Option<u32>)>,
    /// The pod.
    pod: String,
    /// The container.
    container: String,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn parse_user(text: &str) -> Result<(u32, Option<u32>), std::num::ParseIntError> {
    match text.split_once(':') {
        Some((uid, gid)) => Ok((uid.parse()?, Some(gid.parse()?))),
        None => Ok((text.parse()?, None)),
    }
}

impl ExecArgs {
    pub(super) async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let (_, record) = state().find(&self.pod)?;
        let container = record.container(Some(&self.container))?;
        let client = AgentClient::connect(record.endpoint()?).await?;
        let command = ExecCommand {
            args: self.command,
            env: self.env,
            cwd: self.workdir,
            user: self.user,
            tty: self.tty,
            size: size(),
        };
        // The terminal's own line discipline must not stand between the user and the guest's.
        let raw = if self.tty && self.interactive {
            RawMode::enter().context("cannot set up the terminal")?
        } else {
            None
        };
        let streams = ExecStreams {
            stdin: self.interactive.then(|| read_stdin(WRITE)),
            stdout: Box::new(tokio::io::stdout()),
            stderr: Box::new(tokio::io::stderr()),
            resizes: if self.tty { Some(resizes()?) } else { None },
            signals: Some(signals()?),
        };
        let code = exec(&client, container, &command, streams).await;
        drop(raw);
        let code = code?;
        if global.json {
            eprintln!("{}", serde_json::json!({"event": "exited", "code": code}));
        }
        Ok(exit_code(code))
    }
}

/// The size of the terminal, now and whenever it changes.
fn resizes() -> anyhow::Result<mpsc::Receiver<(u16, u16)>> {
    let mut changed = signal(SignalKind::window_change()).context("cannot listen for signals")?;
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            if let Some(size) = size()
                && sender.send(size).await.is_err()
            {
                return;
            }
            changed.recv().await;
        }
    });
    Ok(receiver)
}

/// Signals that we get and the command should have.
fn signals() -> anyhow::Result<mpsc::Receiver<u32>> {
    let (sender, receiver) = mpsc::channel(4);
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()] {
        let mut arrived = signal(kind).context("cannot listen for signals")?;
        let sender = sender.clone();
        let number = kind.as_raw_value().unsigned_abs();
        tokio::spawn(async move {
            while arrived.recv().await.is_some() {
                if sender.send(number).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}

/// Arguments of `console`.
#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    /// The pod.
    pod: String,
}

impl ConsoleArgs {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let (_, record) = state().find(&self.pod)?;
        let stream = match record.endpoint()?.dial(CONSOLE_PORT).await {
            Err(VmError::Refused { .. }) => anyhow::bail!(
                "nothing in the guest of pod {:?} serves a debug console: it takes an agent that has one, and a pod \
                 started with --debug-console",
                self.pod
            ),
            other => other?,
        };
        let raw = RawMode::enter().context("cannot set up the terminal")?;
        if raw.is_some() {
            eprint!("connected; Ctrl-] ends the session\r\n");
        }
        let (mut from_guest, mut to_guest) = stream.into_split();
        let mut input = read_stdin(4096);
        let mut output = tokio::io::stdout();
        let mut buffer = vec![0; 32 << 10];
        let mut input_open = true;
        loop {
            tokio::select! {
                count = from_guest.read(&mut buffer) => match count.context("the console")? {
                    0 => break,
                    count => {
                        output.write_all(&buffer[..count]).await.context("cannot write to standard output")?;
                        output.flush().await.context("cannot write to standard output")?;
                    }
                },
                typed = input.recv(), if input_open => match typed {
                    Some(bytes) if raw.is_some() && bytes.contains(&ESCAPE) => break,
                    Some(bytes) => to_guest.write_all(&bytes).await.context("the console")?,
                    // The guest's answer to the last line is still to come; its shell ends the session.
                    None => input_open = false,
                },
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        assert_eq!(parse_user("7"), Ok((7, None)));
        assert_eq!(parse_user("7:8"), Ok((7, Some(8))));
        assert!(parse_user("root").is_err());
    }
}
