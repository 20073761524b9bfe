//! Disks: `blk`, `mmioblk`, `scsi` and `nvdimm`, as file systems and as devices of a container.

use std::path::Path;

use anyhow::Result;
use products::format::dax::{self, PREFIX};
use protocols::oci;
use serde_json::{Value, json};
use tests::{Guest, Port, VOLUMES, seen, storage};

use crate::{before, device, exchange, ext4, file_of, q35, user_of};

/// Has QEMU leave the ports to their own controllers.
const NATIVE: [&str; 2] = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"];
/// A native port waits five seconds for somebody to press its button again.
const PATIENCE: &str = "agent.hotplug_timeout=30";

/// Plugs an ext4 into a port, has a container read and write it, takes both away and looks at the disk.
async fn round(guest: &Guest, port: &Port) -> Result<()> {
    round_with(guest, port, json!({})).await
}

/// The same with a disk that has further properties.
pub(crate) async fn round_with(guest: &Guest, port: &Port, properties: Value) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = ext4(&directory.path().join("disk"), 16)?;
    let (inspector, before) = before(guest).await?;
    guest.plug_disk_with(port, "hot", &disk, false, properties).await?;
    let container = user_of(guest, "c1", storage("blk", port.path, "ext4", &[], "hot")).run().await?;
    exchange(&container).await?;
    container.remove().await?;
    assert_eq!(inspector.settled(&before).await?, before);
    guest.unplug_disk("hot").await?;
    assert_eq!(inspector.sh("ls /sys/block").await?.lines().filter(|name| name.starts_with("vd")).count(), 1);
    assert_eq!(file_of(&disk, "answer")?, "from the guest\n");
    Ok(())
}

#[tokio::test]
async fn a_disk_comes_through_a_root_port() -> Result<()> {
    let guest = q35(Guest::builder(), &[Port::ROOT]).await?;
    round(&guest, &Port::ROOT).await?;
    seen(
        "blk",
        "storage, hot-plugged into a PCIe root port (ACPI)",
        "disks::a_disk_comes_through_a_root_port",
    )
}

#[tokio::test]
async fn a_disk_comes_through_a_root_port_without_acpi() -> Result<()> {
    let guest = q35(Guest::builder().qemu(&NATIVE).cmdline(&[PATIENCE]), &[Port::ROOT]).await?;
    round(&guest, &Port::ROOT).await?;
    let test = "disks::a_disk_comes_through_a_root_port_without_acpi";
    seen("blk", "storage, hot-plugged into a PCIe root port (native)", test)
}

#[tokio::test]
async fn a_disk_comes_through_a_bridge() -> Result<()> {
    let guest = q35(Guest::builder(), &[Port::BRIDGE]).await?;
    round(&guest, &Port::BRIDGE).await?;
    seen("blk", "storage, hot-plugged into a PCI bridge (ACPI)", "disks::a_disk_comes_through_a_bridge")
}

#[tokio::test]
async fn a_disk_comes_through_a_bridge_without_acpi() -> Result<()> {
    let guest = q35(Guest::builder().qemu(&NATIVE).cmdline(&[PATIENCE]), &[Port::STANDARD_BRIDGE]).await?;
    round(&guest, &Port::STANDARD_BRIDGE).await?;
    let test = "disks::a_disk_comes_through_a_bridge_without_acpi";
    seen("blk", "storage, hot-plugged into a PCI bridge (SHPC)", test)
}

#[tokio::test]
async fn a_disk_comes_through_a_second_root_complex() -> Result<()> {
    let guest = q35(Guest::builder().cmdline(&[PATIENCE]), &[Port::EXPANDER]).await?;
    let directory = tempfile::tempdir()?;
    let disk = ext4(&directory.path().join("disk"), 16)?;
    guest.plug_disk(&Port::EXPANDER, "hot", &disk, false).await?;
    let container =
        user_of(&guest, "c1", storage("blk", Port::EXPANDER.path, "ext4", &[], "hot")).run().await?;
    exchange(&container).await?;
    let test = "disks::a_disk_comes_through_a_second_root_complex";
    seen("blk", "storage, hot-plugged behind a PCI expander bridge", test)
}

