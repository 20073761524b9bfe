//! Other machine monitors than QEMU, as far as a registry offers them as packages: a guest boots, is reached, runs a container
//! and ends its VM.
//!
//! Alioth (crate `alioth-cli`): KVM, PVH or bzImage, virtio on PCI, a vsock of the kernel's or behind a Unix socket. It starts
//! with a terminal as its standard input only.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use machine::vm::{AgentClient, Endpoint, Ready};
use protocols::agent::{CreateSandboxRequest, DestroySandboxRequest};
use protocols::health::CheckRequest;
use rustix::pty::OpenptFlags;
use tests::{ContainerBuilder, busybox, product};

/// How long a guest may take until it is ready, and its monitor until it has ended.
const PATIENCE: Duration = Duration::from_secs(120);

/// A monitor's process, and what comes over the guest's console. Dropping it kills the process.
struct Monitor {
    child: Child,
    lines: mpsc::Receiver<String>,
    console: Vec<String>,
    /// The other end of the terminal that is its standard input. Nobody types.
    _keyboard: OwnedFd,
}

/// A terminal: where somebody would type, and what a program reads from.
fn terminal() -> Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let keyboard = rustix::pty::openpt(flags).context("make a terminal")?;
    rustix::pty::unlockpt(&keyboard)?;
    let input = rustix::pty::ioctl_tiocgptpeer(&keyboard, flags).context("open the terminal")?;
    Ok((keyboard, input))
}

impl Monitor {
    fn start(mut command: Command) -> Result<Monitor> {
        let name = command.get_program().to_owned();
        let how = || format!("start {}: `make nested` builds it", name.display());
        let (keyboard, input) = terminal()?;
        let mut child = command.stdin(input).stdout(Stdio::piped()).spawn().with_context(how)?;
        let console = child.stdout.take().context("no stdout")?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(console).lines().map_while(Result::ok) {
                // Whoever no longer listens needs no more lines, and the console must be read all the same.
                drop(send.send(line));
            }
        });
        Ok(Monitor { child, lines, console: Vec::new(), _keyboard: keyboard })
    }

    fn ready(&mut self) -> Result<Ready> {
        let give_up = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
            if let Some(ready) = Ready::parse(&line) {
                return Ok(ready);
            }
            self.console.push(line);
        }
        bail!("no ready line; the console:\n{}", self.console.join("\n"))
    }

    fn ends(&mut self) -> Result<ExitStatus> {
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.console.extend(self.lines.try_iter());
        bail!("it runs on; the console:\n{}", self.console.join("\n"))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A pod's life, from the ready line to the end of the monitor.
async fn lives(mut monitor: Monitor, endpoint: Endpoint) -> Result<()> {
    let ready = monitor.ready()?;
    println!("ready {} ms after the kernel's start", ready.kernel_ms);
    let client = AgentClient::connect(&endpoint).await.context("dial the agent")?;
    client.health.check(AgentClient::call(), &CheckRequest::new()).await?;
    let sandbox = CreateSandboxRequest { sandbox_id: "pod".into(), ..Default::default() };
    client.agent.create_sandbox(AgentClient::call(), &sandbox).await?;
    let container = ContainerBuilder::new(client.clone(), "c1").run().await?;
    assert_eq!(container.sh("echo hello").await?, "hello");
    container.remove().await?;
    client.agent.destroy_sandbox(AgentClient::call(), &DestroySandboxRequest::new()).await?;
    let asked = Instant::now();
    let status = monitor.ends()?;
    println!("ended {} ms after DestroySandbox: {status}", asked.elapsed().as_millis());
    Ok(())
}

fn alioth(kernel: [&str; 2], vsock: &str) -> Result<Monitor> {
    let pair = |head: &str, path: &Path, tail: &str| {
        let mut word = OsString::from(head);
        word.push(path);
        word.push(tail);
        word
    };
    let [option, kernel] = kernel;
    let mut command = Command::new("alioth");
    command.arg("boot").arg(option).arg(product(kernel)?).arg("--initramfs").arg(product("initrd.img")?);
    command.args(["--cmdline", "console=ttyS0 quiet panic=-1"]);
    command.args(["--cpu", "count=1", "--memory", "size=512M,backend=memfd", "--vsock", vsock]);
    command.arg("--blk").arg(pair("file,path=", &busybox()?, ",readonly=true"));
    Monitor::start(command)
}

/// CIDs that no other guest has: those of QEMU's are random.
const BZIMAGE: u32 = 4711;
const ELF: u32 = 4712;
const OWN: u32 = 4713;

#[tokio::test]
async fn alioth_runs_the_bzimage_with_the_kernels_vsock() -> Result<()> {
    let monitor = alioth(["--kernel", "vmlinuz"], &format!("vhost,cid={BZIMAGE}"))?;
    lives(monitor, Endpoint::Vsock { cid: BZIMAGE }).await
}

#[tokio::test]
async fn alioth_runs_the_elf_kernel_with_the_kernels_vsock() -> Result<()> {
    let monitor = alioth(["--pvh", "vmlinux"], &format!("vhost,cid={ELF}"))?;
    lives(monitor, Endpoint::Vsock { cid: ELF }).await
}

#[tokio::test]
async fn alioth_runs_the_guest_with_a_vsock_of_its_own() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("vsock.sock");
    let vsock = format!("uds,cid={OWN},path={}", socket.display());
    lives(alioth(["--kernel", "vmlinuz"], &vsock)?, Endpoint::Hybrid { socket }).await
}
