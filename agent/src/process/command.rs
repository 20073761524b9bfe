//! Helper programs of the guest itself: packet filters, module loading, hooks.
//!
//! Owns a program's whole life: it is born through the forker in a cgroup of its own, with the agent's namespaces and
//! all capabilities, gets its input, and its outputs are read up to a bound. Promises that when [`Commands::run`] is
//! over, however it ends (the program's end, its deadline, a caller who goes away), nothing that the program started is
//! left: its cgroup is killed and removed. Must never wait for a child (the reaper does), nor run a container's program.
//!
//! ```text
//! run ─ cgroup ─ launch ─ executed? ─┬─ input ──────────┐
//!                                    ├─ stdout, stderr ─┼─ status ─ cgroup killed and removed ─ answer
//!         deadline, caller gone ─────┴─ reaper ─────────┘              ▲
//!               └──────────────────────────────────────────────────────┘
//! ```

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, Process, ProcessBuilder, Spec,
};
use rustjail::cgroup::{self, Cgroup, CgroupPath};
use rustjail::plan::{self, ExecOptions, JailPlan, PlanError};
use rustjail::start::{Executed, Failure, StartError, Starting};
use tokio::sync::oneshot;

use super::launch::{Launch, LaunchError, Launched, Launcher};
use super::stdio::{self, Stdio, StreamError};
use crate::error::{ErrorKind, Kind, chain};

/// Where programs look for others.
pub(crate) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long what a program left running may take to die.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of an output that are read at once.
const CHUNK: usize = 64 * 1024;
/// Characters of its outputs that an error tells.
const TEXT: usize = 4096;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// There is no such file.
    #[error("this guest has no {0}")]
    Missing(String),
    /// It took too long.
    #[error("{program} took longer than {seconds} s; it was killed with all it had started")]
    Timeout {
        /// Its path.
        program: String,
        /// The limit.
        seconds: u64,
    },
    /// Nobody waits for it any more.
    #[error("the caller of {0} went away; it was killed with all it had started")]
    Abandoned(String),
    /// It ended, but not well.
    #[error("{program} ended with status {status}: {}", said(output))]
    Failed {
        /// Its path.
        program: String,
        /// Exit status, or 128 and the number of the signal that killed it.
        status: i32,
        /// What it said, stderr before stdout.
        output: String,
    },
    /// It was found but cannot be executed.
    #[error("execute {program}")]
    NotExecuted {
        /// Its path.
        program: String,
        /// Why not.
        source: Failure,
    },
    /// The handshake with it failed.
    #[error("start {program}")]
    Start {
        /// Its path.
        program: String,
        /// Why.
        source: LaunchError,
    },
    /// Its arguments or environment cannot be passed.
    #[error("plan {program}")]
    Plan {
        /// Its path.
        program: String,
        /// What is wrong.
        source: PlanError,
    },
    /// A part of its description is missing.
    #[error("describe {program}")]
    Spec {
        /// Its path.
        program: String,
        /// What is missing.
        source: OciSpecError,
    },
    /// Its cgroup.
    #[error("the cgroup of {program}")]
    Cgroup {
        /// Its path.
        program: String,
        /// Why.
        source: cgroup::Error,
    },
    /// See [`StreamError`].
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A part of the work panicked.
    #[error("the work on {0} panicked")]
    Panicked(String),
}

fn said(output: &str) -> &str {
    if output.is_empty() { "it said nothing" } else { output }
}

impl Kind for CommandError {
    fn kind(&self) -> ErrorKind {
        match self {
            CommandError::Missing(_) => ErrorKind::Unsupported,
            CommandError::Timeout { .. } => ErrorKind::Timeout,
            CommandError::Abandoned(_) => ErrorKind::Busy,
            CommandError::Plan { source: PlanError::Invalid(_), .. } => ErrorKind::Invalid,
            CommandError::Plan { source: PlanError::Unsupported(_), .. } => ErrorKind::Unsupported,
            CommandError::Start { source, .. } => source.kind(),
            CommandError::Stream(error) => error.kind(),
            CommandError::Failed { .. }
            | CommandError::NotExecuted { .. }
            | CommandError::Spec { .. }
            | CommandError::Cgroup { .. }
            | CommandError::Panicked(_) => ErrorKind::Internal,
        }
    }
}

