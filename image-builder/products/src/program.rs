//! Helper programs: make, tar, cargo, curl. Started in a process group of their own, read line by line, and ended
//! with everything they started when the caller loses interest.
//!
//! Promises: dropping a [`Program`] kills its whole group and reaps the leader before it returns, so that directories
//! can be removed afterwards without a race. A failure carries the last lines the program wrote, those of its standard
//! error if there are any. Must never run a
//! shell, nor pass the caller's locale or make flags on.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// How many lines of output a failure shows.
const TAIL: usize = 30;

/// How long a group may take to end itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// Why a helper program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not installed, or could not be started.
    #[error("cannot run {name}; {hint}")]
    Start {
        /// The program.
        name: String,
        /// What to do about it.
        hint: String,
        /// Why it did not start.
        source: io::Error,
    },
    /// Its output could not be read.
    #[error("cannot read the output of {name}")]
    Output {
        /// The program.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// It ended badly.
    #[error("{name} failed ({status}); its last lines:\n{tail}")]
    Failed {
        /// The program.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its output.
        tail: String,
    },
}

/// A helper program to be run once.
#[derive(Debug)]
pub struct Program {
    name: String,
    hint: String,
    command: Command,
}

impl Program {
    /// Prepares to run `name`, found by PATH. `hint` tells what to do when it is missing.
    pub fn new(name: &str, hint: &str) -> Self {
        let mut command = Command::new(name);
        command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        for leak in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"] {
            command.env_remove(leak);
        }
        Self { name: name.to_string(), hint: hint.to_string(), command }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes a variable of its environment.
    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sets its working directory.
    pub fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Runs it to its end, giving each line of its output (both streams) to `line`.
    ///
    /// # Errors
    /// When it cannot be started, read, or ends with anything but success.
    pub async fn run(mut self, mut line: impl FnMut(&str)) -> Result<(), ProgramError> {
        let mut group = match self.command.spawn() {
            Ok(child) => Group { child, ended: false },
            Err(source) => return Err(ProgramError::Start { name: self.name, hint: self.hint, source }),
        };
        let mut tails = [VecDeque::with_capacity(TAIL), VecDeque::with_capacity(TAIL)];
        let mut each = |stream: Stream, text: &str| {
            let tail = &mut tails[stream as usize];
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(text.to_string());
            line(text);
        };
        let read = async {
            let stdout = group.child.stdout.take().map(tokio::process::ChildStdout::from_std).transpose()?;
            let stderr = group.child.stderr.take().map(tokio::process::ChildStderr::from_std).transpose()?;
            match (stdout, stderr) {
                (Some(stdout), Some(stderr)) => pump(stdout, stderr, &mut each).await,
                _ => Ok(()),
            }
        };
        read.await.map_err(|source| ProgramError::Output { name: self.name.clone(), source })?;
        let status = group
            .finish()
            .await
            .map_err(|source| ProgramError::Output { name: self.name.clone(), source })?;
        if status.success() {
            return Ok(());
        }
        let [output, errors] = tails;
        let tail = Vec::from(if errors.is_empty() { output } else { errors }).join("\n");
        Err(ProgramError::Failed { name: self.name, status, tail })
    }

    /// Runs it to its end and answers its output, both streams, line by line.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub async fn lines(self) -> Result<Vec<String>, ProgramError> {
        let mut lines = Vec::new();
        self.run(|line| lines.push(line.to_string())).await?;
        Ok(lines)
    }
}

/// Which of a program's two streams.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Output,
    Errors,
}

/// Reads both streams to their ends.
async fn pump(
    output: impl AsyncRead + Unpin,
    errors: impl AsyncRead + Unpin,
    each: &mut impl FnMut(Stream, &str),
) -> io::Result<()> {
    let (mut output, mut errors) = (BufReader::new(output).split(b'\n'), BufReader::new(errors).split(b'\n'));
    let (mut output_open, mut errors_open) = (true, true);
    while output_open || errors_open {
        let (stream, segment) = tokio::select! {
            segment = output.next_segment(), if output_open => (Stream::Output, segment?),
            segment = errors.next_segment(), if errors_open => (Stream::Errors, segment?),
        };
        match (segment, stream) {
            (Some(segment), _) => each(stream, String::from_utf8_lossy(&segment).trim_end_matches('\r')),
            (None, Stream::Output) => output_open = false,
            (None, Stream::Errors) => errors_open = false,
        }
    }
    Ok(())
}

/// A child that leads its own process group.
struct Group {
    child: Child,
    ended: bool,
}

impl Group {
    /// Waits for the leader, whose output has ended, without blocking the runtime.
    async fn finish(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether a signal reached the group, that is, whether any process of it is left.
    fn signal(&self, signal: Signal) -> bool {
        i32::try_from(self.child.id()).is_ok_and(|id| killpg(Pid::from_raw(id), signal).is_ok())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let deadline = Instant::now() + GRACE;
        self.signal(Signal::SIGTERM);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // The leader may have gone before its children; while any is left, so is the group's id.
        self.signal(Signal::SIGKILL);
        if self.child.wait().is_ok() {
            let gone = Instant::now() + GRACE;
            while self.signal(Signal::SIGKILL) && Instant::now() < gone {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Program {
        Program::new("sh", "install a shell").args(["-c", script])
    }

    #[tokio::test]
    async fn both_streams_arrive_line_by_line() {
        let mut lines = sh("echo one; echo two >&2; printf three").lines().await.unwrap();
        lines.sort();
        assert_eq!(lines, ["one", "three", "two"]);
    }

    #[tokio::test]
    async fn a_failure_carries_status_and_last_lines() {
        let error = sh("for i in $(seq 100); do echo line $i; done; exit 3").lines().await.unwrap_err();
        let ProgramError::Failed { status, tail, .. } = error else { panic!("{error:?}") };
        assert_eq!(status.code(), Some(3));
        assert_eq!(tail.lines().count(), TAIL);
        assert!(tail.ends_with("line 100"));
        let error = sh("echo noise; echo fault >&2; exit 1").lines().await.unwrap_err();
        assert!(matches!(error, ProgramError::Failed { tail, .. } if tail == "fault"));
    }

    #[tokio::test]
    async fn a_missing_program_comes_with_advice() {
        let error = Program::new("no-such-program-here", "install it").lines().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot run no-such-program-here; install it");
    }

    #[tokio::test]
    async fn dropping_it_ends_the_whole_group() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        // The grandchild ignores SIGTERM: only SIGKILL on the group ends it.
        let script = format!("(trap '' TERM; sleep 1000) & echo $$ $! > {}; wait", pids.display());
        let run = tokio::spawn(sh(&script).lines());
        let ids: Vec<i32> = loop {
            let text = std::fs::read_to_string(&pids).unwrap_or_default();
            if text.ends_with('\n') {
                break text.split_whitespace().map(|id| id.parse().unwrap()).collect();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        run.abort();
        assert!(run.await.unwrap_err().is_cancelled());
        for id in ids {
            let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let state = state.rsplit(") ").next().unwrap_or_default();
            assert!(state.is_empty() || state.starts_with('Z'), "{id} still runs: {state}");
        }
    }
}
