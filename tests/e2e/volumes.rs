//! Volumes: how full they are, and how they grow while containers use them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use machine::vm::AgentClient;
use protocols::agent::{ResizeVolumeRequest, VolumeStatsRequest};
use protocols::csi::{VolumeUsage, volume_usage::Unit};
use serde_json::json;
use tempfile::TempDir;
use tests::{Code, Container, Guest, VOLUMES, expect_code, host_tool, storage};

const MIB: u64 = 1 << 20;

/// A disk of some MiB with a smaller file system on it.
pub(crate) fn disk(
    directory: &TempDir,
    kind: &str,
    args: &[&str],
    size: u64,
    file_system: u64,
) -> Result<PathBuf> {
    let path = directory.path().join(format!("{kind}{}.raw", args.concat()));
    std::fs::File::create(&path)?.set_len(size * MIB)?;
    let (name, size) = (path.display().to_string(), format!("{file_system}M"));
    host_tool(&format!("mkfs.{kind}"), &[&["-q", "-F"], args, &[&name, &size]].concat())?;
    Ok(path)
}

/// Blocks of an ext4 that nobody has mounted, after a full check of it; in bytes.
fn checked_size(disk: &Path) -> Result<u64> {
    let disk = disk.display().to_string();
    host_tool("e2fsck", &["-f", "-n", &disk])?;
    let text = host_tool("dumpe2fs", &["-h", &disk])?;
    let field = |name: &str| -> Result<u64> {
        let value = text.lines().find_map(|line| line.strip_prefix(name)).context("a field of dumpe2fs")?;
        Ok(value.trim().parse()?)
    };
    Ok(field("Block count:")? * field("Block size:")?)
}

/// A container that has a volume at `/vol`.
async fn user_of(guest: &Guest, id: &str, name: &str) -> Result<Container> {
    let builder = guest.container(id).mount("/vol", "bind", &format!("{VOLUMES}/{name}"), &["rbind", "rw"]);
    builder.run().await
}

async fn resize(guest: &Guest, path: &str, size: u64) -> ttrpc::Result<()> {
    let request = ResizeVolumeRequest { volume_guest_path: path.into(), size, ..Default::default() };
    guest.api().resize_volume(AgentClient::call(), &request).await.map(drop)
}

/// Bytes and inodes.
async fn stats(guest: &Guest, path: &str) -> ttrpc::Result<(VolumeUsage, VolumeUsage)> {
    let request = VolumeStatsRequest { volume_guest_path: path.into(), ..Default::default() };
    let mut answer = guest.api().get_volume_stats(AgentClient::call(), &request).await?;
    assert_eq!(answer.usage.len(), 2, "{answer:?}");
    assert!(!answer.volume_condition.abnormal && answer.volume_condition.message == "OK", "{answer:?}");
    let (inodes, bytes) = (answer.usage.remove(1), answer.usage.remove(0));
    assert_eq!((bytes.unit, inodes.unit), (Unit::BYTES.into(), Unit::INODES.into()));
    Ok((bytes, inodes))
}

#[tokio::test]
async fn a_volume_tells_what_a_container_put_into_it() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox_with(vec![storage("ephemeral", "tmpfs", "tmpfs", &["size=4m"], "v")]).await?;
    let path = format!("{VOLUMES}/v");
    let container = user_of(&guest, "c1", "v").await?;
    let (bytes, inodes) = stats(&guest, &path).await?;
    assert_eq!((bytes.total, bytes.used, bytes.available), (4 * MIB, 0, 4 * MIB));
    assert_eq!(inodes.total, inodes.used + inodes.available);
    container.sh("dd if=/dev/zero of=/vol/a bs=1M count=1 2>/dev/null; touch /vol/b").await?;
    let (filled, more) = stats(&guest, &path).await?;
    assert_eq!((filled.total, filled.used, filled.available), (4 * MIB, MIB, 3 * MIB));
    assert_eq!((more.used, more.available), (inodes.used + 2, inodes.available - 2));
    Ok(())
}

