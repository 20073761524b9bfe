//! `exec` and `console`: the user's terminal in a guest.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use machine::vm::{AgentClient, CONSOLE_OFF, CONSOLE_PORT, DialError};
use pods::run::exec::{ExecCommand, ExecStreams, PassedSignal, WRITE, exec};
use pods::run::state::PodRecord;
use pods::run::terminal::{RawMode, read_stdin, size};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::global::{Global, exit_code, state};

const SIGHUP: u32 = 1;
const SIGTERM: u32 = 15;
/// How long the guest may take to hand a signal to the command, and the command to end by one that ends programs.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

/// Ctrl-], which ends a console session.
const ESCAPE: u8 = 0x1d;

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Pass on standard input.
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal.
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable, in addition to the container's.
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The working directory [default: the container's].
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The user, by number or by a name in the container's own /etc/passwd and /etc/group [default: the container's
    /// user].
    #[arg(short, long, value_name = "USER[:GROUP]", value_parser = parse_user)]
    user: Option<String>,
    /// The pod, or the id of a container.
    pod: String,
    /// The command and its arguments. If the pod has several containers, put the container's name and `--` in front.
    #[arg(
        value_name = "[CONTAINER --] COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<String>,
}

/// Takes apart what stands behind the pod: a container, if one is named, and the command.
fn container_and_command<'a>(
    record: &PodRecord,
    pod: &str,
    words: &'a [String],
) -> (Option<String>, &'a [String]) {
    match words {
        [container, dashes, command @ ..] if dashes == "--" && !command.is_empty() => {
            (Some(container.clone()), command)
        }
        // Typed without the dashes: what is a container and no only one cannot be meant as a command.
        [container, command @ ..]
            if !command.is_empty()
                && record.container(None).is_err()
                && record.containers.iter().any(|known| known.name == *container) =>
        {
            (Some(container.clone()), command)
        }
        command => (record.container_in(pod).map(str::to_owned), command),
    }
}

/// Whether a text names a user, and perhaps a group.
pub(crate) fn parse_user(text: &str) -> Result<String, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, "0"));
    let is_name = |name: &str| !name.is_empty() && !name.contains(':');
    if is_name(user) && is_name(group) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not USER or USER:GROUP"))
    }
}

impl ExecArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the pod does not run, or when the guest refuses.
    pub async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let (passed_on, signals) = mpsc::channel(4);
        let overdue = pass_on(Signals::listen()?, passed_on);
        tokio::select! {
            code = self.run(global, signals) => code,
            number = overdue => Ok(ended_by(number)),
        }
    }

    async fn run(self, global: &Global, signals: mpsc::Receiver<PassedSignal>) -> anyhow::Result<ExitCode> {
        let (_, record) = state().find(&self.pod)?;
        let (container, command) = container_and_command(&record, &self.pod, &self.words);
        let container = record.container(container.as_deref())?;
        let client = AgentClient::connect(record.endpoint()?).await?;
        let command = ExecCommand {
            args: command.to_vec(),
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
            signals: Some(signals),
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
pub(crate) fn resizes() -> anyhow::Result<mpsc::Receiver<(u16, u16)>> {
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

/// Signals that ask this program to end.
pub struct Signals([(Signal, u32); 4]);

impl Signals {
    /// From now on they do not end the program by themselves.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind: SignalKind| -> anyhow::Result<(Signal, u32)> {
            let arrives = signal(kind).context("cannot listen for signals")?;
            Ok((arrives, kind.as_raw_value().unsigned_abs()))
        };
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
            listen(SignalKind::quit())?,
        ]))
    }

    /// The number of the next one.
    pub(crate) async fn next(&mut self) -> u32 {
        let [interrupt, terminate, hangup, quit] = &mut self.0;
        tokio::select! {
            _ = interrupt.0.recv() => interrupt.1,
            _ = terminate.0.recv() => terminate.1,
            _ = hangup.0.recv() => hangup.1,
            _ = quit.0.recv() => quit.1,
        }
    }
}

/// The shell's status for a program that a signal has ended.
pub(crate) fn ended_by(number: u32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + number).unwrap_or(255))
}

