//! Devices that a container is given: host numbers in the request, the guest's in the container.

use anyhow::Result;
use protocols::agent::Device;
use protocols::oci;
use tests::{Code, ContainerBuilder, Guest, Machine, expect_code, seen};

fn disk(directory: &tempfile::TempDir, text: &str) -> Result<std::path::PathBuf> {
    let path = directory.path().join("data.raw");
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(1 << 20, 0);
    std::fs::write(&path, bytes)?;
    Ok(path)
}

fn device(kind: &str, id: &str, vm_path: &str) -> Device {
    Device {
        id: id.into(),
        type_: kind.into(),
        vm_path: vm_path.into(),
        container_path: "/dev/data".into(),
        ..Default::default()
    }
}

/// With a node as the host has it: `/dev/sdb` there, under the container's name for it.
fn given(builder: ContainerBuilder, device: Device) -> ContainerBuilder {
    builder.request(|request| request.devices.push(device)).linux(|linux| {
        linux.Devices.push(oci::LinuxDevice {
            Path: "/dev/data".into(),
            Type: "b".into(),
            Major: 8,
            Minor: 16,
            FileMode: 0o660,
            ..Default::default()
        });
    })
}

#[tokio::test]
async fn a_disk_on_virtio_mmio_is_read_and_written() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = disk(&directory, "from the host\n")?;
    let guest = Guest::builder().disk(&path).boot().await?;
    guest.sandbox().await?;
    let container = given(guest.container("c1"), device("mmioblk", "", "/dev/vdb")).run().await?;
    assert_eq!(container.sh("head -n 1 /dev/data").await?, "from the host");
    container.sh("echo from the guest | dd of=/dev/data conv=notrunc,fsync 2>/dev/null").await?;
    assert!(std::fs::read(&path)?.starts_with(b"from the guest\n"));
    let numbers = container.sh("stat -c '%t %T %a' /dev/data; cat /sys/block/vdb/dev").await?;
    let (node, guests) = numbers.split_once('\n').expect("two lines");
    let (major, minor) = guests.split_once(':').expect("major:minor");
    let hex = |number: &str| number.parse::<u32>().map(|number| format!("{number:x}"));
    assert_eq!(node, format!("{} {} 660", hex(major)?, hex(minor)?));
    // It is this container's alone.
    let other = guest.container("c2").run().await?;
    let denied = other
        .exec(["sh", "-c", &format!("mknod /tmp/b b {major} {minor} && head -c 1 /tmp/b")])
        .run()
        .await?;
    assert_ne!(denied.status, 0);
    seen("mmioblk", "device, there at boot", "nodes::a_disk_on_virtio_mmio_is_read_and_written")
}

#[tokio::test]
async fn a_disk_is_found_by_its_pci_path() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = disk(&directory, "behind a slot\n")?;
    let guest = Guest::builder().machine(Machine::Q35).disk(&path).boot().await?;
    guest.sandbox().await?;
    let inspector = guest.container("look").run().await?;
    let slot = inspector.pci_slot("vdb").await?;
    let container = given(guest.container("c1"), device("blk", &slot, "/dev/sdb")).run().await?;
    assert_eq!(container.sh("head -n 1 /dev/data").await?, "behind a slot");
    // Without a node in the spec one is made.
    let bare =
        guest.container("c2").request(|request| request.devices.push(device("blk", &slot, ""))).run().await?;
    assert_eq!(bare.sh("head -n 1 /dev/data").await?, "behind a slot");
    seen("blk", "device, there at boot", "nodes::a_disk_is_found_by_its_pci_path")
}

#[tokio::test]
async fn devices_that_are_not_there_or_not_known_leave_nothing() -> Result<()> {
    let guest = Guest::builder().cmdline(&["agent.hotplug_timeout=1"]).boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let before = inspector.snapshot().await?;
    let refused = async |device: Device, code: Code| {
        let created = given(guest.container("c1"), device).try_create().await;
        expect_code(created.map(drop), code)
    };
    let late = refused(device("mmioblk", "", "/dev/vdz"), Code::DEADLINE_EXCEEDED).await;
    assert!(late.contains("/dev/vdz"), "{late}");
    refused(device("blk", "1f/02", ""), Code::DEADLINE_EXCEEDED).await;
    refused(device("mmioblk", "", "/dev/null"), Code::DEADLINE_EXCEEDED).await;
    refused(device("blk", "nonsense", ""), Code::INVALID_ARGUMENT).await;
    refused(device("", "", "/dev/vdb"), Code::INVALID_ARGUMENT).await;
    refused(device("mmioblk", "", ""), Code::INVALID_ARGUMENT).await;
    let unknown = refused(device("vfio-ap", "02", ""), Code::UNIMPLEMENTED).await;
    assert!(unknown.contains("vfio-ap") && unknown.contains("mmioblk"), "{unknown}");
    assert_eq!(inspector.settled(&before).await?, before);
    guest.container("c1").run().await?;
    Ok(())
}
