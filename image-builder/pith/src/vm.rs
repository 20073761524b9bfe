//! `vm`: starts a guest without a pod in an installed monitor, for programs that use its agent directly.
//!
//! Firecracker and Cloud Hypervisor are started with the output of `image-builder vm-config`. Promises that the monitor ends
//! with this command, and that its sockets are removed.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use machine::vm::{AGENT_PORT, Accel, Endpoint, Vm, VmConfig, find_tool};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;

use crate::global::{Global, missing_product};
use crate::signals::End;

/// How often a monitor is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How long a guest may take until its agent answers.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long a monitor may take to end.
const END_WITHIN: Duration = Duration::from_secs(3);
/// How many lines of the console are shown when a guest does not start.
const TAIL: usize = 30;

/// Which monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Monitor {
    /// QEMU, as `pith run` starts it.
    #[default]
    Qemu,
    /// `firecracker`. PITH_FIRECRACKER names another program.
    Firecracker,
    /// `cloud-hypervisor`, with a kernel that has PCI (`--profile kata`).
    CloudHypervisor,
}

impl Monitor {
    fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
        }
    }
}

/// Arguments of `vm`.
#[derive(Debug, Args)]
pub struct VmArgs {
    /// The monitor.
    #[arg(long, value_enum, default_value_t)]
    vmm: Monitor,
    /// The guest's memory: a number in MiB, or with a unit.
    #[arg(short, long, value_name = "SIZE", value_parser = crate::run::mebibytes, default_value = "256")]
    memory: u32,
    /// The number of guest CPUs.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = crate::run::processors)]
    cpus: u32,
    /// Add words to the kernel's command line, for example `agent.log=debug`.
    #[arg(long, value_name = "WORD")]
    append: Vec<String>,
    /// The flavour of the guest [default: minimal].
    #[arg(long, value_name = "NAME")]
    flavour: Option<String>,
    /// The profile of the kernel. Only for Firecracker and Cloud Hypervisor.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The accelerator. Only for QEMU.
    #[arg(long, value_enum, default_value_t)]
    accel: Accel,
}