/// Passes signals on to the command. Answers with the number of one that should end this program: because the guest did not
/// take it in time, or because it says that the end is wanted and the command goes on.
async fn pass_on(mut signals: Signals, to: mpsc::Sender<PassedSignal>) -> u32 {
    let mut waits = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            number = signals.next() => {
                let (taken, answer) = oneshot::channel();
                // If there is no room the guest did not take the ones before either.
                drop(to.try_send(PassedSignal { number, taken }));
                waits.spawn(async move {
                    let is_final = number == SIGTERM || number == SIGHUP;
                    let is_taken = tokio::time::timeout(TAKEN_WITHIN, async {
                        // A sender that is gone has told nothing.
                        if answer.await.is_err() || is_final {
                            std::future::pending::<()>().await;
                        }
                    });
                    (is_taken.await.is_err()).then_some(number)
                });
            }
            Some(Ok(Some(number))) = waits.join_next() => return number,
        }
    }
}

/// Arguments of `console`.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// The pod.
    pod: String,
}

impl ConsoleArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the pod does not run, or when the guest refuses.
    pub async fn execute(self) -> anyhow::Result<ExitCode> {
        let (_, record) = state().find(&self.pod)?;
        let stream = match record.endpoint()?.dial(CONSOLE_PORT).await {
            Err(DialError::Refused { .. }) => anyhow::bail!(
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
        let mut is_first = true;
        let mut signals = Signals::listen()?;
        loop {
            tokio::select! {
                // By return, so that the terminal is put back.
                number = signals.next() => return Ok(ended_by(number)),
                count = from_guest.read(&mut buffer) => match count.context("the console")? {
                    0 => break,
                    count if is_first && buffer[..count].starts_with(CONSOLE_OFF.as_bytes()) => anyhow::bail!(
                        "the guest of pod {:?} has no debug console; start the pod with --debug-console",
                        record.name
                    ),
                    count => {
                        is_first = false;
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

    #[tokio::test]
    async fn a_signal_ends_the_client_when_the_guest_does_not_take_it_or_the_command_does_not_obey() {
        // The command takes one and goes on.
        let (to, mut guest) = mpsc::channel(4);
        let overdue = tokio::spawn(pass_on(Signals::listen().unwrap(), to));
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGQUIT).unwrap();
        let PassedSignal { number, taken } = guest.recv().await.unwrap();
        assert_eq!(number, 3);
        taken.send(()).unwrap();
        tokio::time::sleep(TAKEN_WITHIN + Duration::from_millis(500)).await;
        assert!(!overdue.is_finished());
        // It takes this one, and goes on all the same.
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        guest.recv().await.unwrap().taken.send(()).unwrap();
        assert_eq!(overdue.await.unwrap(), SIGTERM);
        // Nobody takes this one.
        let (to, _guest) = mpsc::channel(4);
        let overdue = tokio::spawn(pass_on(Signals::listen().unwrap(), to));
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(overdue.await.unwrap(), 2);
    }

    #[test]
    fn a_container_is_named_only_where_it_must_be() {
        let record = |names: &[&str]| -> PodRecord {
            let containers: Vec<_> = names
                .iter()
                .map(|name| serde_json::json!({"name": name, "id": format!("web-{name}"), "image": "i",
                    "phase": "running", "exit_code": null, "process": pods::run::state::ProcessRecord::default()}))
                .collect();
            serde_json::from_value(
                serde_json::json!({"name": "web", "pid": 1, "phase": "running", "started": 0,
                "accel": null, "endpoint": null, "containers": containers,
                "timings": pods::run::timing::Timings::default()}),
            )
            .unwrap()
        };
        let (one, two) = (record(&["a"]), record(&["a", "b"]));
        let take = |record: &PodRecord, pod: &str, text: &str| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            let (container, command) = container_and_command(record, pod, &words);
            format!("{}|{}", container.unwrap_or_default(), command.join(" "))
        };
        assert_eq!(take(&one, "web", "a -- echo x"), "a|echo x");
        assert_eq!(take(&one, "web", "echo x"), "|echo x");
        assert_eq!(take(&one, "web", "a x"), "|a x", "the only container needs no name");
        assert_eq!(take(&two, "web", "b ls"), "b|ls");
        assert_eq!(take(&two, "web-b", "ls -l"), "web-b|ls -l");
        assert_eq!(take(&two, "web", "sh -c -- x"), "|sh -c -- x");
    }

    #[test]
    fn users_have_a_name_or_a_number_and_perhaps_a_group() {
        for text in ["7", "7:8", "app", "app:wheel"] {
            assert_eq!(parse_user(text).as_deref(), Ok(text));
        }
        for text in ["", ":", ":7", "app:", "a:b:c"] {
            assert!(parse_user(text).is_err(), "{text}");
        }
    }
}
