//! Child processes that do not outlive this process.
//!
//! One thread starts every child. The kernel's parent-death signal is tied to the *thread* that forked, so this thread lives as
//! long as its children should. `setpriv --pdeathsig` sets the signal in the child. Doing that here would need a closure
//! between fork and exec, which this project does not allow. Without `setpriv`, a child still ends with its [`Ward`], and is
//! left behind only if this process is killed by SIGKILL.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::VmError;

/// How long a device's process may take to listen, and how often that is looked at: a boot waits for it.
const LISTEN_DEADLINE: Duration = Duration::from_secs(10);
const LISTEN_POLL: Duration = Duration::from_millis(2);
/// How much of what a child says is kept, in bytes: a guest can make its devices complain without end.
const LOG: u64 = 1 << 20;
/// How long what a child said last may be on its way after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How often a process that should end is looked at.
const POLL: Duration = Duration::from_millis(5);

struct Request {
    command: Command,
    /// Descriptors that the child gets under the numbers that they have here.
    inherited: Vec<Arc<OwnedFd>>,
    reply: mpsc::SyncSender<io::Result<Child>>,
}

/// The thread that starts children. It ends, and the kernel kills what is left, when the last [`Ward`] is gone.
#[derive(Debug, Clone)]
pub(super) struct Nursery {
    requests: Arc<mpsc::Sender<Request>>,
}

impl Nursery {
    pub(super) fn new() -> Result<Self, VmError> {
        let (requests, queue) = mpsc::channel::<Request>();
        std::thread::Builder::new()
            .name("nursery".into())
            .spawn(move || {
                while let Ok(mut request) = queue.recv() {
                    let child = spawn(&mut request.command, &request.inherited);
                    drop(request.reply.send(child));
                }
            })
            .map_err(|source| VmError::io("start", "the thread that starts QEMU", source))?;
        Ok(Self { requests: Arc::new(requests) })
    }

    /// Starts a command with no stdin, its stdout and stderr going to `log`.
    pub(super) fn spawn(&self, command: Command, log: &Path) -> Result<Ward, VmError> {
        self.start(command, log, None, Vec::new())
    }

    /// Starts a command with no stdin, its stdout for us to read and its stderr going to `log`. It gets the descriptors
    /// `inherited` under the numbers that they have here.
    pub(super) fn spawn_with_stdout(
        &self,
        command: Command,
        log: &Path,
        inherited: Vec<Arc<OwnedFd>>,
    ) -> Result<(Ward, ChildStdout), VmError> {
        let mut ward = self.start(command, log, Some(Stdio::piped()), inherited)?;
        let stdout = ward.child.stdout.take().ok_or_else(|| {
            VmError::io("read the output of", &ward.name, io::Error::from(io::ErrorKind::BrokenPipe))
        })?;
        Ok((ward, stdout))
    }

    fn start(
        &self,
        command: Command,
        log: &Path,
        stdout: Option<Stdio>,
        inherited: Vec<Arc<OwnedFd>>,
    ) -> Result<Ward, VmError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |source| VmError::io("start", &name, source);
        let mut command = bound_to_parent(command);
        let (stderr, said) = keep_log(log)?;
        let stdout = match stdout {
            Some(stdout) => stdout,
            None => stderr.try_clone().map_err(failed)?.into(),
        };
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let (reply, answer) = mpsc::sync_channel(1);
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.requests
            .send(Request { command, inherited, reply })
            .map_err(|_| failed(io::ErrorKind::BrokenPipe.into()))?;
        let child = answer.recv().map_err(gone).and_then(|result| result).map_err(failed)?;
        Ok(Ward { name, child, status: None, said, _nursery: self.clone() })
    }
}

