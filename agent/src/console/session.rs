//! One connection to the debug console.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::{Process, ProcessBuilder, Spec};
use rustix::pty::OpenptFlags;
use rustix::termios::OptionalActions;
use rustjail::cgroup::{Cgroup, CgroupPath};
use rustjail::plan::{self, ExecOptions};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::prompt::{self, Order};
use crate::container::{ContainerError, ExecRequest, UserNames};
use crate::pod::Pod;
use crate::process::command;
use crate::process::launch::{Launch, LaunchError, Launcher};
use crate::process::passfd::Ports;
use crate::process::stdio::{ChildStreams, Stdio, StreamError};

/// Why a session ended badly.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The terminal.
    #[error("make a terminal")]
    Terminal(#[source] io::Error),
    /// The connection, or the terminal behind it.
    #[error("talk to the console")]
    Talk(#[source] io::Error),
    /// The shell.
    #[error("start a shell")]
    Launch(#[source] LaunchError),
    /// The shell's cgroup.
    #[error("the shell's cgroup")]
    Cgroup(#[source] rustjail::cgroup::Error),
    /// The shell's plan.
    #[error("plan a shell")]
    Plan(#[source] plan::PlanError),
    /// The spec of a shell's process.
    #[error("describe a shell")]
    Spec(#[source] oci_spec::OciSpecError),
    /// A stream of the shell.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A thread panicked.
    #[error("a console's work panicked")]
    Panicked,
}

/// What sessions work on.
#[derive(Clone)]
pub(crate) struct Console {
    /// The containers.
    pub(crate) pod: Arc<Pod>,
    /// Makes shells of the guest.
    pub(crate) launcher: Arc<Launcher>,
    /// Mount point of cgroup2.
    pub(crate) cgroups: PathBuf,
}

/// How long what a shell left running may take to die.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

fn shell_process(args: Vec<String>, cwd: &str, capabilities: bool) -> Result<Process, SessionError> {
    let mut process = ProcessBuilder::default()
        .terminal(true)
        .args(args)
        .env([command::PATH.to_owned(), "TERM=xterm".to_owned(), "PS1=\\u@\\h:\\w\\$ ".to_owned()])
        .cwd(cwd)
        .build()
        .map_err(SessionError::Spec)?;
    let all = capabilities.then(command::all_capabilities).transpose().map_err(SessionError::Spec)?;
    process.set_capabilities(all);
    Ok(process)
}

/// A shell of the guest's own, killed with all it started when the connection ends.
pub(super) async fn shell(
    console: &Console,
    stream: impl AsyncRead + AsyncWrite,
    shell: &str,
    number: u64,
) -> Result<(), SessionError> {
    let process = shell_process(vec![shell.to_owned(), "-i".to_owned()], "/", true)?;
    let plan = plan::exec(&process, &ExecOptions { spec: &Spec::default() }).map_err(SessionError::Plan)?;
    let path = CgroupPath::parse("", &format!("console-{number}")).map_err(SessionError::Cgroup)?;
    let root = console.cgroups.clone();
    let cgroup = blocking(move || Cgroup::create(&root, &path)).await?;
    let cgroup = Arc::new(cgroup);
    let directory = cgroup.dir().try_clone_to_owned().map_err(SessionError::Talk)?;
    let launch = Launch {
        plan,
        cgroup: directory,
        namespaces: Vec::new(),
        streams: ChildStreams::default(),
        wants_inner_pid: false,
        place: None,
    };
    let result = match console.launcher.launch(launch).await {
        Ok(launched) => {
            let master = launched.terminal.ok_or(SessionError::Panicked)?;
            let stdio = Stdio::of_terminal(master, &launched.exit)?;
            bridge(stream, &stdio).await
        }
        Err(error) => Err(SessionError::Launch(error)),
    };
    blocking(move || cgroup.remove(KILL_DEADLINE)).await?;
    result
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, rustjail::cgroup::Error> + Send + 'static,
) -> Result<T, SessionError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| SessionError::Panicked)?.map_err(SessionError::Cgroup)
}

/// Copies both ways until either side ends.
async fn bridge(stream: impl AsyncRead + AsyncWrite, stdio: &Stdio) -> Result<(), SessionError> {
    let (mut from_host, mut to_host) = tokio::io::split(stream);
    let input = async {
        let mut buffer = vec![0; 4096];
        loop {
            match from_host.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(count) => stdio.write(buffer[..count].to_vec()).await?,
                Err(error) => return Err(SessionError::Talk(error)),
            }
        }
    };
    let output = async {
        loop {
            let data = stdio.read_stdout(16 * 1024).await;
            if data.is_empty() {
                return Ok(());
            }
            to_host.write_all(&data).await.map_err(SessionError::Talk)?;
        }
    };
    tokio::select! {
        biased;
        // What was printed is sent before the host's end ends the session.
        ended = output => ended,
        ended = input => ended,
    }
}

/// The prompt, behind a terminal of its own, whose line discipline echoes and edits.
pub(super) async fn prompt(
    console: &Console,
    stream: impl AsyncRead + AsyncWrite,
    number: u64,
) -> Result<(), SessionError> {
    let (master, slave) = terminal().map_err(|errno| SessionError::Terminal(errno.into()))?;
    // The prompt never exits by a status: the other end of this channel stays open as long as the session does.
    let (_alive, exit) = tokio::sync::watch::channel(None);
    let outside = Stdio::of_terminal(master, &exit)?;
    let inside = Stdio::of_terminal(slave.try_clone().map_err(SessionError::Terminal)?, &exit)?;
    tokio::select! {
        biased;
        // First, since it carries what the other one has said.
        ended = bridge(stream, &outside) => ended,
        ended = converse(console, &inside, &slave, number) => ended,
    }
}

fn terminal() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok((master, slave))
}

async fn converse(
    console: &Console,
    line: &Stdio,
    terminal: &OwnedFd,
    number: u64,
) -> Result<(), SessionError> {
    let mut entered = 0u64;
    // What was typed ahead.
    let mut typed = Vec::new();
    line.write(b"pith debug console; `help` lists the commands\n".to_vec()).await?;
    loop {
        line.write(b"pith> ".to_vec()).await?;
        let Some(input) = next_line(line, &mut typed).await else { return Ok(()) };
        let answer = match prompt::parse(&String::from_utf8_lossy(&input)) {
            Order::Nothing => String::new(),
            Order::Exit => return Ok(()),
            Order::Show(view) => prompt::show(view, &console.pod).await,
            Order::Unknown(word) => format!("unknown command {word:?}; `help` lists the commands\n"),
            Order::Enter { container, command } => {
                entered += 1;
                let id = format!("console-{number}-{entered}");
                let ahead = std::mem::take(&mut typed);
                match enter(console, line, ahead, terminal, &container, command, id).await {
                    Ok(status) => format!("ended with status {status}\n"),
                    Err(text) => format!("{text}\n"),
                }
            }
        };
        line.write(answer.into_bytes()).await?;
    }
}

/// The next line, without its end, however its bytes arrive; none at the end of input.
async fn next_line(line: &Stdio, typed: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(end) = typed.iter().position(|byte| *byte == b'\n') {
            let rest = typed.split_off(end + 1);
            let mut first = std::mem::replace(typed, rest);
            first.truncate(end);
            return Some(first);
        }
        let more = line.read_stdout(4096).await;
        if more.is_empty() {
            return None;
        }
        typed.extend(more);
    }
}