/// A program to run.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// Absolute path of it; also its first argument.
    pub(crate) program: String,
    /// Its other arguments.
    pub(crate) args: Vec<String>,
    /// `NAME=value` entries.
    pub(crate) env: Vec<String>,
    /// Working directory.
    pub(crate) cwd: PathBuf,
    /// What it reads on stdin, which then ends.
    pub(crate) stdin: Vec<u8>,
    /// How long it may take, start and end included.
    pub(crate) deadline: Duration,
    /// Bytes that are kept of each output; it can write more, which is dropped.
    pub(crate) keep: usize,
}

impl Command {
    /// A program with arguments and the usual `PATH`, an empty input, ten seconds and 64 KiB of each output.
    pub(crate) fn new<T: Into<String>>(
        program: impl Into<String>,
        args: impl IntoIterator<Item = T>,
    ) -> Command {
        Command {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            env: vec![PATH.to_owned()],
            cwd: "/".into(),
            stdin: Vec::new(),
            deadline: Duration::from_secs(10),
            keep: CHUNK,
        }
    }

    fn plan(&self) -> Result<JailPlan, CommandError> {
        let program = &self.program;
        let args = std::iter::once(program).chain(&self.args).cloned().collect();
        let process = privileged(args, self.env.clone(), &self.cwd)
            .map_err(|source| CommandError::Spec { program: program.clone(), source })?;
        plan::exec(&process, &ExecOptions { spec: &Spec::default() })
            .map_err(|source| CommandError::Plan { program: program.clone(), source })
    }
}

/// A process of the guest's own root with all capabilities.
pub(crate) fn privileged(
    args: Vec<String>,
    env: Vec<String>,
    cwd: impl Into<PathBuf>,
) -> Result<Process, OciSpecError> {
    let mut process = ProcessBuilder::default().args(args).env(env).cwd(cwd).build()?;
    process.set_capabilities(Some(all_capabilities()?));
    Ok(process)
}

/// Every capability in every set.
pub(crate) fn all_capabilities() -> Result<LinuxCapabilities, OciSpecError> {
    let all = || -> Capabilities {
        let names = plan::capability_names();
        names.filter_map(|name| Capability::from_str(name.trim_start_matches("CAP_")).ok()).collect()
    };
    let set = LinuxCapabilitiesBuilder::default();
    set.bounding(all()).effective(all()).permitted(all()).inheritable(all()).ambient(all()).build()
}

/// What a program that ended has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// Exit status, or 128 and the number of the signal that killed it.
    pub(crate) status: i32,
    /// What it wrote to stdout, up to [`Command::keep`].
    pub(crate) stdout: Vec<u8>,
    /// What it wrote to stderr, up to [`Command::keep`].
    pub(crate) stderr: Vec<u8>,
    /// Whether it wrote more than was kept.
    pub(crate) is_cut: bool,
}

impl Output {
    /// This output, if the program says that it did its work.
    pub(crate) fn success(self, program: &str) -> Result<Output, CommandError> {
        if self.status == 0 { Ok(self) } else { Err(self.failure(program)) }
    }

    /// The error of a program whose status is not 0.
    pub(crate) fn failure(&self, program: &str) -> CommandError {
        CommandError::Failed { program: program.to_owned(), status: self.status, output: self.text() }
    }

    /// What it said, for a person: stderr before stdout, on one line, and not more of it than a log wants.
    pub(crate) fn text(&self) -> String {
        let all = [&self.stderr, &self.stdout].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let lines = all.iter().flat_map(|text| text.lines()).map(str::trim).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join("; ").chars().take(TEXT).collect()
    }
}

/// Runs programs. See the module.
#[derive(Debug)]
pub(crate) struct Commands {
    launcher: Arc<Launcher>,
    /// Mount point of cgroup2.
    cgroups: PathBuf,
    next: AtomicU64,
}