impl VmArgs {
    /// Runs the command: starts the guest, prints where its agent is reached, and waits for the end.
    ///
    /// # Errors
    /// When the monitor or a product is missing, or when the guest does not start.
    pub async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let directory = tempfile::Builder::new().prefix("pith-vm-").tempdir();
        let directory = directory.context("cannot make a directory for sockets")?;
        let mut end = End::listen()?;
        match self.vmm {
            Monitor::Qemu => self.qemu(directory.path(), &mut end, global).await,
            Monitor::Firecracker | Monitor::CloudHypervisor => {
                self.monitor(directory.path(), &mut end, global).await
            }
        }
    }

    fn tell(&self, global: &Global, pid: u32, endpoint: &Endpoint) -> anyhow::Result<()> {
        let (socket, cid, words) = match endpoint {
            Endpoint::Hybrid { socket } | Endpoint::Unix { socket } => {
                (Some(socket), None, socket.display().to_string())
            }
            Endpoint::Vsock { cid } => (None, Some(cid), format!("vsock://{cid}:{AGENT_PORT}")),
        };
        let value =
            json!({"vmm": self.vmm.name(), "pid": pid, "socket": socket, "cid": cid, "port": AGENT_PORT});
        global.print(&value, || words)
    }

    async fn qemu(&self, directory: &Path, end: &mut End, global: &Global) -> anyhow::Result<ExitCode> {
        ensure!(self.profile.is_none(), "--profile is for Firecracker and Cloud Hypervisor");
        let layout = global.products()?;
        let initrd = match self.flavour.as_deref() {
            None | Some("minimal") => layout.initrd(),
            Some(name) => layout.flavour_initrd(name),
        };
        ensure!(initrd.is_file(), missing_product(&initrd, store::arch::Arch::host()));
        let mut config = VmConfig::new(layout.kernel(), initrd, directory.join("vm"));
        config.memory_mib = self.memory;
        config.cpus = self.cpus;
        config.cmdline.clone_from(&self.append);
        config.accel = self.accel;
        let vm = tokio::select! {
            vm = Vm::boot(config) => vm?,
            number = end.next() => return Ok(ExitCode::from(128 + number)),
        };
        self.tell(global, vm.pid(), vm.endpoint())?;
        let code = tokio::select! {
            _ = vm.wait_off(Duration::MAX) => ExitCode::SUCCESS,
            number = end.next() => ExitCode::from(128 + number),
        };
        vm.stop().await?;
        Ok(code)
    }

    async fn monitor(&self, directory: &Path, end: &mut End, global: &Global) -> anyhow::Result<ExitCode> {
        ensure!(self.accel == Accel::Auto, "--accel is for QEMU; {} needs KVM", self.vmm.name());
        let socket = directory.join("vsock.sock");
        let console = directory.join("console.log");
        let config = self.config(&socket, global)?;
        let mut command = self.command(directory, &config)?;
        let log = File::create(&console).with_context(|| format!("cannot make {}", console.display()))?;
        let other = log.try_clone().context("cannot share the console's file")?;
        command.stdin(Stdio::null()).stdout(log).stderr(other);
        let mut running = Running::start(command, self.vmm.name())?;
        let endpoint = Endpoint::Hybrid { socket: socket.clone() };
        let ready = async {
            loop {
                if socket.exists() && endpoint.dial(AGENT_PORT).await.is_ok() {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            () = ready => {}
            status = running.ended() => {
                bail!("{} ended with {}; the end of what it wrote:\n{}", self.vmm.name(), status?, tail(&console))
            }
            number = end.next() => {
                running.stop().await?;
                return Ok(ExitCode::from(128 + number));
            }
            () = tokio::time::sleep(READY_WITHIN) => {
                running.stop().await?;
                bail!(
                    "the guest's agent did not answer within {} s; the end of the console:\n{}",
                    READY_WITHIN.as_secs(),
                    tail(&console)
                );
            }
        }
        self.tell(global, running.child.id(), &endpoint)?;
        tokio::select! {
            status = running.ended() => {
                let code = status?.code().and_then(|code| u8::try_from(code).ok());
                Ok(ExitCode::from(code.unwrap_or(1)))
            }
            number = end.next() => {
                running.stop().await?;
                Ok(ExitCode::from(128 + number))
            }
        }
    }

    /// What `image-builder vm-config` says.
    fn config(&self, socket: &Path, global: &Global) -> anyhow::Result<String> {
        let beside = std::env::current_exe().ok().map(|program| program.with_file_name("image-builder"));
        let program =
            beside.filter(|path| path.is_file()).or_else(|| find_tool("image-builder", "PITH_IMAGE_BUILDER"));
        let program = program.context(
            "image-builder is missing, which knows how this monitor is started; it is installed beside pith",
        )?;
        let layout = global.products()?;
        let mut command = Command::new(&program);
        command.arg("vm-config").arg(self.vmm.name()).arg("--out").arg(layout.out());
        command.arg("--vsock").arg(socket);
        command.args(["--memory", &self.memory.to_string(), "--cpus", &self.cpus.to_string()]);
        for (option, value) in [("--flavour", &self.flavour), ("--profile", &self.profile)] {
            if let Some(value) = value {
                command.args([option, value]);
            }
        }
        command.args(self.append.iter().flat_map(|word| ["--append", word]));
        let output = command.stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot run {}", program.display()))?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if !output.status.success() {
            let words = said(&output.stderr);
            bail!("{}", words.strip_prefix("image-builder: ").unwrap_or(&words));
        }
        Ok(said(&output.stdout))
    }

    fn command(&self, directory: &Path, config: &str) -> anyhow::Result<Command> {
        let found = |variable: &str| -> anyhow::Result<PathBuf> {
            let name = self.vmm.name();
            find_tool(name, variable).with_context(|| {
                format!("{name} is not installed; put it into a directory of PATH, or name it in {variable}")
            })
        };
        // It must not outlive this process, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if self.vmm == Monitor::Firecracker {
            let file = directory.join("config.json");
            std::fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
            command.arg(found("PITH_FIRECRACKER")?).args(["--no-api", "--config-file"]).arg(file);
        } else {
            let program = found("PITH_CLOUD_HYPERVISOR")?;
            let mut path = program.parent().map(|parent| parent.as_os_str().to_owned()).unwrap_or_default();
            path.push(":");
            path.push(std::env::var_os("PATH").unwrap_or_default());
            command.args(["sh", "-c", config]).env("PATH", path);
        }
        Ok(command)
    }
}

/// The last lines of a file.
fn tail(file: &Path) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// A monitor and what it started, in a process group of their own.
struct Running {
    child: Child,
    is_over: bool,
}

impl Running {
    fn start(mut command: Command, name: &str) -> anyhow::Result<Self> {
        let child = command.process_group(0).spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, is_over: false })
    }

    async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for the monitor")? {
                self.is_over = true;
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn signal(&self, signal: Signal) {
        // Not reaped yet, so the number is its own.
        killpg(Pid::from_raw(self.child.id().cast_signed()), signal).ok();
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM);
        let begun = Instant::now();
        while self.child.try_wait().context("cannot wait for the monitor")?.is_none() {
            if begun.elapsed() > END_WITHIN {
                self.signal(Signal::SIGKILL);
            }
            tokio::time::sleep(POLL).await;
        }
        self.is_over = true;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over {
            self.signal(Signal::SIGKILL);
            self.child.wait().ok();
        }
    }
}
