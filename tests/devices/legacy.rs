//! Devices as they were before virtio 1.0: Kata's QEMU shims make every device so (`disable-modern=on`) on a host that is
//! itself a VM. vsock and virtio-fs never had that form, and stay as they are.

use anyhow::Result;
use serde_json::json;
use tests::{Guest, Port, seen, storage};

use crate::{disks, exchange, ext4, file_of, q35, user_of};

const LEGACY: &str = "disable-modern=on";
const TEST: &str = "legacy::";

#[tokio::test]
async fn a_network_card_reaches_the_host() -> Result<()> {
    let builder = Guest::builder().cmdline(&["agent.hotplug_timeout=30"]);
    crate::nics::plugged(builder, Port::BRIDGE, json!({ "disable-modern": "on" })).await?;
    let how = "hot-plugged into a PCI bridge, legacy only, reaches the host";
    seen("NIC", how, &format!("{TEST}a_network_card_reaches_the_host"))
}

#[tokio::test]
async fn a_disk_comes_through_a_bridge() -> Result<()> {
    let guest = q35(Guest::builder(), &[Port::BRIDGE]).await?;
    disks::round_with(&guest, &Port::BRIDGE, json!({ "disable-modern": "on" })).await?;
    let how = "storage, hot-plugged into a PCI bridge, legacy only";
    seen("blk", how, &format!("{TEST}a_disk_comes_through_a_bridge"))
}

#[tokio::test]
async fn a_unit_of_a_controller_that_was_there() -> Result<()> {
    let controller = format!("virtio-scsi-pci,id=scsi0,addr=0x14,{LEGACY}");
    let guest = q35(Guest::builder().qemu(&["-device", &controller]), &[]).await?;
    let directory = tempfile::tempdir()?;
    let disk = ext4(&directory.path().join("disk"), 16)?;
    guest.add_drive("unit", &disk, false).await?;
    let place = json!({ "bus": "scsi0.0", "drive": "unit", "scsi-id": 0, "lun": 1 });
    guest.plug("scsi-hd", "unit", place).await?;
    let container = user_of(&guest, "c1", storage("scsi", "0:1", "ext4", &[], "unit")).run().await?;
    exchange(&container).await?;
    container.remove().await?;
    guest.unplug_disk("unit").await?;
    assert_eq!(file_of(&disk, "answer")?, "from the guest\n");
    let how = "storage, hot-plugged unit of a controller that is legacy only";
    seen("scsi", how, &format!("{TEST}a_unit_of_a_controller_that_was_there"))
}

/// What else a shim's machine has, each without its modern half: every one finds its driver, and the console writes.
#[tokio::test]
async fn the_other_devices_of_a_shims_machine_find_their_drivers() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("hvc0");
    let console = format!("file,id=hvc,path={}", log.display());
    let export = format!("local,id=share,path={},security_model=none", directory.path().display());
    let serial = format!("virtio-serial-pci,id=serial0,{LEGACY}");
    let (rng, balloon) = (format!("virtio-rng-pci,{LEGACY}"), format!("virtio-balloon-pci,{LEGACY}"));
    let ninep = format!("virtio-9p-pci,fsdev=share,mount_tag=shared,{LEGACY}");
    let devices = ["-chardev", &console, "-device", &serial, "-device", "virtconsole,chardev=hvc"];
    let more = ["-device", &rng, "-device", &balloon, "-fsdev", &export, "-device", &ninep];
    let guest = q35(Guest::builder().qemu(&devices).qemu(&more), &[]).await?;
    let container = guest.container("c1").privileged().run().await?;
    let looked = "for device in /sys/bus/pci/devices/*; do \
        [ $(cat $device/vendor) = 0x1af4 ] || continue; \
        for virtio in $device/virtio*; do \
            driver=$(basename $(readlink $virtio/driver || echo /NONE)); \
            modern=$(cut -c33 $virtio/features); \
            echo $driver $modern; \
        done; done";
    let found = container.sh(looked).await?;
    // Feature bit 32 is VIRTIO_F_VERSION_1.
    for legacy in ["virtio_console", "virtio_rng", "virtio_balloon", "9pnet_virtio"] {
        assert!(found.lines().any(|line| line == format!("{legacy} 0")), "no legacy {legacy} in\n{found}");
    }
    assert!(!found.contains("NONE"), "{found}");
    container.sh("mknod /dev/hvc0 c 229 0 && echo said on the console > /dev/hvc0").await?;
    guest.destroy().await?;
    let written = std::fs::read_to_string(&log)?;
    assert!(written.contains("said on the console"), "{written}");
    let how = "console, random numbers, balloon and 9p, there at boot, legacy only";
    seen("virtio", how, &format!("{TEST}the_other_devices_of_a_shims_machine_find_their_drivers"))
}
