//! What shims attach to a guest: every storage driver and kind of device, on the real device, plugged in while the guest
//! runs wherever QEMU can do that.
//!
//! A test that saw its device work says so by `seen`; `make test` ends with the table of these.

#![allow(clippy::unwrap_used)]

mod awkward;
mod described;
mod disks;
mod folders;
mod formats;
mod growth;
mod layers;
mod legacy;
mod memory;
mod nics;
mod nodes;
mod passed_through;
mod watched;

use std::path::{Path, PathBuf};

use anyhow::Result;
use protocols::agent::{Device, Storage};
use tests::{
    Container, ContainerBuilder, Guest, GuestBuilder, Inspector, Machine, Port, Snapshot, host_tool, storage,
};

/// A device of a request.
fn device(kind: &str, id: &str, vm_path: &str, container_path: &str) -> Device {
    Device {
        id: id.into(),
        type_: kind.into(),
        vm_path: vm_path.into(),
        container_path: container_path.into(),
        ..Default::default()
    }
}

/// A q35 with places to plug into, and a sandbox.
async fn q35(builder: GuestBuilder, ports: &[Port]) -> Result<Guest> {
    let arguments: Vec<&str> = ports.iter().flat_map(|port| port.arguments.iter().copied()).collect();
    let guest = builder.machine(Machine::Q35).qemu(&arguments).boot().await?;
    guest.sandbox().await?;
    Ok(guest)
}

/// Somebody who looks at the guest, and what there is before a test adds to it. Directories above mount points, which
/// stay, are there.
async fn before(guest: &Guest) -> Result<(Inspector, Snapshot)> {
    let inspector = guest.inspector().await?;
    user_of(guest, "warm", storage("local", "local", "local", &[], "warm")).run().await?.remove().await?;
    let before = inspector.snapshot().await?;
    Ok((inspector, before))
}

/// A container with a storage of its own, bound at `/vol`.
fn user_of(guest: &Guest, id: &str, storage: Storage) -> ContainerBuilder {
    let point = storage.mount_point.clone();
    let builder = guest.container(id).request(|request| request.storages.push(storage));
    builder.mount("/vol", "bind", &point, &["rbind", "rw"])
}

/// An ext4 of some MiB with a greeting on it.
fn ext4(path: &Path, mib: u64) -> Result<PathBuf> {
    std::fs::File::create(path)?.set_len(mib << 20)?;
    let source = tempfile::tempdir()?;
    std::fs::write(source.path().join("greeting"), "from the host\n")?;
    let (source, disk) = (source.path().display().to_string(), path.display().to_string());
    host_tool("mkfs.ext4", &["-q", "-F", "-b", "4096", "-d", &source, &disk])?;
    Ok(path.to_owned())
}

/// What is in a file of an ext4 that no guest has mounted.
fn file_of(disk: &Path, name: &str) -> Result<String> {
    let disk = disk.display().to_string();
    host_tool("e2fsck", &["-f", "-p", &disk])?;
    host_tool("debugfs", &["-R", &format!("cat {name}"), &disk])
}

/// Reads the greeting of a volume at `/vol` and leaves an answer there.
async fn exchange(container: &Container) -> Result<()> {
    assert_eq!(container.sh("cat /vol/greeting").await?, "from the host");
    container.sh("echo from the guest > /vol/answer && sync").await?;
    Ok(())
}