#[tokio::test]
async fn a_disk_of_a_microvm_is_named_by_its_node() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = ext4(&directory.path().join("disk"), 16)?;
    let guest = Guest::builder().disk(&disk).boot().await?;
    guest.sandbox().await?;
    let container = user_of(&guest, "c1", storage("mmioblk", "/dev/vdb", "ext4", &[], "cold")).run().await?;
    exchange(&container).await?;
    container.remove().await?;
    guest.destroy().await?;
    drop(guest);
    assert_eq!(file_of(&disk, "answer")?, "from the guest\n");
    let how = "storage, there at boot (virtio-mmio has no hot-plug)";
    seen("mmioblk", how, "disks::a_disk_of_a_microvm_is_named_by_its_node")
}

#[tokio::test]
async fn a_unit_of_a_scsi_controller() -> Result<()> {
    let guest = q35(Guest::builder().qemu(&["-device", "virtio-scsi-pci,id=scsi0,addr=0x14"]), &[]).await?;
    let directory = tempfile::tempdir()?;
    let inspector = guest.inspector().await?;
    let plug = async |name: &str, target: u32, lun: u32| -> Result<std::path::PathBuf> {
        let disk = ext4(&directory.path().join(name), 16)?;
        guest.add_drive(name, &disk, false).await?;
        let place = json!({ "bus": "scsi0.0", "drive": name, "scsi-id": target, "lun": lun });
        guest.plug("scsi-hd", name, place).await?;
        Ok(disk)
    };
    let first = plug("first", 0, 1).await?;
    plug("other", 0, 11).await?;
    let third = plug("third", 3, 0).await?;
    // By address, whatever the kernel names them.
    let volume = user_of(&guest, "c1", storage("scsi", "0:1", "ext4", &[], "first")).run().await?;
    exchange(&volume).await?;
    volume.remove().await?;
    let raw = guest
        .container("c2")
        .request(|request| request.devices.push(device("scsi", "3:0", "", "/dev/third")))
        .run()
        .await?;
    let superblock =
        raw.sh("dd if=/dev/third bs=1 skip=1080 count=2 2>/dev/null | hexdump -e '2/1 \"%02x\"'").await?;
    assert_eq!(superblock, "53ef", "the magic of ext4");
    raw.sh("echo raw | dd of=/dev/third bs=1 conv=notrunc,fsync 2>/dev/null").await?;
    raw.remove().await?;
    for name in ["first", "other", "third"] {
        guest.unplug_disk(name).await?;
    }
    assert_eq!(inspector.sh("ls /sys/block | grep -c sd; true").await?, "0");
    assert_eq!(file_of(&first, "answer")?, "from the guest\n");
    assert!(std::fs::read(&third)?.starts_with(b"raw\n"));
    seen(
        "scsi",
        "storage, unit hot-plugged into a virtio-scsi controller",
        "disks::a_unit_of_a_scsi_controller",
    )?;
    seen(
        "scsi",
        "device, unit hot-plugged into a virtio-scsi controller",
        "disks::a_unit_of_a_scsi_controller",
    )
}

/// An ext4 behind the block that lets the guest map its files, of some MiB in all.
fn mappable(path: &Path, mib: u64) -> Result<()> {
    let disk = path.with_extension("disk");
    ext4(&disk, mib - 2)?;
    let mut bytes = dax::prefix((mib - 2) << 20);
    bytes.extend(std::fs::read(disk)?);
    Ok(std::fs::write(path, bytes)?)
}

