//! Devices that come and go while a guest runs, by QMP, and the host's tools that make them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::Guest;

/// How long QEMU and the guest may take to let go of a device.
const UNPLUGGED: Duration = Duration::from_secs(300);

/// A place of a q35 that a device can be plugged into.
pub struct Port {
    /// Name of its bus, for `device_add`.
    pub bus: &'static str,
    /// What QEMU needs for it.
    pub arguments: &'static [&'static str],
    /// The PCI path of the device in it, as a shim would say it.
    pub path: &'static str,
    /// The address on that bus, where it has more than one.
    pub address: Option<&'static str>,
}

impl Port {
    /// A PCIe root port; QEMU plugs into it by ACPI.
    pub const ROOT: Port = Port {
        bus: "rp",
        arguments: &["-device", "pcie-root-port,id=rp,chassis=1,addr=0x10"],
        path: "10/00",
        address: None,
    };
    /// A second one.
    pub const SECOND: Port = Port {
        bus: "rp2",
        arguments: &["-device", "pcie-root-port,id=rp2,chassis=2,addr=0x11"],
        path: "11/00",
        address: None,
    };
    /// A conventional bridge with a standard hot-plug controller, as shims have one.
    pub const BRIDGE: Port = Port {
        bus: "br",
        arguments: &["-device", "pci-bridge,id=br,chassis_nr=3,addr=0x12"],
        path: "12/05",
        address: Some("0x5"),
    };
    /// The same with its own controller, for machines whose firmware does not take part.
    pub const STANDARD_BRIDGE: Port = Port {
        bus: "sbr",
        arguments: &["-device", "pci-bridge,id=sbr,chassis_nr=5,addr=0x12,shpc=on"],
        path: "12/06",
        address: Some("0x6"),
    };
    /// A root port of a second root complex.
    pub const EXPANDER: Port = Port {
        bus: "xrp",
        arguments: &[
            "-device",
            "pxb-pcie,id=pxb,bus_nr=32,addr=0x13",
            "-device",
            "pcie-root-port,id=xrp,bus=pxb,chassis=4,addr=0x0",
        ],
        path: "20/00/00",
        address: None,
    };
}

impl Guest {
    /// Makes a file of the host a drive that devices can have.
    ///
    /// # Errors
    /// QEMU's refusal.
    pub async fn add_drive(&self, name: &str, file: &Path, readonly: bool) -> Result<()> {
        let arguments = json!({
            "driver": "raw", "node-name": name, "read-only": readonly,
            "file": { "driver": "file", "filename": file, "read-only": readonly },
        });
        self.vm().qmp("blockdev-add", arguments).await.map(drop).with_context(|| format!("add drive {name}"))
    }

    /// Takes a drive away that no device has.
    ///
    /// # Errors
    /// QEMU's refusal.
    pub async fn remove_drive(&self, name: &str) -> Result<()> {
        let removed = self.vm().qmp("blockdev-del", json!({ "node-name": name })).await;
        removed.map(drop).with_context(|| format!("remove drive {name}"))
    }

    /// Plugs a device in. The guest may not have seen it yet.
    ///
    /// # Errors
    /// QEMU's refusal.
    pub async fn plug(&self, driver: &str, id: &str, mut properties: Value) -> Result<()> {
        properties["driver"] = driver.into();
        properties["id"] = id.into();
        self.vm().qmp("device_add", properties).await.map(drop).with_context(|| format!("plug {driver} in"))
    }

    /// Plugs a device into a port.
    ///
    /// # Errors
    /// QEMU's refusal.
    pub async fn plug_into(&self, port: &Port, driver: &str, id: &str, mut properties: Value) -> Result<()> {
        properties["bus"] = port.bus.into();
        if let Some(address) = port.address {
            properties["addr"] = address.into();
        }
        self.plug(driver, id, properties).await
    }

    /// Plugs a virtio disk into a port.
    ///
    /// # Errors
    /// QEMU's refusal.
    pub async fn plug_disk(&self, port: &Port, id: &str, file: &Path, readonly: bool) -> Result<()> {
        self.plug_disk_with(port, id, file, readonly, json!({})).await
    }

    /// Plugs a virtio disk with further properties into a port.
    ///
    /// # Errors
    /// QEMU's refusal.
    pub async fn plug_disk_with(
        &self,
        port: &Port,
        id: &str,
        file: &Path,
        readonly: bool,
        mut properties: Value,
    ) -> Result<()> {
        self.add_drive(id, file, readonly).await?;
        properties["drive"] = id.into();
        self.plug_into(port, "virtio-blk-pci", id, properties).await
    }

    /// Takes a device out, and waits until the guest has let go of it.
    ///
    /// # Errors
    /// QEMU's refusal, or a guest that holds on to it.
    pub async fn unplug(&self, id: &str) -> Result<()> {
        self.vm().qmp("device_del", json!({ "id": id })).await.with_context(|| format!("unplug {id}"))?;
        let gone = async {
            while self.is_plugged(id).await? {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        let late = || format!("the guest does not let go of {id}");
        tokio::time::timeout(UNPLUGGED, gone).await.with_context(late)?
    }

    async fn is_plugged(&self, id: &str) -> Result<bool> {
        let devices = self.vm().qmp("qom-list", json!({ "path": "/machine/peripheral" })).await?;
        let mut names = devices.as_array().into_iter().flatten();
        Ok(names.any(|device| device["name"] == *id))
    }

    /// Takes a virtio disk and its drive out.
    ///
    /// # Errors
    /// As [`Guest::unplug`].
    pub async fn unplug_disk(&self, id: &str) -> Result<()> {
        self.unplug(id).await?;
        // QEMU lets go of the drive a moment after it has let go of the device.
        let mut removed = self.remove_drive(id).await;
        for _ in 0..50 {
            if removed.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            removed = self.remove_drive(id).await;
        }
        removed
    }
}

/// Runs a tool of the host's, which users may not have on their PATH, and gives its standard output.
///
/// # Errors
/// When it is missing or fails.
pub fn host_tool(name: &str, arguments: &[&str]) -> Result<String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(name).env("PATH", path).args(arguments).output();
    let output = output.with_context(|| format!("run {name}: `make setup` installs it"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{name} {}: {}{text}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// Notes for the table at the end of `make test` that a test saw a kind of storage or device work.
///
/// # Errors
/// When the note cannot be written.
pub fn seen(kind: &str, how: &str, test: &str) -> Result<()> {
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../out/devices"));
    std::fs::create_dir_all(&directory).context("make a directory for the table of devices")?;
    ensure!(!kind.contains('\t') && !how.contains('\t'), "columns are separated by tabs");
    let name: String =
        format!("{kind} {how}").chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    std::fs::write(directory.join(name), format!("{kind}\t{how}\t{test}\n")).context("note a device")
}
