//! Boots a guest in a virtual machine and reaches it over vsock.
//!
//! Owns the QEMU process, the vsock device process and their sockets. Promises that a [`Vm`] that exists has
//! printed the agent's ready line, and that dropping it, or the death of this process, ends both processes.
//! Must never dial the guest before its ready line: `vhost-device-vsock` 0.3 wedges for good when it is asked to
//! connect before the guest's vsock driver is up.
//!
//! ```text
//!  Vm::boot ── Nursery (thread) ──┬─ vhost-device-vsock ── vsock.sock  ◄── CONNECT 1024 ── Vm::dial
//!                                 └─ QEMU ── serial ── Console (thread) ── ready line
//! ```

mod accel;
mod cmdline;
mod config;
mod console;
mod error;
mod files;
mod host;
mod machine;
mod model;
mod nic;
mod nursery;
mod patience;
mod qmp;
mod share;
mod snapshot;
mod sys;
mod transfer;
mod tsc;
mod unpacked;
mod vsock;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use store::arch::Arch;
use tokio::net::UnixStream;

pub use accel::Accel;
pub use config::{Attachment, Growth, Root, VmConfig};
pub use console::Ready;
pub use error::VmError;
use host::needed_tool;
pub use host::{Qemu, VIRTIOFSD_FIX, VSOCK_FIX, find_tool};
pub use machine::check_memory;
pub use model::{Disk, LEAST_MEMORY_MIB, MAC, Machine, disk_node};
pub use nic::{Forward, Nic, Protocol};
pub use protocols::client::{AGENT_PORT, AgentClient, DialError, Endpoint};
pub use share::{Share, find_virtiofsd};
pub use snapshot::Snapshot;
pub use tsc::host_khz as host_tsc_khz;
pub use unpacked::unpacked_initrd;

use accel::{Engine, Memory};
use console::{Console, Stage};
use files::RunFiles;
use model::VsockDevice;
use nursery::{Nursery, Ward};

/// vsock port of the guest's debug console, where the guest has one.
pub const CONSOLE_PORT: u32 = 1026;
/// What a guest says at that port, at the begin of the line, if the console was not switched on.
pub const CONSOLE_OFF: &str = "this guest has no debug console";
/// Words for the kernel's command line that switch that console on.
pub const DEBUG_CONSOLE: [&str; 2] = ["agent.debug_console", "agent.debug_console_vport=1026"];

/// How long QEMU and the vsock device may take to obey SIGTERM before SIGKILL.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How often a guest CID that another VM holds is replaced by a fresh one.
const CID_TRIES: u32 = 5;

/// When things happened during a boot, seen from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootTiming {
    /// From starting QEMU to the ready line.
    pub power_on_to_ready: Duration,
    /// From kernel entry to the ready line, as the guest says.
    pub kernel_to_ready: Duration,
    /// From kernel entry to the first instruction of `/init`, as the guest says.
    pub kernel_to_init: Duration,
}

impl BootTiming {
    /// From starting QEMU to kernel entry: firmware and loading.
    pub fn power_on_to_kernel(&self) -> Duration {
        self.power_on_to_ready.saturating_sub(self.kernel_to_ready)
    }

    /// From starting QEMU to `/init`.
    pub fn power_on_to_init(&self) -> Duration {
        self.power_on_to_kernel() + self.kernel_to_init
    }
}

/// A running guest whose agent accepts calls.
#[derive(Debug)]
pub struct Vm {
    config: VmConfig,
    console: Console,
    endpoint: Endpoint,
    /// Connections asked for so far, held while one is made.
    dialled: tokio::sync::Mutex<u32>,
    engine: Engine,
    files: RunFiles,
    notes: Vec<String>,
    powered_on: Instant,
    ready: Ready,
    ready_at: Instant,
    // Field order is drop order: QEMU dies before the device it talks to.
    qemu: Ward,
    devices: Vec<Ward>,
}