#[tokio::test]
async fn a_volume_grows_while_a_container_writes_to_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = disk(&directory, "ext4", &[], 48, 16)?;
    let guest = Guest::builder().disk(&disk).cmdline(&["agent.hotplug_timeout=1"]).boot().await?;
    guest.sandbox_with(vec![storage("blk", "/dev/vdb", "ext4", &[], "v")]).await?;
    let path = format!("{VOLUMES}/v");
    let container = user_of(&guest, "c1", "v").await?;
    // As much as goes into it: the end comes after 16 MiB, and not again after it has grown.
    let fill = container
        .exec([
            "sh",
            "-c",
            "cd /vol; for n in 0 1 2 3 4 5 6 7 8 9 a b; do dd if=/dev/urandom of=$n bs=1M count=2 || exit 1; done",
        ])
        .run()
        .await?;
    assert!(fill.status != 0 && String::from_utf8_lossy(&fill.stderr).contains("No space left"), "{fill:?}");
    container.sh("cd /vol; rm 5; head -c 1048576 /dev/urandom >kept; sync; sha256sum kept 0 1 >sums").await?;
    let (small, _) = stats(&guest, &path).await?;

    let writer = container
        .exec(["sh", "-c", "cd /vol; while :; do date >now; sync; mv now then; done"])
        .start()
        .await?;
    resize(&guest, &path, 32 * MIB).await?;
    let (larger, _) = stats(&guest, &path).await?;
    assert!(larger.total > small.total + 14 * MIB && larger.total < 32 * MIB, "{small} to {larger}");
    // What is so already stays so, and what would be smaller is refused.
    resize(&guest, &path, 32 * MIB).await?;
    for less in [16 * MIB, 1] {
        let text = expect_code(resize(&guest, &path, less).await, Code::INVALID_ARGUMENT);
        assert!(text.contains("shrink") && text.contains(&path), "{text}");
    }
    let text = expect_code(resize(&guest, &path, 64 * MIB).await, Code::DEADLINE_EXCEEDED);
    assert!(
        text.contains(&format!("{} bytes", 48 * MIB)) && text.contains(&(64 * MIB).to_string()),
        "{text}"
    );
    expect_code(resize(&guest, &path, u64::MAX).await, Code::DEADLINE_EXCEEDED);
    let (same, _) = stats(&guest, &path).await?;
    assert_eq!(same.total, larger.total);
    resize(&guest, &path, 0).await?;
    let (largest, _) = stats(&guest, &path).await?;
    assert!(largest.total > larger.total + 14 * MIB && largest.total < 48 * MIB, "{larger} to {largest}");

    container.signal(writer.exec_id(), 9).await?;
    container.sh("cd /vol; head -c 20971520 /dev/urandom >large && sha256sum -c sums").await?;
    guest.destroy().await?;
    assert_eq!(checked_size(&disk)?, 48 * MIB);
    Ok(())
}

#[tokio::test]
async fn a_volume_follows_the_disk_that_the_host_grows() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = disk(&directory, "ext4", &[], 16, 16)?;
    let guest = Guest::builder().disk(&disk).cmdline(&["agent.hotplug_timeout=60"]).boot().await?;
    guest.sandbox_with(vec![storage("blk", "/dev/vdb", "ext4", &[], "v")]).await?;
    let path = format!("{VOLUMES}/v");
    let container = user_of(&guest, "c1", "v").await?;
    container.sh("echo kept >/vol/file").await?;
    // The request may come before the guest has learnt of its disk's new size.
    let grow_disk = async {
        let arguments = json!({ "device": "disk1", "size": 40 * MIB });
        guest.vm().qmp("block_resize", arguments).await.context("grow the disk")
    };
    let (resized, grown) = tokio::join!(resize(&guest, &path, 40 * MIB), grow_disk);
    grown?;
    resized?;
    let (bytes, _) = stats(&guest, &path).await?;
    assert!(bytes.total > 32 * MIB, "{bytes}");
    assert_eq!(
        container.sh("cat /vol/file; head -c 20971520 /dev/zero >/vol/large && echo more").await?,
        "kept\nmore"
    );
    guest.destroy().await?;
    assert_eq!(checked_size(&disk)?, 40 * MIB);
    Ok(())
}

