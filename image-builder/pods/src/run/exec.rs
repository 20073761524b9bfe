//! Runs one more process in a running container, and moves its input and output.
//!
//! `exec`, attached containers and the benchmark use the same code. Promises to ask for the exit status only after both output
//! streams have ended, as shims do. So no output is lost.

use std::time::{Duration, Instant};

use protobuf::MessageField;
use protocols::agent::{ExecProcessRequest, StringUser};
pub use protocols::client::WRITE;
use protocols::client::{Process, READ};
use protocols::oci;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::RunError;
use super::output::Stream;
use super::state::ContainerRecord;
use super::timing::millis;
use machine::vm::AgentClient;

/// What to run, apart from the container's own defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecCommand {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Variables on top of the container's, each `NAME=value`.
    pub env: Vec<String>,
    /// Working directory instead of the container's.
    pub cwd: Option<String>,
    /// `user` or `user:group` instead of the container's, by name or number, as the container's own files have them.
    pub user: Option<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Rows and columns of the terminal from the start on.
    pub size: Option<(u16, u16)>,
}

/// Where a process's bytes come from and go to.
pub struct ExecStreams {
    /// Input in pieces of at most [`WRITE`] bytes; the end of the channel is the end of the input. Nothing: the input
    /// is empty.
    pub stdin: Option<mpsc::Receiver<Vec<u8>>>,
    /// Takes standard output.
    pub stdout: Box<dyn AsyncWrite + Send + Unpin>,
    /// Takes standard error; unused with a terminal.
    pub stderr: Box<dyn AsyncWrite + Send + Unpin>,
    /// New sizes of the terminal, as rows and columns.
    pub resizes: Option<mpsc::Receiver<(u16, u16)>>,
    /// Signals for the process.
    pub signals: Option<mpsc::Receiver<PassedSignal>>,
}

/// A signal for a process.
#[derive(Debug)]
pub struct PassedSignal {
    /// Its number.
    pub number: u32,
    /// Told when the guest has taken it, or has answered that there is nobody for it.
    pub taken: oneshot::Sender<()>,
}

impl ExecStreams {
    /// No input, and output for nobody.
    pub fn none() -> Self {
        Self {
            stdin: None,
            stdout: Box::new(tokio::io::sink()),
            stderr: Box::new(tokio::io::sink()),
            resizes: None,
            signals: None,
        }
    }
}

/// Runs a command in a container and answers its exit status.
///
/// # Errors
/// When the agent cannot start it, or goes away.
pub async fn exec(
    client: &AgentClient,
    container: &ContainerRecord,
    command: &ExecCommand,
    streams: ExecStreams,
) -> Result<i32, RunError> {
    let mut request = ExecProcessRequest::new();
    request.container_id = container.id.clone();
    request.exec_id = fresh_id();
    request.process = MessageField::some(description(container, command));
    request.string_user = command.user.as_deref().map(user).into();
    let program = command.args.first().cloned().unwrap_or_default();
    let process = Process::exec(client, &request)
        .await
        .map_err(RunError::call("ExecProcess", format!("{program:?} in {}", container.name)))?;

    let ExecStreams { stdin, mut stdout, mut stderr, resizes, signals } = streams;
    // Aborted with this scope: they only serve a process that is alive.
    let mut side = tokio::task::JoinSet::new();
    match stdin {
        Some(stdin) => drop(side.spawn(pump_in(process.clone(), stdin))),
        None if !command.tty => close_stdin(&process).await,
        None => {}
    }
    if let Some(resizes) = resizes {
        side.spawn(pump_resizes(process.clone(), resizes));
    }
    if let Some(signals) = signals {
        side.spawn(pump_signals(process.clone(), signals));
    }
    let out = pump_out(&process, Stream::Stdout, &mut stdout);
    if command.tty {
        out.await?;
    } else {
        tokio::try_join!(out, pump_out(&process, Stream::Stderr, &mut stderr))?;
    }
    wait(&process).await
}