/// Takes orders for QEMU while the machine runs.
#[derive(Debug, Clone)]
pub struct Orders {
    socket: PathBuf,
}

impl Orders {
    /// As [`Vm::qmp`].
    ///
    /// # Errors
    /// As [`Vm::qmp`].
    pub async fn execute(
        &self,
        command: &str,
        arguments: serde_json::Value,
    ) -> Result<serde_json::Value, VmError> {
        qmp::execute(&self.socket, command, arguments).await
    }
}

/// A machine whose processes run, and whose guest does not yet, or may not.
struct Started {
    console: Console,
    endpoint: Endpoint,
    files: RunFiles,
    powered_on: Instant,
    // Field order is drop order: QEMU dies before the device it talks to.
    qemu: Ward,
    devices: Vec<Ward>,
}

impl Started {
    /// Starts QEMU and the devices beside it. With `incoming` the machine waits for the state that is read from there.
    async fn start(config: &VmConfig, engine: Engine, incoming: Option<&Path>) -> Result<Self, VmError> {
        let binary = Qemu::of(config.machine.arch()).needed()?;
        let files = RunFiles::create(&config.run_dir)?;
        let nursery = Nursery::new()?;
        let mut devices = share::start(&nursery, &files.dir, &config.shares).await?;
        let vsock = if vsock::host_has_vhost_vsock() {
            VsockDevice::Vhost { cid: vsock::random_cid()? }
        } else {
            machine::check_savable(config)?;
            devices.push(start_vsock_device(&nursery, &files).await?);
            VsockDevice::VhostUser { socket: files.vhost_socket() }
        };
        let endpoint = match &vsock {
            VsockDevice::Vhost { cid } => Endpoint::Vsock { cid: *cid },
            VsockDevice::VhostUser { .. } => Endpoint::Hybrid { socket: files.vsock_socket() },
        };
        // To measure it takes a while, and only the kernel for x86 is told.
        let wants_tsc = engine == Engine::Tcg && config.machine.arch() == Arch::X86_64;
        let tsc_khz = if wants_tsc { tsc::host_khz() } else { None };
        let mut command = Command::new(binary);
        let mut config = Cow::Borrowed(config);
        if let Root::Initrd(packed) = &config.root
            && config.shortcuts
            && engine == Engine::Tcg
        {
            let unpacked = unpacked_initrd(packed);
            config.to_mut().root = Root::Initrd(unpacked);
        }
        command.args(machine::arguments(&config, engine, &vsock, tsc_khz, &files.dir, incoming));
        let powered_on = Instant::now();
        let (qemu, serial) =
            nursery.spawn_with_stdout(command, &files.qemu_log(), config.network.inherited())?;
        let console = Console::follow(serial, &files.dir)?;
        Ok(Self { console, endpoint, files, powered_on, qemu, devices })
    }

    /// Why QEMU has ended.
    async fn ended(&mut self, engine: Engine) -> VmError {
        VmError::Ended {
            engine: engine.name(),
            status: self.qemu.stop(STOP_GRACE).await,
            messages: fs::read_to_string(self.files.qemu_log()).unwrap_or_default(),
            console: self.console.tail(),
        }
    }

    fn running(self, config: VmConfig, engine: Engine, ready: Ready, ready_at: Instant) -> Vm {
        let Self { console, endpoint, files, powered_on, qemu, devices } = self;
        Vm {
            config,
            console,
            endpoint,
            dialled: tokio::sync::Mutex::new(0),
            engine,
            files,
            notes: Vec::new(),
            powered_on,
            ready,
            ready_at,
            qemu,
            devices,
        }
    }
}

