//! PCI devices of the host that a container drives itself, and those that the guest's kernel drives for it.

use anyhow::Result;
use protocols::agent::Device;
use protocols::oci;
use serde_json::json;
use tests::{Code, Guest, Port, expect_code, seen};

use crate::{device, q35};

const HOST: &str = "0000:3b:02.0";
const GUEST: &str = "0000:01:00.0";

fn passed(kind: &str, option: &str) -> Device {
    Device { options: vec![option.to_owned()], ..device(kind, "group", "", "/dev/vfio/17") }
}

async fn plug_card(guest: &Guest) -> Result<()> {
    guest.vm().qmp("netdev_add", json!({ "type": "user", "id": "n1" })).await?;
    guest.plug_into(&Port::ROOT, "virtio-net-pci", "card", json!({ "netdev": "n1" })).await
}

#[tokio::test]
async fn a_program_in_a_container_drives_a_device() -> Result<()> {
    // Interrupts are remapped, without which the guest's kernel hands out no device. KVM leaves that to QEMU only if asked.
    let builder = Guest::builder().program("/probe", "probe")?.cmdline(&["intel_iommu=on"]).qemu(&[
        "-machine",
        "kernel-irqchip=split",
        "-device",
        "intel-iommu",
    ]);
    let guest = q35(builder, &[Port::ROOT]).await?;
    let inspector = guest.inspector().await?;
    plug_card(&guest).await?;
    let wanted = passed("vfio-pci", &format!("{HOST}={}", Port::ROOT.path));
    let container = guest
        .container("c1")
        .request(|request| request.devices.push(wanted))
        .mount("/probe", "bind", "/probe", &["bind", "ro"])
        .process(|process| process.Env.push(format!("PCIDEVICE_ACME_NIC={HOST}")))
        .linux(|linux| {
            linux.Devices.push(oci::LinuxDevice {
                Path: "/dev/vfio/17".into(),
                Type: "c".into(),
                Major: 243,
                Minor: 0,
                FileMode: 0o600,
                ..Default::default()
            });
        })
        .run()
        .await?;
    let driver = format!("basename $(readlink /sys/bus/pci/devices/{GUEST}/driver)");
    assert_eq!(inspector.sh(&driver).await?, "vfio-pci");
    let group =
        inspector.sh(&format!("basename $(readlink /sys/bus/pci/devices/{GUEST}/iommu_group)")).await?;
    assert_eq!(container.sh("echo $(ls /dev/vfio)").await?, format!("{group} vfio"));
    let exec = container.exec(["sh", "-c", "echo $PCIDEVICE_ACME_NIC"]);
    let told = exec.process(|process| process.Env.push(format!("PCIDEVICE_ACME_NIC={HOST}"))).run().await?;
    assert_eq!(told.success()?.trim(), GUEST, "in an exec, too");
    assert_eq!(
        container.sh("tr '\\0' '\\n' </proc/1/environ | grep PCIDEVICE").await?,
        format!("PCIDEVICE_ACME_NIC={GUEST}")
    );
    let report = container.sh(&format!("/probe --vfio {group}:{GUEST}")).await?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    assert_eq!(
        report["tried"][format!("vfio {group}:{GUEST}")],
        "vendor 1af4, written true",
        "{}",
        report["tried"]
    );
    // Another container has no way to it.
    let other = guest.container("c2").run().await?;
    let denied =
        other.exec(["sh", "-c", &format!("mknod /tmp/g c 511 0; head -c 1 /dev/vfio/{group}")]).run().await?;
    assert_ne!(denied.status, 0);
    container.remove().await?;
    assert_eq!(inspector.sh(&driver).await?, "virtio-pci", "given back");
    guest.unplug("card").await?;
    seen(
        "vfio-pci",
        "device, hot-plugged into a PCIe root port",
        "passed_through::a_program_in_a_container_drives_a_device",
    )
}

#[tokio::test]
async fn the_guests_kernel_keeps_a_device() -> Result<()> {
    let guest = q35(Guest::builder(), &[Port::ROOT]).await?;
    plug_card(&guest).await?;
    let wanted = passed("vfio-pci-gk", &format!("{HOST}={}", Port::ROOT.path));
    let container = guest
        .container("c1")
        .request(|request| request.devices.push(wanted))
        .process(|process| {
            process.Env.push(format!(r#"PCIDEVICE_ACME_NIC_INFO={{"{HOST}":{{"deviceID":"{HOST}"}}}}"#));
        })
        .run()
        .await?;
    let told = container.sh("tr '\\0' '\\n' </proc/1/environ | grep PCIDEVICE").await?;
    assert_eq!(told, format!(r#"PCIDEVICE_ACME_NIC_INFO={{"{GUEST}":{{"deviceID":"{GUEST}"}}}}"#));
    assert_eq!(container.sh(&format!("ls /sys/bus/pci/devices/{GUEST}/virtio*/net")).await?, "eth0");
    seen(
        "vfio-pci-gk",
        "device, hot-plugged into a PCIe root port",
        "passed_through::the_guests_kernel_keeps_a_device",
    )
}

#[tokio::test]
async fn without_an_iommu_nothing_is_taken() -> Result<()> {
    let guest = q35(Guest::builder(), &[Port::ROOT]).await?;
    let inspector = guest.inspector().await?;
    let before = inspector.snapshot().await?;
    plug_card(&guest).await?;
    let create = async |option: &str| {
        let builder =
            guest.container("c1").request(|request| request.devices.push(passed("vfio-pci", option)));
        builder.try_create().await.map(drop)
    };
    let refused = create(&format!("{HOST}={}", Port::ROOT.path)).await;
    let text = expect_code(refused, Code::UNIMPLEMENTED);
    assert!(text.contains("intel_iommu=on") && text.contains(GUEST), "{text}");
    expect_code(create("0000:3b:02.0").await, Code::INVALID_ARGUMENT);
    expect_code(create(&format!("{HOST}=1f/00")).await, Code::DEADLINE_EXCEEDED);
    let driver = format!("basename $(readlink /sys/bus/pci/devices/{GUEST}/driver)");
    assert_eq!(inspector.sh(&driver).await?, "virtio-pci");
    assert_eq!(inspector.settled(&before).await?, before);
    Ok(())
}