/// Connects input to a container's first process, as [`exec`] does to a command's. Its output is in its log. Ends when the
/// input has ended, or nobody takes it; the container's own input ends with it where the manifest says so.
pub async fn attach(
    client: &AgentClient,
    container: &ContainerRecord,
    mut stdin: mpsc::Receiver<Vec<u8>>,
    resizes: Option<mpsc::Receiver<(u16, u16)>>,
) {
    let process = Process::of(client, &container.id, "");
    // Aborted with this scope.
    let mut side = tokio::task::JoinSet::new();
    if let Some(resizes) = resizes {
        side.spawn(pump_resizes(process.clone(), resizes));
    }
    if copy_in(&process, &mut stdin).await && container.stdin_once {
        close_stdin(&process).await;
    }
}

/// Runs a command `count` times, one after the other, and answers how long each took in milliseconds: from sending
/// ExecProcess to the answer of WaitProcess.
///
/// # Errors
/// As [`exec`]; also when the command does not succeed.
pub async fn bench(
    client: &AgentClient,
    container: &ContainerRecord,
    args: &[String],
    count: u32,
) -> Result<Vec<f64>, RunError> {
    let command = ExecCommand { args: args.to_vec(), ..ExecCommand::default() };
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        let code = exec(client, container, &command, ExecStreams::none()).await?;
        times.push(millis(begun.elapsed()));
        if code != 0 {
            let subject = format!("{args:?} in {}", container.name);
            return Err(RunError::Call {
                call: "bench",
                subject,
                message: format!("ended with status {code}"),
            });
        }
    }
    Ok(times)
}

/// A user and perhaps a group, for the agent to look up.
fn user(text: &str) -> StringUser {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    StringUser { uid: user.to_owned(), gid: group.to_owned(), ..StringUser::default() }
}

fn description(container: &ContainerRecord, command: &ExecCommand) -> oci::Process {
    let defaults = &container.process;
    // The agent puts in what it finds; a user that is only a number has no groups.
    let (uid, gid, groups) = match command.user {
        Some(_) => (0, 0, Vec::new()),
        None => (defaults.uid, defaults.gid, defaults.groups.clone()),
    };
    let mut env = defaults.env.clone();
    if command.user.is_some() && defaults.home_is_default {
        // Another user has another home, which the guest finds.
        env.retain(|variable| !variable.starts_with("HOME="));
    }
    if command.tty && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    for variable in &command.env {
        let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name);
        env.retain(|known| known.split_once('=').is_none_or(|(known, _)| known != name));
        env.push(variable.clone());
    }
    let mut process = oci::Process::new();
    process.Terminal = command.tty;
    if let Some((rows, columns)) = command.size.filter(|_| command.tty) {
        let size = oci::Box { Height: rows.into(), Width: columns.into(), ..oci::Box::default() };
        process.ConsoleSize = MessageField::some(size);
    }
    process.User =
        MessageField::some(oci::User { UID: uid, GID: gid, AdditionalGids: groups, ..oci::User::default() });
    process.Args = command.args.clone();
    process.Env = env;
    process.Cwd = command.cwd.clone().unwrap_or_else(|| defaults.cwd.clone());
    process.NoNewPrivileges = defaults.no_new_privileges;
    process
}

/// An exec id no other client uses: this process and the time.
fn fresh_id() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    format!("exec-{}-{}", std::process::id(), now.as_nanos())
}

/// Copies one of a process's output streams until it ends.
pub(super) async fn pump_out(
    process: &Process,
    stream: Stream,
    out: &mut (impl AsyncWrite + Unpin + ?Sized),
) -> Result<(), RunError> {
    let name = if stream == Stream::Stdout { "standard output" } else { "standard error" };
    while let Some(data) = read(process, stream).await {
        let written = async {
            out.write_all(&data).await?;
            out.flush().await
        };
        match written.await {
            Ok(()) => {}
            // Whoever read our output is gone: go on reading, or the process in the guest would block.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(RunError::io("write", name, error)),
        }
    }
    Ok(())
}

/// The next piece of output; nothing at the end. Agents report a closed terminal, a reaped process and a lost
/// connection as errors: all of them end the stream, and the wait that follows tells what happened.
pub(super) async fn read(process: &Process, stream: Stream) -> Option<Vec<u8>> {
    process.read(stream, READ).await.ok().filter(|data| !data.is_empty())
}