#[tokio::test]
async fn persistent_memory_is_mounted_for_direct_access() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (cold, hot) = (directory.path().join("cold"), directory.path().join("hot"));
    mappable(&cold, 64)?;
    mappable(&hot, 128)?;
    let backend = format!("memory-backend-file,id=cold,share=on,size=64M,mem-path={}", cold.display());
    let builder = Guest::builder().growth(0, 2048).qemu(&[
        "-machine",
        "nvdimm=on",
        "-object",
        &backend,
        "-device",
        "nvdimm,id=nv0,memdev=cold",
    ]);
    let guest = q35(builder, &[]).await?;
    let container =
        user_of(&guest, "c1", storage("nvdimm", "/dev/pmem0", "ext4", &["dax"], "cold")).run().await?;
    exchange(&container).await?;
    let options = container.sh("grep ' /vol ' /proc/mounts").await?;
    assert!(options.contains("dax"), "{options}");
    container.remove().await?;

    let backend = json!({
        "qom-type": "memory-backend-file", "id": "hot", "share": true, "size": 128 << 20, "mem-path": hot,
    });
    guest.vm().qmp("object-add", backend).await?;
    guest.plug("nvdimm", "nv1", json!({ "memdev": "hot" })).await?;
    let second =
        user_of(&guest, "c2", storage("nvdimm", "/dev/pmem1", "ext4", &["dax"], "hot")).run().await?;
    exchange(&second).await?;
    second.remove().await?;
    let raw = guest
        .container("c3")
        .request(|request| request.devices.push(device("nvdimm", "", "/dev/pmem0", "/dev/memory")))
        .run()
        .await?;
    let magic =
        raw.sh("dd if=/dev/memory bs=1 skip=1080 count=2 2>/dev/null | hexdump -e '2/1 \"%02x\"'").await?;
    assert_eq!(magic, "53ef");
    guest.destroy().await?;
    drop(guest);
    for memory in [cold, hot] {
        let disk = directory.path().join("disk");
        std::fs::write(&disk, &std::fs::read(memory)?[PREFIX..])?;
        assert_eq!(file_of(&disk, "answer")?, "from the guest\n");
    }
    let test = "disks::persistent_memory_is_mounted_for_direct_access";
    seen("nvdimm", "storage with DAX, there at boot", test)?;
    seen("nvdimm", "storage with DAX, hot-plugged", test)?;
    seen("nvdimm", "device", test)
}

#[tokio::test]
async fn a_hot_plugged_disk_as_a_device_with_the_hosts_numbers() -> Result<()> {
    let guest = q35(Guest::builder(), &[Port::ROOT, Port::SECOND]).await?;
    let directory = tempfile::tempdir()?;
    let mut requests = Vec::new();
    for (port, name) in [(Port::ROOT, "one"), (Port::SECOND, "two")] {
        let disk = directory.path().join(name);
        std::fs::write(&disk, format!("{name:<512}").repeat(2048))?;
        guest.plug_disk(&port, name, &disk, false).await?;
        requests.push(device("blk", port.path, "", &format!("/dev/{name}")));
    }
    let node = |path: &str, minor: i64| oci::LinuxDevice {
        Path: path.into(),
        Type: "b".into(),
        // What the other one has in the guest, as virtio disks are numbered there.
        Major: 254,
        Minor: minor,
        FileMode: 0o660,
        ..Default::default()
    };
    let container = guest
        .container("c1")
        .request(|request| request.devices = requests)
        .linux(|linux| linux.Devices.extend([node("/dev/one", 32), node("/dev/two", 16)]))
        .run()
        .await?;
    assert_eq!(container.sh("head -c 3 /dev/one; head -c 3 /dev/two").await?, "onetwo");
    container.sh("echo new | dd of=/dev/two conv=notrunc,fsync 2>/dev/null").await?;
    assert!(std::fs::read(directory.path().join("two"))?.starts_with(b"new\n"));
    let test = "disks::a_hot_plugged_disk_as_a_device_with_the_hosts_numbers";
    seen("blk", "device, hot-plugged into a PCIe root port", test)
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_mounted_read_only() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = ext4(&directory.path().join("disk"), 16)?;
    let guest = q35(Guest::builder(), &[Port::ROOT]).await?;
    guest.plug_disk(&Port::ROOT, "hot", &disk, true).await?;
    let writable = storage("blk", Port::ROOT.path, "ext4", &[], "hot");
    let refused = tests::expect_code(
        user_of(&guest, "c1", writable).try_create().await.map(drop),
        tests::Code::INVALID_ARGUMENT,
    );
    assert!(refused.contains(VOLUMES), "{refused}");
    // Without a journal to replay, as a shim asks for such disks.
    let readonly = storage("blk", Port::ROOT.path, "ext4", &["ro", "noload"], "hot");
    let container = user_of(&guest, "c1", readonly).run().await?;
    assert_eq!(container.sh("cat /vol/greeting").await?, "from the host");
    let written = container.exec(["touch", "/vol/x"]).run().await?;
    assert!(String::from_utf8_lossy(&written.stderr).contains("Read-only"), "{written:?}");
    seen("blk", "storage, read-only disk", "disks::a_disk_that_cannot_be_written_is_mounted_read_only")
}