impl Vm {
    /// Boots a guest and returns once its agent accepts calls.
    ///
    /// # Errors
    /// A missing tool or file, a QEMU that ends early, or no ready line before the deadline; the error carries the
    /// end of the guest's console.
    pub async fn boot(config: VmConfig) -> Result<Self, VmError> {
        let what = match config.root {
            Root::Initrd(_) => "initrd",
            Root::Disk { .. } => "root disk",
            Root::Unified { .. } => "firmware",
        };
        for (what, path) in [("kernel", config.kernel.as_path()), (what, config.root.path())] {
            fs::metadata(path)
                .map_err(|source| VmError::io("read", format!("the {what} {}", path.display()), source))?;
        }
        machine::check(&config)?;
        let patience = patience::wanted()?;
        let memory = Memory::of_this_host();
        let mut notes = Vec::new();
        let mut kvm_failure = None;
        for (engine, on_trial) in accel::candidates(config.accel, config.machine.arch(), &memory)? {
            let deadline = if on_trial { patience::TRIAL.min(config.deadline) } else { config.deadline };
            let deadline = deadline.saturating_mul(patience);
            match Self::boot_with(&config, engine, deadline).await {
                Ok(mut vm) => {
                    if on_trial {
                        notes.extend(memory.remember(true));
                    } else if let Some(failure) = kvm_failure.take() {
                        let took = vm.boot_timing().power_on_to_ready;
                        notes.extend(accel::conclude(&failure, took, &memory));
                    }
                    vm.notes.extend(notes);
                    return Ok(vm);
                }
                Err(error) if on_trial && error.is_of_the_guest() => kvm_failure = Some(error),
                Err(error) => return Err(error.with_memory(config.memory_mib)),
            }
        }
        Err(VmError::NoAccelerator)
    }

    async fn boot_with(config: &VmConfig, engine: Engine, deadline: Duration) -> Result<Self, VmError> {
        let mut config = config.clone();
        let mut tries = 0;
        let mut notes = Vec::new();
        loop {
            tries += 1;
            match Self::boot_once(&config, engine, deadline).await {
                Err(error) if tries < CID_TRIES && error.is_cid_in_use() => {}
                Err(error) if config.sandbox && error.is_of_the_sandbox() => {
                    config.sandbox = false;
                    notes.push(format!("QEMU runs without its sandbox: {}", error.headline()));
                }
                Ok(vm) => return Ok(Self { notes, ..vm }),
                Err(error) => return Err(error),
            }
        }
    }

    async fn boot_once(config: &VmConfig, engine: Engine, deadline: Duration) -> Result<Self, VmError> {
        let mut started = Started::start(config, engine, None).await?;
        let (ready, ready_at) = match started.console.wait_for_boot(deadline).await {
            Stage::Ready { ready, at } => (ready, at),
            Stage::Closed => return Err(started.ended(engine).await),
            Stage::Booting => {
                return Err(VmError::Deadline {
                    engine: engine.name(),
                    seconds: deadline.as_secs(),
                    console: started.console.tail(),
                });
            }
        };
        started.files.close_sockets();
        Ok(started.running(config.clone(), engine, ready, ready_at))
    }

    /// Opens a connection to a vsock port of the guest.
    ///
    /// # Errors
    /// [`DialError::Refused`] when nothing listens on the port, other errors when the device does not answer.
    pub async fn dial(&self, port: u32) -> Result<UnixStream, VmError> {
        Ok(self.dial_from(port).await?.0)
    }

    /// As [`Vm::dial`], with the port of the host from which the guest sees the connection come. It is right as long as
    /// nobody dials this guest by its [`Endpoint`]: `vhost-device-vsock` does not tell the port but counts its
    /// connections, so they are counted here too.
    ///
    /// # Errors
    /// As [`Vm::dial`].
    pub async fn dial_from(&self, port: u32) -> Result<(UnixStream, u32), VmError> {
        // One at a time: the device numbers connections in the order in which it hears of them.
        let mut dialled = self.dialled.lock().await;
        let number = *dialled;
        *dialled += 1;
        let (stream, told) = self.endpoint.dial_from(port).await?;
        Ok((stream, told.unwrap_or(number)))
    }

    /// Connects to the agent.
    ///
    /// # Errors
    /// As [`Vm::dial`].
    pub async fn client(&self) -> Result<AgentClient, VmError> {
        Ok(AgentClient::over(self.dial(AGENT_PORT).await?))
    }