impl Commands {
    /// Programs come from `launcher` and are born below `cgroups`, the cgroup2 mount.
    pub(crate) fn new(launcher: Arc<Launcher>, cgroups: PathBuf) -> Commands {
        Commands { launcher, cgroups, next: AtomicU64::new(1) }
    }

    /// Runs a program to its end. A status other than 0 is no error here: see [`Output::success`].
    ///
    /// # Errors
    /// [`CommandError::Missing`] when there is no such program, [`CommandError::Timeout`] at the deadline.
    pub(crate) async fn run(self: &Arc<Self>, command: Command) -> Result<Output, CommandError> {
        let program = command.program.clone();
        let (reply, answer) = oneshot::channel();
        // In a task of its own, which sees to the end even if this future is dropped.
        tokio::spawn(Arc::clone(self).supervise(command, reply));
        answer.await.map_err(|_| CommandError::Panicked(program))?
    }

    async fn supervise(
        self: Arc<Self>,
        command: Command,
        mut reply: oneshot::Sender<Result<Output, CommandError>>,
    ) {
        let program = command.program.clone();
        let result = match self.birthplace(&program).await {
            Ok(cgroup) => {
                let result = tokio::select! {
                    biased;
                    result = self.within_deadline(command, &cgroup) => result,
                    () = reply.closed() => Err(CommandError::Abandoned(program.clone())),
                };
                if let Err(error) = remove(&program, cgroup).await {
                    tracing::error!(%program, error = %chain(&error), "what a program started is still there");
                }
                result
            }
            Err(error) => Err(error),
        };
        if let Err(Err(error)) = reply.send(result) {
            tracing::warn!(%program, error = %chain(&error), "nobody waits for a program");
        }
    }

    /// Looks for the program, and makes a cgroup for it.
    async fn birthplace(&self, program: &str) -> Result<Arc<Cgroup>, CommandError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (root, program) = (self.cgroups.clone(), program.to_owned());
        let name = program.clone();
        let work = move || {
            if !std::fs::metadata(&program).is_ok_and(|file| file.is_file()) {
                return Err(CommandError::Missing(program));
            }
            // Beside the pod's cgroup, not in it: what the guest runs for itself has no part in the pod's limits.
            CgroupPath::parse("", &format!("helper-{number}"))
                .and_then(|path| Cgroup::create(&root, &path))
                .map(Arc::new)
                .map_err(|source| CommandError::Cgroup { program, source })
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| CommandError::Panicked(name))?
    }

    async fn within_deadline(&self, command: Command, cgroup: &Cgroup) -> Result<Output, CommandError> {
        let (program, limit) = (command.program.clone(), command.deadline);
        tokio::time::timeout(limit, self.communicate(command, cgroup))
            .await
            .unwrap_or(Err(CommandError::Timeout { program, seconds: limit.as_secs() }))
    }

    async fn communicate(&self, command: Command, cgroup: &Cgroup) -> Result<Output, CommandError> {
        let program = &command.program;
        let plan = command.plan()?;
        let (pipes, streams) = stdio::pipes(0)?;
        let directory = cgroup.dir().try_clone_to_owned();
        let directory =
            directory.map_err(|source| StreamError::Io { operation: "open a program's cgroup", source })?;
        let launch = Launch {
            plan,
            cgroup: directory,
            namespaces: Vec::new(),
            streams,
            wants_inner_pid: false,
            place: None,
        };
        let launched = self.launcher.launch(launch).await;
        let Launched { mut exit, starting, .. } =
            launched.map_err(|source| CommandError::Start { program: program.clone(), source })?;
        let stdio = Stdio::of_pipes(pipes, &exit)?;
        executed(program, starting).await?;
        let input = async {
            if !command.stdin.is_empty() {
                // A program that does not read to the end says by its status whether that matters.
                drop(stdio.write(command.stdin.clone()).await);
            }
            stdio.close_stdin().await;
        };
        let stdout = collect(command.keep, || stdio.read_stdout(CHUNK));
        let stderr = collect(command.keep, || stdio.read_stderr(CHUNK));
        let ((), (stdout, out_cut), (stderr, err_cut)) = tokio::join!(input, stdout, stderr);
        let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        let status = status.ok_or_else(|| CommandError::Panicked(program.clone()))?;
        Ok(Output { status, stdout, stderr, is_cut: out_cut || err_cut })
    }
}

