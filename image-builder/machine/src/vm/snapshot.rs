//! A machine on a file: saved by QEMU's migration, and continued from there, as often as wanted and several times at once.
//!
//! ```text
//!  save:     unplug vsock* ─ stop ─ migrate to the file ─ quit
//!  restore:  QEMU with -incoming ─ plug vsock* ─ cont ─ wait for the guest's vsock driver*
//! ```
//!
//! `*` where vsock is `vhost-device-vsock`: QEMU refuses to save a machine with such a device (its vmstate is
//! `unmigratable`, 7.2 to 10). For the guest it is the same as the reset of the kernel's device after a restore: all
//! connections end with ECONNRESET, listeners stay (`virtio_vsock_reset_sock` is called for both, Linux 6.12).
//!
//! Promises that the file is whole when [`Vm::save`] returns, and that no copy changes it. Disks must be read-only, since
//! copies share them; shares and networks of the host are not saved.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::accel::Engine;
use super::console::{Ready, Stage};
use super::transfer::write_command;
use super::{AGENT_PORT, DialError, Started, Vm, VmConfig, VmError, machine, vsock};

/// How long QEMU may take to write or to read a machine.
const TRANSFER: Duration = Duration::from_secs(300);
/// How long the guest may take to let go of a device, or to find one.
const PLUGGED: Duration = Duration::from_secs(60);
/// The device hears of the first memory it was lent within this time.
const KICKED: Duration = Duration::from_millis(100);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(10);
/// QEMU's own limit is 128 MiB a second, for the sake of machines that run meanwhile. Bytes a second.
const BANDWIDTH: u64 = 16 << 30;

/// A machine on a file.
#[derive(Debug, Clone)]
pub struct Snapshot {
    config: VmConfig,
    engine: Engine,
    ready: Ready,
    file: PathBuf,
}

impl Vm {
    /// Stops the machine, writes it to a file and ends QEMU. Connections to the guest end.
    ///
    /// # Errors
    /// A machine that was not booted as [`VmConfig::savable`], QEMU's refusal, and a file that cannot be written.
    pub async fn save(self, file: &Path) -> Result<Snapshot, VmError> {
        if !self.config.savable {
            return Err(VmError::Config("the machine was not booted to be saved".to_owned()));
        }
        if !vsock::host_has_vhost_vsock() {
            self.qmp("device_del", json!({ "id": machine::VSOCK })).await?;
            self.until("take out the vsock device of", PLUGGED, async || {
                let devices = self.qmp("qom-list", json!({ "path": "/machine/peripheral" })).await?;
                let mut names = devices.as_array().into_iter().flatten();
                Ok(!names.any(|device| device["name"] == machine::VSOCK))
            })
            .await?;
        }
        self.qmp("stop", Value::Null).await?;
        self.qmp("migrate-set-parameters", json!({ "max-bandwidth": BANDWIDTH })).await?;
        self.qmp("migrate", json!({ "uri": write_command(file) })).await?;
        self.until("save", TRANSFER, async || {
            let progress = self.qmp("query-migrate", Value::Null).await?;
            match progress["status"].as_str() {
                // The file gets its name when all of it is there.
                Some("completed") => Ok(file.exists()),
                Some("failed" | "cancelled") => {
                    let messages = progress["error-desc"].as_str().unwrap_or("no reason given").to_owned();
                    Err(VmError::Qmp { command: "migrate".to_owned(), messages })
                }
                _ => Ok(false),
            }
        })
        .await?;
        let snapshot = Snapshot {
            config: self.config.clone(),
            engine: self.engine,
            ready: self.ready.clone(),
            file: file.to_owned(),
        };
        self.stop().await?;
        Ok(snapshot)
    }