#[tokio::test]
async fn every_kind_of_ext_grows_or_says_why_not() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let kinds: [(&str, &[&str]); 4] =
        [("ext2", &[]), ("ext3", &[]), ("ext4", &["-b", "4096"]), ("ext4", &["-O", "^has_journal"])];
    let mut builder = Guest::builder();
    let (mut disks, mut storages) = (Vec::new(), Vec::new());
    for (letter, (kind, args)) in ('b'..).zip(kinds) {
        let disk = disk(&directory, kind, args, 32, 16)?;
        builder = builder.disk(&disk);
        disks.push(disk);
        storages.push(storage("blk", &format!("/dev/vd{letter}"), kind, &[], &letter.to_string()));
    }
    let guest = builder.boot().await?;
    guest.sandbox_with(storages.clone()).await?;
    for storage in &storages {
        // The odd bytes are no whole block.
        resize(&guest, &storage.mount_point, 24 * MIB + 511).await.with_context(|| storage.to_string())?;
        let (bytes, _) = stats(&guest, &storage.mount_point).await?;
        assert!(bytes.total > 16 * MIB && bytes.total < 24 * MIB, "{storage}: {bytes}");
    }
    guest.destroy().await?;
    for disk in disks {
        assert_eq!(checked_size(&disk)?, 24 * MIB, "{}", disk.display());
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_resized_or_asked_about_stays_as_it_is() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = disk(&directory, "ext4", &[], 32, 16)?;
    let guest = Guest::builder().disk(&disk).boot().await?;
    let storages = vec![
        storage("blk", "/dev/vdb", "ext4", &["ro"], "readonly"),
        storage("blk", "/dev/vda", "erofs", &["ro"], "image"),
        storage("ephemeral", "tmpfs", "tmpfs", &["size=4m"], "memory"),
    ];
    guest.sandbox_with(storages).await?;
    let container = user_of(&guest, "c1", "memory").await?;
    container.sh("cd /vol; mkdir directory; echo 1 >file; ln -s ../readonly link; ln -s / root; ln -s loop loop; mkfifo pipe").await?;

    let volume = |name: &str| format!("{VOLUMES}/{name}");
    let (before, _) = stats(&guest, &volume("readonly")).await?;
    let text = expect_code(resize(&guest, &volume("readonly"), 0).await, Code::FAILED_PRECONDITION);
    assert!(text.contains("Read-only file system"), "{text}");
    for other in ["image", "memory"] {
        let text = expect_code(resize(&guest, &volume(other), 0).await, Code::UNIMPLEMENTED);
        assert!(text.contains("not ext4"), "{text}");
    }
    expect_code(resize(&guest, "/run/kata-containers/c1/rootfs", 0).await, Code::UNIMPLEMENTED);
    for inside in ["memory/directory", "memory/file", "memory/pipe", "readonly/lost+found"] {
        expect_code(resize(&guest, &volume(inside), 0).await, Code::INVALID_ARGUMENT);
        stats(&guest, &volume(inside)).await.with_context(|| inside.to_owned())?;
    }
    // Neither answer is about another volume because a container wants it so.
    for link in ["memory/link", "memory/root", "memory/link/lost+found", "memory/root/run", "memory/loop"] {
        let text = expect_code(resize(&guest, &volume(link), 0).await, Code::INVALID_ARGUMENT);
        assert!(text.contains("symbolic link"), "{text}");
        expect_code(stats(&guest, &volume(link)).await, Code::INVALID_ARGUMENT);
    }
    let long = format!("{VOLUMES}/{}", "n".repeat(300));
    for bad in ["", ".", "relative", "run/kata-containers", "/run\0", &long, "/proc/version/x"] {
        expect_code(resize(&guest, bad, 0).await, Code::INVALID_ARGUMENT);
        expect_code(stats(&guest, bad).await, Code::INVALID_ARGUMENT);
    }
    for missing in ["/no/such/volume", &volume("none")] {
        expect_code(resize(&guest, missing, 0).await, Code::NOT_FOUND);
        expect_code(stats(&guest, missing).await, Code::NOT_FOUND);
    }
    let (after, _) = stats(&guest, &volume("readonly")).await?;
    assert_eq!(after.total, before.total);
    Ok(())
}