/// Sends input until it ends or nobody takes it any more.
pub(super) async fn pump_in(process: Process, mut stdin: mpsc::Receiver<Vec<u8>>) {
    if copy_in(&process, &mut stdin).await {
        close_stdin(&process).await;
    }
}

/// Sends input until it ends, which is true, or nobody takes it any more.
pub(super) async fn copy_in(process: &Process, stdin: &mut mpsc::Receiver<Vec<u8>>) -> bool {
    while let Some(data) = stdin.recv().await {
        if process.write(data).await.is_err() {
            return false;
        }
    }
    true
}

/// Ends a process's input. It may have ended before; then there is nothing to close.
pub(super) async fn close_stdin(process: &Process) {
    drop(process.close_stdin().await);
}

async fn pump_resizes(process: Process, mut sizes: mpsc::Receiver<(u16, u16)>) {
    while let Some(size) = sizes.recv().await {
        resize(&process, size).await;
    }
}

/// Tells a process the size of its terminal, as rows and columns.
pub(super) async fn resize(process: &Process, (rows, columns): (u16, u16)) {
    // A process that has just ended has no terminal.
    drop(process.resize(rows.into(), columns.into()).await);
}

async fn pump_signals(process: Process, mut signals: mpsc::Receiver<PassedSignal>) {
    while let Some(PassedSignal { number, taken }) = signals.recv().await {
        if matches!(process.signal(number).await, Ok(()) | Err(ttrpc::Error::RpcStatus(_))) {
            // Whoever asked may have given up.
            taken.send(()).ok();
        }
    }
}

/// Waits for a process to end and answers its status.
pub(super) async fn wait(process: &Process) -> Result<i32, RunError> {
    process.wait().await.map_err(RunError::call("WaitProcess", process.container_id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::state::{ContainerPhase, ProcessRecord};

    fn container() -> ContainerRecord {
        ContainerRecord {
            name: "a".into(),
            id: "web-a".into(),
            image: "./a".into(),
            phase: ContainerPhase::Running,
            process: ProcessRecord {
                env: vec!["A=1".into(), "B=2".into(), "HOME=/".into()],
                home_is_default: true,
                cwd: "/srv".into(),
                uid: 7,
                gid: 8,
                groups: vec![9],
                no_new_privileges: true,
            },
            ..ContainerRecord::default()
        }
    }

    #[test]
    fn a_command_inherits_from_its_container() {
        let command = ExecCommand { args: vec!["id".into()], ..ExecCommand::default() };
        let process = description(&container(), &command);
        let env = vec!["A=1".to_owned(), "B=2".into(), "HOME=/".into()];
        assert_eq!((process.Env, process.Cwd.as_str()), (env, "/srv"));
        let user = process.User.unwrap();
        assert_eq!((user.UID, user.GID, user.AdditionalGids), (7, 8, vec![9]));
        assert!(process.NoNewPrivileges && !process.Terminal);
    }

    #[test]
    fn a_command_may_differ_from_its_container() {
        let command = ExecCommand {
            args: vec!["id".into()],
            env: vec!["A=x=y".into()],
            cwd: Some("/".into()),
            user: Some("app:7".into()),
            tty: true,
            size: Some((24, 80)),
        };
        let process = description(&container(), &command);
        assert_eq!(process.Env, ["B=2", "TERM=xterm", "A=x=y"]);
        assert_eq!((process.ConsoleSize.Height, process.ConsoleSize.Width), (24, 80));
        let user = process.User.unwrap();
        assert_eq!((user.UID, user.GID, user.AdditionalGids), (0, 0, vec![]));
    }

    #[test]
    fn users_are_looked_up_in_the_container() {
        for (text, uid, gid) in
            [("app", "app", ""), ("0:wheel", "0", "wheel"), ("7:8", "7", "8"), ("7:", "7", "")]
        {
            let user = user(text);
            assert_eq!((user.uid.as_str(), user.gid.as_str()), (uid, gid), "{text}");
        }
    }

    #[test]
    fn exec_ids_differ() {
        assert_ne!(fresh_id(), fresh_id());
    }
}