    /// Whether the guest's driver has taken the vsock device and lent it memory to receive into: the index of the available
    /// ring of its first queue counts that (virtio 1.2, section 2.7.6).
    async fn vsock_receives(&self) -> Result<bool, VmError> {
        let device = format!("/machine/peripheral/{}/virtio-backend", machine::VSOCK);
        let status = self.qmp("x-query-virtio-status", json!({ "path": device })).await?;
        if !status["status"]["statuses"].to_string().contains("DRIVER_OK") {
            return Ok(false);
        }
        // Not by x-query-virtio-queue-status: that asks the device for the queue's state (VHOST_USER_GET_VRING_BASE), which
        // stops the queue.
        let queue =
            self.qmp("x-query-virtio-vhost-queue-status", json!({ "path": device, "queue": 0 })).await?;
        let Some(ring) = queue["avail-phys"].as_u64().filter(|ring| *ring != 0) else { return Ok(false) };
        let command = format!("xp /1hx {:#x}", ring + 2);
        let read = self.qmp("human-monitor-command", json!({ "command-line": command })).await?;
        let index = read.as_str().and_then(|text| text.trim().rsplit_once("0x")).map(|(_, digits)| digits);
        Ok(index.is_some_and(|digits| u16::from_str_radix(digits, 16).is_ok_and(|index| index > 0)))
    }

    /// Asks again and again until the answer is yes.
    async fn until(
        &self,
        operation: &'static str,
        at_most: Duration,
        mut is_done: impl AsyncFnMut() -> Result<bool, VmError>,
    ) -> Result<(), VmError> {
        let start = Instant::now();
        while !is_done().await? {
            if start.elapsed() > at_most {
                let late = std::io::ErrorKind::TimedOut.into();
                return Err(VmError::io(operation, "the machine", late));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

impl Snapshot {
    /// Continues the machine, with its files in a run directory of its own. The guest runs when this returns, and its
    /// agent can be dialled.
    ///
    /// # Errors
    /// A missing tool or file, and a QEMU that does not take the state, with its words.
    pub async fn restore(&self, run_dir: &Path) -> Result<Vm, VmError> {
        let config = VmConfig { run_dir: run_dir.to_owned(), ..self.config.clone() };
        let started = Started::start(&config, self.engine, Some(&self.file)).await?;
        let mut vm = started.running(config, self.engine, self.ready.clone(), Instant::now());
        self.wait_for_state(&mut vm).await?;
        let is_plugged = !vsock::host_has_vhost_vsock();
        if is_plugged {
            vm.qmp("device_add", machine::vsock_to_plug()).await?;
        }
        vm.qmp("cont", Value::Null).await?;
        vm.ready_at = Instant::now();
        if is_plugged {
            // Whoever dials before the driver can receive finds a device that never answers again.
            vm.until("reach vsock in", PLUGGED, async || vm.vsock_receives().await).await?;
            tokio::time::sleep(KICKED).await;
        }
        // The first connection may come before the agent has seen the new device.
        vm.until("reach the agent of", PLUGGED, async || match vm.dial(AGENT_PORT).await {
            Ok(_connection) => Ok(true),
            Err(VmError::Dial(DialError::Refused { .. })) => Ok(false),
            Err(error) => Err(error),
        })
        .await?;
        vm.files.close_sockets();
        Ok(vm)
    }

    /// Where the machine lies.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Waits until QEMU has read all of it.
    async fn wait_for_state(&self, vm: &mut Vm) -> Result<(), VmError> {
        let start = Instant::now();
        loop {
            if let Stage::Closed = vm.console.wait_for_boot(POLL).await {
                return Err(VmError::Ended {
                    engine: self.engine.name(),
                    status: vm.qemu.stop(super::STOP_GRACE).await,
                    messages: std::fs::read_to_string(vm.files.qemu_log()).unwrap_or_default(),
                    console: vm.console.tail(),
                });
            }
            match vm.qmp("query-status", Value::Null).await {
                Ok(status) if status["status"] != "inmigrate" => return Ok(()),
                Ok(_) => {}
                // It does not take orders yet.
                Err(VmError::Io { .. }) if start.elapsed() < TRANSFER => {}
                Err(error) => return Err(error),
            }
            if start.elapsed() > TRANSFER {
                return Err(VmError::io("read", self.file.display(), std::io::ErrorKind::TimedOut.into()));
            }
        }
    }
}