/// Runs a command in a container on this terminal, which is raw meanwhile: the container's own does the line editing.
/// `ahead` is what was typed already.
async fn enter(
    console: &Console,
    line: &Stdio,
    ahead: Vec<u8>,
    terminal: &OwnedFd,
    container: &str,
    command: Vec<String>,
    exec_id: String,
) -> Result<i32, String> {
    let text = |error: &dyn std::error::Error| crate::error::chain(error);
    let handle = console.pod.container(container).map_err(|error| text(&error))?;
    let process = shell_process(command, "/", false).map_err(|error| text(&error))?;
    let request = ExecRequest {
        exec_id: exec_id.clone(),
        process,
        user: UserNames::default(),
        ports: Ports::default(),
        apart: None,
    };
    handle.exec(Box::new(request)).await.map_err(|error: ContainerError| text(&error))?;
    let process = handle.process(&exec_id).map_err(|error| text(&error))?;
    let before = rustix::termios::tcgetattr(terminal).map_err(|errno| errno.to_string())?;
    let mut raw = before.clone();
    raw.make_raw();
    rustix::termios::tcsetattr(terminal, OptionalActions::Now, &raw).map_err(|errno| errno.to_string())?;
    let output = async {
        loop {
            let data = process.stdio.read_stdout(16 * 1024).await;
            if data.is_empty() || line.write(data).await.is_err() {
                return;
            }
        }
    };
    let input = async {
        if process.stdio.write(ahead).await.is_err() {
            return;
        }
        loop {
            let data = line.read_stdout(4096).await;
            if data.is_empty() || process.stdio.write(data).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        // The last words of the command are shown before the end of the line counts.
        () = output => {}
        () = input => {}
    }
    rustix::termios::tcsetattr(terminal, OptionalActions::Now, &before).map_err(|errno| errno.to_string())?;
    process.wait().await.map_err(|error| text(&error))
}
