//! Many disks, none, disks that vanish, odd names, and the same over and over.

use anyhow::Result;
use serde_json::json;
use tests::{Code, Guest, Inspector, Port, VOLUMES, expect_code, seen, storage};

use crate::{before, device, exchange, ext4, q35, user_of};

/// Kilobytes of the agent that are resident.
async fn resident(inspector: &Inspector) -> Result<u64> {
    Ok(inspector.sh("sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\) kB/\\1/p' /guest/proc/1/status").await?.parse()?)
}

#[tokio::test]
async fn a_hundred_containers_each_with_its_own_disk() -> Result<()> {
    const COUNT: usize = 100;
    let builder = Guest::builder().memory(1024).qemu(&["-device", "virtio-scsi-pci,id=scsi0,addr=0x14"]);
    let guest = q35(builder, &[]).await?;
    let (inspector, before) = before(&guest).await?;
    let directory = tempfile::tempdir()?;
    let mut containers = Vec::new();
    for number in 0..COUNT {
        let name = format!("own{number}");
        let disk = ext4(&directory.path().join(&name), 2)?;
        guest.add_drive(&name, &disk, false).await?;
        let place = json!({ "bus": "scsi0.0", "drive": name, "scsi-id": number / 32, "lun": number % 32 });
        guest.plug("scsi-hd", &name, place).await?;
        let address = format!("{}:{}", number / 32, number % 32);
        let container = user_of(&guest, &format!("c{number}"), storage("scsi", &address, "ext4", &[], &name))
            .run()
            .await?;
        container.sh(&format!("echo {number} > /vol/own")).await?;
        containers.push(container);
    }
    for (number, container) in containers.iter().enumerate() {
        assert_eq!(container.sh("cat /vol/own").await?, number.to_string());
    }
    for (number, container) in containers.iter().enumerate() {
        container.remove().await?;
        guest.unplug_disk(&format!("own{number}")).await?;
    }
    assert_eq!(inspector.settled(&before).await?, before);
    for number in [0, 31, 32, 99] {
        let own = crate::file_of(&directory.path().join(format!("own{number}")), "own")?;
        assert_eq!(own, format!("{number}\n"));
    }
    seen(
        "scsi",
        "100 containers, each with its own disk",
        "awkward::a_hundred_containers_each_with_its_own_disk",
    )
}

#[tokio::test]
async fn fifty_rounds_leave_nothing() -> Result<()> {
    let guest = q35(Guest::builder(), &[Port::ROOT]).await?;
    let inspector = guest.inspector().await?;
    let directory = tempfile::tempdir()?;
    let disk = ext4(&directory.path().join("disk"), 16)?;
    let round = async |number: usize| -> Result<()> {
        guest.plug_disk(&Port::ROOT, "hot", &disk, false).await?;
        let volume = storage("blk", Port::ROOT.path, "ext4", &[], "hot");
        let container = user_of(&guest, "c1", volume).run().await?;
        container.sh(&format!("echo {number} >> /vol/rounds")).await?;
        container.remove().await?;
        guest.unplug_disk("hot").await
    };
    for number in 0..5 {
        round(number).await?;
    }
    let (before, memory) = (inspector.snapshot().await?, resident(&inspector).await?);
    for number in 5..55 {
        round(number).await?;
    }
    assert_eq!(inspector.settled(&before).await?, before);
    let grown = resident(&inspector).await?.saturating_sub(memory);
    assert!(grown < 512, "the agent has grown by {grown} KiB");
    assert_eq!(crate::file_of(&disk, "rounds")?.lines().count(), 55);
    seen("blk", "50 rounds of plugging and unplugging without a leak", "awkward::fifty_rounds_leave_nothing")
}

