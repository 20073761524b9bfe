//! A guest that says nothing: on a machine without the console that its command line names.
//!
//! Nothing tells when it is ready. So QEMU is asked whether the guest's driver has taken the vsock device
//! (`vhost-device-vsock` must not be asked for a connection before), and from then on the agent is dialled until it answers.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use machine::vm::{AGENT_PORT, AgentClient, Endpoint, find_tool};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::guest::product;

/// How long the guest may take until its agent answers.
const BOOT: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);
/// Where QEMU has the vsock device.
const VSOCK: &str = "/machine/peripheral/vsock0/virtio-backend";

/// A running q35 of which nothing is seen.
pub struct Silent {
    qemu: Child,
    device: Child,
    endpoint: Endpoint,
    directory: TempDir,
}

impl Silent {
    /// Boots the `kata` kernel and the minimal flavour with these words as the whole command line, and waits until the agent
    /// answers.
    ///
    /// # Errors
    /// When a tool or a product is missing, or the agent does not answer; QEMU's end is in the text.
    pub async fn boot(words: &str) -> Result<(Silent, AgentClient)> {
        let silent = Silent::start(words)?;
        let client = tokio::time::timeout(BOOT, silent.answered()).await;
        client.context("nothing is heard of the guest")??;
        let client = AgentClient::over(silent.endpoint.dial(AGENT_PORT).await?);
        Ok((silent, client))
    }

    fn start(words: &str) -> Result<Silent> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let device = start_device(&at("vhost.sock"), &at("vsock.sock"))?;
        let mut qemu = tied("qemu-system-x86_64", "PITH_QEMU")?;
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-m", "256M"]);
        // Emulated on the emulated host of `make nested`, it would not be up in time. Elsewhere a /dev/kvm may open and boot nothing.
        let is_nested = std::env::var_os("PITH_TEST_ACCEL").is_some_and(|accel| accel == "kvm");
        let (accel, cpu) = if is_nested { ("kvm", "host") } else { ("tcg", "max,-erms,-fsrm") };
        qemu.args(["-machine", "q35,memory-backend=mem", "-accel", accel, "-cpu", cpu]);
        qemu.args(["-object", "memory-backend-memfd,id=mem,size=256M,share=on"]);
        qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", at("qmp.sock").display()));
        qemu.arg("-chardev").arg(format!("socket,id=vsock,path={}", at("vhost.sock").display()));
        qemu.args(["-device", "vhost-user-vsock-pci,id=vsock0,chardev=vsock", "-append", words]);
        qemu.arg("-kernel").arg(product("vmlinux")?).arg("-initrd").arg(product("initrd.img")?);
        let qemu = qemu.stdin(Stdio::null()).spawn().context("start QEMU")?;
        let endpoint = Endpoint::Hybrid { socket: at("vsock.sock") };
        Ok(Silent { qemu, device, endpoint, directory })
    }

    /// Returns once the agent takes connections.
    async fn answered(&self) -> Result<()> {
        loop {
            if self.driver_is_up().await? {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        // The driver is up long before the agent listens, and a moment before it can receive.
        loop {
            tokio::time::sleep(PAUSE).await;
            if self.endpoint.dial(AGENT_PORT).await.is_ok() {
                return Ok(());
            }
        }
    }

    async fn driver_is_up(&self) -> Result<bool> {
        let Ok(stream) = UnixStream::connect(self.directory.path().join("qmp.sock")).await else {
            return Ok(false);
        };
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        for order in [
            json!({ "execute": "qmp_capabilities" }),
            json!({ "execute": "x-query-virtio-status", "arguments": { "path": VSOCK } }),
        ] {
            write.write_all(format!("{order}\n").as_bytes()).await?;
        }
        let mut answers = 0;
        while let Some(line) = lines.next_line().await? {
            let line: Value = serde_json::from_str(&line)?;
            if let Some(error) = line.get("error") {
                bail!("QEMU does not tell: {error}");
            }
            answers += usize::from(line.get("return").is_some());
            if answers == 2 {
                return Ok(line["return"]["status"].to_string().contains("DRIVER_OK"));
            }
        }
        bail!("QEMU has ended")
    }

    /// Waits until QEMU has ended.
    ///
    /// # Errors
    /// When it has not, in that time.
    pub async fn ended(&mut self, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        while self.qemu.try_wait()?.is_none() {
            if Instant::now() > until {
                bail!("the machine stays on");
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        for child in [&mut self.qemu, &mut self.device] {
            // It may have ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn start_device(vhost: &Path, vsock: &Path) -> Result<Child> {
    let mut device = tied("vhost-device-vsock", "PITH_VHOST_DEVICE_VSOCK")?;
    device.args(["--guest-cid", "3", "--tx-buffer-size", "28672", "--socket"]).arg(vhost);
    let mut child = device.arg("--uds-path").arg(vsock).spawn().context("start vhost-device-vsock")?;
    let until = Instant::now() + Duration::from_secs(20);
    while !vhost.exists() {
        if Instant::now() > until || child.try_wait()?.is_some() {
            bail!("vhost-device-vsock does not listen");
        }
        std::thread::sleep(PAUSE / 10);
    }
    Ok(child)
}

/// A program that does not outlive this one, found as image-builder finds it.
fn tied(program: &str, variable: &str) -> Result<Command> {
    let program =
        find_tool(program, variable).with_context(|| format!("{program} is missing: run `make setup`"))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    Ok(command)
}
