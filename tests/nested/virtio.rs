//! Virtio devices on PCI that are there at boot: legacy ones when QEMU is told to make such (profile `nested-legacy`), modern
//! ones else.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use anyhow::Result;
use machine::vm::AgentClient;
use protobuf::MessageField;
use protocols::agent::{Device, UpdateInterfaceRequest};
use tests::{Guest, Machine, link};

/// Each virtio device: its type, and whether its driver agreed on VIRTIO_F_VERSION_1 (virtio 1.1, section 6), which legacy
/// devices do not offer.
const LOOK: &str =
    "cd /sys/bus/virtio/devices; for d in *; do echo $(cat $d/device) $(cut -c33 $d/features); done";
/// Network card, disk, console, randomness, balloon, SCSI controller (section 5). The seventh, vsock, is never legacy.
const TYPES: [&str; 6] = ["0x0001", "0x0002", "0x0003", "0x0004", "0x0005", "0x0008"];

/// Greets the first who connects.
fn server() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        if let Ok((mut client, _)) = listener.accept() {
            drop(client.write_all(b"over the card\n"));
            drop(client.shutdown(std::net::Shutdown::Write));
            drop(client.read(&mut [0; 64]));
        }
    });
    Ok(port)
}

#[tokio::test]
async fn disks_cards_controllers_and_consoles_work_when_they_are_there_at_boot() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (unit, typed) = (directory.path().join("unit"), directory.path().join("typed"));
    std::fs::write(&unit, format!("{:<512}", "on the unit").repeat(2048))?;
    let drive = format!("if=none,id=unit,format=raw,file={}", unit.display());
    let chardev = format!("file,id=typed,path={}", typed.display());
    let guest = Guest::builder()
        .machine(Machine::Q35)
        .network()
        .qemu(&["-device", "virtio-scsi-pci,id=scsi0", "-drive", &drive])
        .qemu(&["-device", "scsi-hd,bus=scsi0.0,drive=unit", "-device", "virtio-serial-pci"])
        .qemu(&["-chardev", &chardev, "-device", "virtconsole,chardev=typed"])
        .qemu(&["-device", "virtio-rng-pci", "-device", "virtio-balloon-pci"])
        .boot()
        .await?;
    guest.sandbox().await?;
    // Its root is on the disk.
    let inspector = guest.inspector().await?;
    let devices = inspector.sh(LOOK).await?;
    println!("{devices}");
    let legacy = std::env::var_os("PITH_QEMU").is_some_and(|qemu| qemu.to_string_lossy().contains("legacy"));
    let agreed = if legacy { "0" } else { "1" };
    for kind in TYPES {
        assert!(devices.lines().any(|line| line == format!("{kind} {agreed}")), "{kind} in {devices}");
    }

    let update = UpdateInterfaceRequest { interface: MessageField::some(link()), ..Default::default() };
    guest.api().update_interface(AgentClient::call(), &update).await?;
    let heard = inspector.sh(&format!("nc 10.0.2.2 {} < /dev/null", server()?)).await?;
    assert_eq!(heard, "over the card");
    let numbers = "tr : ' ' < /sys/class/tty/hvc0/dev";
    inspector.sh(&format!("mknod /tmp/hvc0 c $({numbers}) && echo over the console > /tmp/hvc0")).await?;
    let text = std::fs::read_to_string(&typed)?;
    assert!(text.contains("over the console"), "{text:?}");
    let unit = Device {
        id: "0:0".into(),
        type_: "scsi".into(),
        container_path: "/dev/unit".into(),
        ..Default::default()
    };
    let container = guest.container("c1").request(|request| request.devices.push(unit)).run().await?;
    assert_eq!(container.sh("head -c 11 /dev/unit").await?, "on the unit");
    guest.destroy().await
}