#[tokio::test]
async fn disks_that_never_come() -> Result<()> {
    let builder = Guest::builder()
        .cmdline(&["agent.hotplug_timeout=1"])
        .qemu(&["-device", "virtio-scsi-pci,id=scsi0,addr=0x14"]);
    let guest = q35(builder, &[Port::ROOT]).await?;
    let (inspector, before) = before(&guest).await?;
    for (driver, source) in
        [("blk", Port::ROOT.path), ("mmioblk", "/dev/vdz"), ("scsi", "0:7"), ("nvdimm", "/dev/pmem0")]
    {
        let volume = user_of(&guest, "c1", storage(driver, source, "ext4", &[], "late"));
        let text = expect_code(volume.try_create().await.map(drop), Code::DEADLINE_EXCEEDED);
        assert!(text.contains(&format!("{VOLUMES}/late: no block device at")), "{text}");
        let (id, node) = if source.starts_with('/') { ("", source) } else { (source, "") };
        let wanted = device(driver, id, node, "/dev/late");
        let raw = guest.container("c1").request(|request| request.devices.push(wanted));
        expect_code(raw.try_create().await.map(drop), Code::DEADLINE_EXCEEDED);
        assert_eq!(inspector.settled(&before).await?, before, "{driver}");
    }
    // One that comes while it is awaited is in time.
    let directory = tempfile::tempdir()?;
    let disk = ext4(&directory.path().join("disk"), 16)?;
    let late = user_of(&guest, "c1", storage("blk", Port::ROOT.path, "ext4", &[], "late"));
    let creating = tokio::spawn(async move { late.run().await });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    guest.plug_disk(&Port::ROOT, "late", &disk, false).await?;
    exchange(&creating.await??).await?;
    seen("blk", "storage, plugged in while it is awaited", "awkward::disks_that_never_come")
}

#[tokio::test]
async fn a_disk_that_vanishes_under_a_mount() -> Result<()> {
    let guest = q35(Guest::builder(), &[Port::ROOT]).await?;
    let (inspector, before) = before(&guest).await?;
    let directory = tempfile::tempdir()?;
    let disk = ext4(&directory.path().join("disk"), 16)?;
    guest.plug_disk(&Port::ROOT, "hot", &disk, false).await?;
    let volume = || storage("blk", Port::ROOT.path, "ext4", &[], "hot");
    let container = user_of(&guest, "c1", volume()).run().await?;
    container.sh("dd if=/dev/zero of=/vol/big bs=1M count=4 2>/dev/null && sync").await?;
    guest.unplug_disk("hot").await?;
    inspector.sh("echo 3 > /proc/sys/vm/drop_caches; true").await?;
    let read = container
        .exec(["sh", "-c", "echo x > /vol/new && sync -f /vol/new && cat /vol/big > /dev/null"])
        .run()
        .await?;
    assert_ne!(read.status, 0, "nothing is there any more");
    assert_eq!(container.sh("echo still here").await?, "still here");
    container.remove().await?;
    assert_eq!(inspector.settled(&before).await?, before);
    // Another one in its place is another one.
    let next = ext4(&directory.path().join("next"), 16)?;
    guest.plug_disk(&Port::ROOT, "hot", &next, false).await?;
    let container = user_of(&guest, "c1", volume()).run().await?;
    exchange(&container).await?;
    assert_ne!(container.exec(["test", "-e", "/vol/big"]).run().await?.status, 0);
    seen("blk", "storage, unplugged under its mount", "awkward::a_disk_that_vanishes_under_a_mount")
}

#[tokio::test]
async fn names_with_spaces_and_letters_of_all_kinds() -> Result<()> {
    let guest = q35(Guest::builder(), &[Port::ROOT]).await?;
    let (inspector, before) = before(&guest).await?;
    let directory = tempfile::tempdir()?;
    let disk = ext4(&directory.path().join("disk"), 16)?;
    guest.plug_disk(&Port::ROOT, "hot", &disk, false).await?;
    for name in ["two words", "naïve ☕ Größe", "a,b:c=d", "back\\slash \"quote\"", "new\nline"] {
        let volume = storage("blk", Port::ROOT.path, "ext4", &[], name);
        let point = volume.mount_point.clone();
        let container = user_of(&guest, "c1", volume)
            .mount(&format!("/{name}/inner {name}"), "bind", &point, &["rbind", "rw"])
            .run()
            .await?;
        exchange(&container).await?;
        let found = container.exec(["cat", &format!("/{name}/inner {name}/greeting")]).run().await?;
        assert_eq!(found.success()?.trim(), "from the host", "{name}");
        container.remove().await?;
        assert_eq!(inspector.settled(&before).await?, before, "{name}");
    }
    seen("blk", "mount points with spaces and unicode", "awkward::names_with_spaces_and_letters_of_all_kinds")
}
