//! Child processes that cannot outlive us.
//!
//! Owns one thread that starts every child, so that the kernel's parent-death signal, which follows the *thread*
//! that forked, is bound to a thread that lives as long as the children should. `setpriv --pdeathsig` sets the
//! signal in the child: doing it here would need a closure between fork and exec, which this project forbids.
//! Where `setpriv` is absent a child still ends with its [`Ward`]; only a SIGKILL of ourselves would orphan it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::io::{FdFlags, fcntl_setfd};

use super::VmError;

/// How long a device's process may take to listen, and how often that is looked at: a boot waits for it.
const LISTEN_DEADLINE: Duration = Duration::from_secs(10);
const LISTEN_POLL: Duration = Duration::from_millis(2);
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
        let out = log_file(log)?;
        self.start(command, log, Stdio::from(out), Vec::new())
    }

    /// Starts a command with no stdin, its stdout for us to read and its stderr going to `log`. It gets the descriptors
    /// `inherited` under the numbers that they have here.
    pub(super) fn spawn_with_stdout(
        &self,
        command: Command,
        log: &Path,
        inherited: Vec<Arc<OwnedFd>>,
    ) -> Result<(Ward, ChildStdout), VmError> {
        let mut ward = self.start(command, log, Stdio::piped(), inherited)?;
        let stdout = ward.child.stdout.take().ok_or_else(|| {
            VmError::io("read the output of", &ward.name, io::Error::from(io::ErrorKind::BrokenPipe))
        })?;
        Ok((ward, stdout))
    }

    fn start(
        &self,
        command: Command,
        log: &Path,
        stdout: Stdio,
        inherited: Vec<Arc<OwnedFd>>,
    ) -> Result<Ward, VmError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |source| VmError::io("start", &name, source);
        let mut command = bound_to_parent(command);
        command.stdin(Stdio::null()).stdout(stdout).stderr(log_file(log)?);
        let (reply, answer) = mpsc::sync_channel(1);
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.requests
            .send(Request { command, inherited, reply })
            .map_err(|_| failed(io::ErrorKind::BrokenPipe.into()))?;
        let child = answer.recv().map_err(gone).and_then(|result| result).map_err(failed)?;
        Ok(Ward { name, child, status: None, _nursery: self.clone() })
    }
}

/// Starts a command. Only descriptors without FD_CLOEXEC survive its execve, so `inherited` go without it for that
/// long. A child that another thread starts at this very moment would get them too; whatever a run starts, this one
/// thread does.
fn spawn(command: &mut Command, inherited: &[Arc<OwnedFd>]) -> io::Result<Child> {
    for fd in inherited {
        fcntl_setfd(fd, FdFlags::empty())?;
    }
    let child = command.spawn();
    for fd in inherited {
        fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    child
}

fn log_file(path: &Path) -> Result<File, VmError> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| VmError::io("open", path.display(), source))
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
            bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
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
    use std::io::Read;
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
        assert_eq!(rustix::io::fcntl_getfd(&given).unwrap(), FdFlags::CLOEXEC, "and the next one does not");
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