    /// Where the guest's vsock is reached, for other processes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Everything the guest wrote to its serial console so far.
    pub fn console_log(&self) -> String {
        self.console.text()
    }

    /// When things happened during the boot.
    pub fn boot_timing(&self) -> BootTiming {
        BootTiming {
            power_on_to_ready: self.ready_at - self.powered_on,
            kernel_to_ready: Duration::from_millis(self.ready.kernel_ms),
            kernel_to_init: Duration::from_millis(self.ready.init_ms),
        }
    }

    /// What the ready line said.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Time since QEMU was started.
    pub fn since_power_on(&self) -> Duration {
        self.powered_on.elapsed()
    }

    /// The accelerator that is in use: `kvm` or `tcg`.
    pub fn accel(&self) -> &'static str {
        self.engine.name()
    }

    /// Things worth telling the user about how the guest was booted.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The process id of QEMU.
    pub fn pid(&self) -> u32 {
        self.qemu.pid()
    }

    /// Executes a QMP command, `Null` being no arguments, and gives what it returned.
    ///
    /// # Errors
    /// [`VmError::Qmp`] with QEMU's own words, and what stands between us and QEMU.
    pub async fn qmp(
        &self,
        command: &str,
        arguments: serde_json::Value,
    ) -> Result<serde_json::Value, VmError> {
        self.orders().execute(command, arguments).await
    }

    /// Orders for QEMU from tasks that do not hold this.
    pub fn orders(&self) -> Orders {
        Orders { socket: machine::qmp_socket(&self.files.dir) }
    }

    /// Waits until the machine is off: QEMU has ended. Returns whether that happened before the deadline. What the guest
    /// writes on its console is no sign of it, since a container may have written it.
    pub async fn wait_off(&self, deadline: Duration) -> bool {
        self.console.wait_for_end(deadline).await
    }

    /// Switches the machine off: SIGTERM, then SIGKILL, and removes the sockets and logs.
    ///
    /// # Errors
    /// Never at present; the processes are gone when it returns.
    pub async fn stop(mut self) -> Result<(), VmError> {
        self.qemu.stop(STOP_GRACE).await;
        for device in &mut self.devices {
            device.stop(STOP_GRACE).await;
        }
        self.files.remove();
        Ok(())
    }
}

/// Starts `vhost-device-vsock` and waits until it listens.
async fn start_vsock_device(nursery: &Nursery, files: &RunFiles) -> Result<Ward, VmError> {
    let binary = needed_tool("vhost-device-vsock", "PITH_VHOST_DEVICE_VSOCK", VSOCK_FIX)?;
    let mut command = Command::new(binary);
    // A buffer below 32 KiB is what keeps large guest packets from stalling (vhost-device-vsock 0.3).
    command.args(["--guest-cid", "3", "--tx-buffer-size", "28672", "--socket"]);
    command.arg(files.vhost_socket()).arg("--uds-path").arg(files.vsock_socket());
    let mut device = nursery.spawn(command, &files.device_log())?;
    if !device.listens(&files.vhost_socket()).await {
        let messages = fs::read_to_string(files.device_log()).unwrap_or_default();
        return Err(VmError::VsockDevice { messages: messages.trim().to_owned() });
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_add_up() {
        let timing = BootTiming {
            power_on_to_ready: Duration::from_millis(1500),
            kernel_to_ready: Duration::from_millis(900),
            kernel_to_init: Duration::from_millis(800),
        };
        assert_eq!(timing.power_on_to_kernel(), Duration::from_millis(600));
        assert_eq!(timing.power_on_to_init(), Duration::from_millis(1400));
    }

    #[tokio::test]
    async fn boot_names_a_missing_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let config = VmConfig::new("/nonexistent/vmlinux", "/nonexistent/initrd", dir.path());
        let error = Vm::boot(config).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/vmlinux"), "{error}");
    }
}