/// Waits until the program runs. One that the kernel does not execute is told apart from one that ends badly.
async fn executed(program: &str, starting: Starting) -> Result<(), CommandError> {
    // It has no filter that could ask.
    let unasked = |_| Err(std::io::ErrorKind::NotConnected.into());
    let heard = tokio::task::spawn_blocking(move || starting.executed(unasked)).await;
    match heard.map_err(|_| CommandError::Panicked(program.to_owned()))? {
        Ok(Executed::Running) => Ok(()),
        Ok(Executed::Failed(source)) => {
            Err(CommandError::NotExecuted { program: program.to_owned(), source })
        }
        // It may just as well have ended already: its status says more.
        Err(StartError::Killed) => Ok(()),
        Err(error) => Err(CommandError::Start { program: program.to_owned(), source: error.into() }),
    }
}

/// Reads an output to its end; gives what fits, and whether there was more.
async fn collect<F: Future<Output = Vec<u8>>>(keep: usize, mut read: impl FnMut() -> F) -> (Vec<u8>, bool) {
    let (mut kept, mut is_cut) = (Vec::new(), false);
    loop {
        let part = read().await;
        if part.is_empty() {
            return (kept, is_cut);
        }
        let room = keep - kept.len();
        is_cut |= part.len() > room;
        kept.extend_from_slice(&part[..part.len().min(room)]);
    }
}

async fn remove(program: &str, cgroup: Arc<Cgroup>) -> Result<(), CommandError> {
    tokio::task::spawn_blocking(move || cgroup.remove(KILL_DEADLINE))
        .await
        .map_err(|_| CommandError::Panicked(program.to_owned()))?
        .map_err(|source| CommandError::Cgroup { program: program.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_output_is_kept_up_to_its_bound_and_read_to_its_end() {
        for (keep, expected) in [(10, ("abcdef", false)), (6, ("abcdef", false)), (4, ("abcd", true))] {
            let mut parts = ["abc", "def", ""].into_iter();
            let (kept, is_cut) =
                collect(keep, || std::future::ready(parts.next().unwrap().as_bytes().to_vec())).await;
            assert_eq!((kept.as_slice(), is_cut), (expected.0.as_bytes(), expected.1));
            assert_eq!(parts.next(), None);
        }
    }

    #[test]
    fn a_failure_tells_what_the_program_said() {
        let output = |status, stderr: &str| Output {
            status,
            stdout: b"out\n".to_vec(),
            stderr: stderr.as_bytes().to_vec(),
            is_cut: false,
        };
        assert!(output(0, "warning").success("/x").is_ok());
        let error = output(2, "line 1\n\n line 2\n").success("/x").unwrap_err();
        assert_eq!(error.to_string(), "/x ended with status 2: line 1; line 2; out");
        assert_eq!(output(1, &"x".repeat(2 * TEXT)).text().len(), TEXT);
        let mute = Output { stdout: Vec::new(), ..output(1, "") };
        assert!(mute.success("/x").unwrap_err().to_string().ends_with("it said nothing"));
    }

    #[test]
    fn a_program_has_its_path_first_and_root_with_all_capabilities() {
        let mut command = Command::new("/sbin/x", ["-a"]);
        let plan = command.plan().unwrap();
        assert_eq!(plan.command.args, ["/sbin/x", "-a"]);
        assert_eq!((plan.identity.uid, plan.terminal.is_none()), (0, true));
        assert!(plan.identity.capabilities.effective.count_ones() > 30);
        command.args.push("nul\0".into());
        assert_eq!(command.plan().unwrap_err().kind(), ErrorKind::Invalid);
    }
}