/// Starts a command. Only descriptors without FD_CLOEXEC survive its execve, so `inherited` go without it for that
/// long. A child that another thread starts at this very moment would get them too; whatever a run starts, this one
/// thread does.
fn spawn(command: &mut Command, inherited: &[Arc<OwnedFd>]) -> io::Result<Child> {
    for fd in inherited {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    let child = command.spawn();
    for fd in inherited {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    child
}

/// Starts a thread that copies the beginning of what is written to the pipe it gives into a file, and reads on. It
/// ends when all was said.
fn keep_log(path: &Path) -> Result<(io::PipeWriter, JoinHandle<()>), VmError> {
    let failed = |source| VmError::io("open", path.display(), source);
    let mut file = File::options().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
    let (mut reader, writer) = io::pipe().map_err(failed)?;
    let copy = move || {
        // A full disk is no reason not to read.
        drop(io::copy(&mut (&mut reader).take(LOG), &mut file));
        drop(io::copy(&mut reader, &mut io::sink()));
    };
    let said = std::thread::Builder::new().name("log".into()).spawn(copy).map_err(failed)?;
    Ok((writer, said))
}

/// The same command, run so that it gets SIGKILL when the thread that starts it ends. It also leaves our process
/// group: a Ctrl-C at the terminal is for us, and we end the machine in good order.
fn bound_to_parent(command: Command) -> Command {
    use std::os::unix::process::CommandExt;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let setpriv =
        std::env::split_paths(&path).map(|dir| dir.join("setpriv")).find(|candidate| candidate.is_file());
    let mut bound = match setpriv {
        None => command,
        Some(setpriv) => {
            let mut bound = Command::new(setpriv);
            // Nor does any of them need more rights than we have.
            bound
                .args(["--no-new-privs", "--pdeathsig", "KILL", "--"])
                .arg(command.get_program())
                .args(command.get_args());
            bound
        }
    };
    bound.process_group(0);
    bound
}

/// One child. Dropping it kills the process and reaps it.
#[derive(Debug)]
pub(super) struct Ward {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    /// Ends when all that it said is in its log.
    said: JoinHandle<()>,
    _nursery: Nursery,
}

impl Ward {
    /// Waits until the process has made its socket. False when it ends before, or lets the deadline pass.
    pub(super) async fn listens(&mut self, socket: &Path) -> bool {
        let give_up = Instant::now() + LISTEN_DEADLINE;
        while !socket.exists() {
            if self.has_ended() || Instant::now() > give_up {
                return false;
            }
            tokio::time::sleep(LISTEN_POLL).await;
        }
        true
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
            if self.status.is_some() {
                // Whoever hears of the end reads the log next. A grandchild may hold it open; nobody waits for that.
                let give_up = Instant::now() + LAST_WORDS;
                while !self.said.is_finished() && Instant::now() < give_up {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        self.status.is_some()
    }

    /// Ends the process, with SIGTERM first and SIGKILL after `grace`, and describes how it ended.
    pub(super) async fn stop(&mut self, grace: Duration) -> String {
        self.signal(Signal::SIGTERM);
        let give_up = Instant::now() + grace;
        while !self.has_ended() && Instant::now() < give_up {
            tokio::time::sleep(POLL).await;
        }
        self.kill_now();
        match self.status {
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit status {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => status.to_string(),
            },
            None => "unknown status".to_owned(),
        }
    }

    fn signal(&mut self, signal: Signal) {
        if !self.has_ended() {
            // Not reaped yet, so the number is still its own. A failure means that it ended this instant.
            kill(Pid::from_raw(self.child.id().cast_signed()), signal).ok();
        }
    }

    fn kill_now(&mut self) {
        if !self.has_ended() {
            drop(self.child.kill());
            self.status = self.child.wait().ok();
        }
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        self.kill_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn alive(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_dropped_ward_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let ward = Nursery::new().unwrap().spawn(command, &dir.path().join("log")).unwrap();
        let pid = ward.pid();
        assert!(alive(pid));
        drop(ward);
        assert!(!alive(pid));
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"]);
        let (mut ward, mut out) =
            Nursery::new().unwrap().spawn_with_stdout(command, &dir.path().join("log"), Vec::new()).unwrap();
        let mut up = [0; 3];
        out.read_exact(&mut up).unwrap();
        assert_eq!(ward.stop(Duration::from_millis(100)).await, "signal 9");
    }

    #[test]
    fn a_childs_log_has_an_end_and_the_child_does_not_wait_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; head -c 5000000 /dev/zero >&2; exit 3"]);
        let mut ward = Nursery::new().unwrap().spawn(command, &log).unwrap();
        while !ward.has_ended() {
            std::thread::sleep(POLL);
        }
        assert_eq!(ward.status.and_then(|status| status.code()), Some(3));
        let kept = std::fs::read(&log).unwrap();
        assert!(kept.starts_with(b"first\n") && kept.len() as u64 == LOG, "{} bytes", kept.len());
    }

    #[test]
    fn a_child_gets_what_it_shall_inherit_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("given");
        std::fs::write(&file, "given").unwrap();
        let open = || Arc::new(OwnedFd::from(File::open(&file).unwrap()));
        let (given, kept) = (open(), open());
        let mut command = Command::new("sh");
        let script = "for fd in $0 $1; do cat /proc/self/fd/$fd 2> /dev/null || echo ,none; done";
        command.args(["-c", script]).args([&given, &kept].map(|fd| fd.as_raw_fd().to_string()));
        let nursery = Nursery::new().unwrap();
        let log = dir.path().join("log");
        let (_ward, mut out) = nursery.spawn_with_stdout(command, &log, vec![Arc::clone(&given)]).unwrap();
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        assert_eq!(text, "given,none\n");
        let flags = FdFlag::from_bits_retain(fcntl(&given, FcntlArg::F_GETFD).unwrap());
        assert_eq!(flags, FdFlag::FD_CLOEXEC, "and the next one does not");
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Nursery::new().unwrap().spawn(Command::new("/nonexistent/qemu"), &dir.path().join("log"));
        // Through setpriv the failure is in the log; without it, in the error.
        match error {
            Err(error) => assert!(error.to_string().contains("/nonexistent/qemu")),
            Ok(mut ward) => {
                while !ward.has_ended() {
                    std::thread::sleep(POLL);
                }
                assert!(
                    std::fs::read_to_string(dir.path().join("log")).unwrap().contains("/nonexistent/qemu")
                );
            }
        }
    }
}
