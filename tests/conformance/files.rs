//! Files and volumes: copies, statistics, resizing, stale shares, what a container left to be read.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use protocols::agent::*;
use protocols::csi::{VolumeStatsResponse, volume_usage::Unit};
use tests::Code;

use crate::case::{Case, cases};
use crate::world::World;

pub(crate) const CASES: &[Case] = cases! {
    Pod "CopyFile" Success a_file_comes_in_chunks_with_its_owner_and_mode;
    Pod "CopyFile" Success directories_and_links_are_copied;
    Pod "CopyFile" Failure no_copy_leaves_the_shared_directory;
    Pod "GetVolumeStats" Success a_volume_tells_how_full_it_is;
    Pod "GetVolumeStats" Failure a_volume_that_is_not_there_is_not_found;
    Disks "ResizeVolume" Success a_file_system_fills_its_disk;
    Pod "ResizeVolume" Failure what_is_no_volume_is_not_resized;
    Pod "RemoveStaleVirtiofsShareMounts" Success without_shares_nothing_is_stale;
    Pod "RemoveStaleVirtiofsShareMounts" Failure stale_shares_asked_for_with_garbage_are_refused;
    Pod "GetDiagnosticData" Success a_termination_log_is_read;
    Pod "GetDiagnosticData" Failure data_of_another_kind_are_refused;
};

/// The only place that copies may go to.
const SHARED: &str = "/run/kata-containers/shared/containers";

/// Disks of the guest that has some: two with swap, one whose file system is smaller than it.
pub(crate) fn disks() -> Result<Vec<PathBuf>> {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| tempfile::tempdir().expect("a directory for disks"));
    let path = |name: &str| directory.path().join(name);
    for name in ["swap-1", "swap-2"] {
        write_swap(&path(name)).with_context(|| format!("make {name}"))?;
    }
    let volume = path("volume");
    let made = Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(&volume).arg("8M").output();
    let made = made.context("run mke2fs (Debian: e2fsprogs)")?;
    ensure!(made.status.success(), "mke2fs: {}", String::from_utf8_lossy(&made.stderr));
    std::fs::File::options().write(true).open(&volume)?.set_len(32 << 20)?;
    Ok(vec![path("swap-1"), path("swap-2"), volume])
}

/// What mkswap writes (`union swap_header` in the kernel's include/linux/swap.h): version, last page, no bad pages.
fn write_swap(path: &std::path::Path) -> Result<()> {
    const PAGE: u64 = 4096;
    const PAGES: u32 = 1024;
    let mut file = std::fs::File::create(path)?;
    file.set_len(PAGE * u64::from(PAGES))?;
    file.seek(SeekFrom::Start(1024))?;
    for word in [1, PAGES - 1, 0] {
        file.write_all(&u32::to_le_bytes(word))?;
    }
    file.seek(SeekFrom::Start(PAGE - 10))?;
    file.write_all(b"SWAPSPACE2")?;
    Ok(())
}

fn copy(name: &str, mode: u32, size: i64, offset: i64, data: &[u8]) -> CopyFileRequest {
    CopyFileRequest {
        path: format!("{SHARED}/{name}"),
        file_size: size,
        file_mode: mode,
        dir_mode: 0o750,
        uid: 1000,
        gid: 2000,
        offset,
        data: data.to_vec(),
        ..Default::default()
    }
}

/// The shared directory as the inspector sees it.
async fn look(world: &World, script: &str) -> Result<String> {
    world.inspector().await?.sh(&format!("cd /guest{SHARED} && {script}")).await
}

async fn a_file_comes_in_chunks_with_its_owner_and_mode(world: &World) -> Result<()> {
    world.done("CopyFile", &copy("conf/a.conf", 0o100_640, 10, 0, b"first")).await?;
    world.done("CopyFile", &copy("conf/a.conf", 0o100_640, 10, 5, b" last")).await?;
    world.done("CopyFile", &copy("conf/empty", 0o100_600, 0, 0, b"")).await?;
    let text =
        look(world, "cat conf/a.conf; echo; stat -c '%a %u %g %s' conf/a.conf conf/empty conf").await?;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines[..3] == ["first last", "640 1000 2000 10", "600 1000 2000 0"], "{text}");
    ensure!(lines[3].starts_with("750 1000 2000"), "{text}");
    let left = look(world, "ls -A conf").await?;
    ensure!(left == "a.conf\nempty", "something else is there: {left}");
    Ok(())
}

async fn directories_and_links_are_copied(world: &World) -> Result<()> {
    world.done("CopyFile", &copy("tree/..2024", 0o040_755, 0, 0, b"")).await?;
    world.done("CopyFile", &copy("tree/..2024/key", 0o100_644, 5, 0, b"value")).await?;
    world.done("CopyFile", &copy("tree/..data", 0o120_777, 0, 0, b"..2024")).await?;
    ensure!(look(world, "readlink tree/..data; cat tree/..data/key").await? == "..2024\nvalue");
    // A link is replaced, as ConfigMaps do.
    world.done("CopyFile", &copy("tree/..data", 0o120_777, 0, 0, b"..2025")).await?;
    ensure!(look(world, "readlink tree/..data").await? == "..2025");
    Ok(())
}

async fn no_copy_leaves_the_shared_directory(world: &World) -> Result<()> {
    let before = world.inspector().await?.sh("ls -A /guest/run").await?;
    let escapes = ["../../../escaped", "x/../../../../escaped", "../containers-escaped"];
    for name in escapes {
        world.refused("CopyFile", &copy(name, 0o100_644, 1, 0, b"x"), Code::INVALID_ARGUMENT).await?;
    }
    for path in ["", "/run/escaped", "relative", "/run/kata-containers/shared/containers/"] {
        let request = CopyFileRequest { path: path.into(), ..copy("", 0o100_644, 1, 0, b"x") };
        world.refused("CopyFile", &request, Code::INVALID_ARGUMENT).await?;
    }
    // Nor through a link that was copied before.
    world.done("CopyFile", &copy("out", 0o120_777, 0, 0, b"/run")).await?;
    let through = copy("out/escaped", 0o100_644, 1, 0, b"x");
    world.refused("CopyFile", &through, Code::INVALID_ARGUMENT).await?;
    let negative = copy("negative", 0o100_644, 1, -1, b"x");
    world.refused("CopyFile", &negative, Code::INVALID_ARGUMENT).await?;
    ensure!(world.inspector().await?.sh("ls -A /guest/run").await? == before, "something is in /run");
    Ok(())
}

fn stats(path: &str) -> VolumeStatsRequest {
    VolumeStatsRequest { volume_guest_path: path.into(), ..Default::default() }
}

async fn a_volume_tells_how_full_it_is(world: &World) -> Result<()> {
    let stats: VolumeStatsResponse = world.ok("GetVolumeStats", &stats(crate::sandbox::SCRATCH)).await?;
    ensure!(stats.usage.len() == 2 && !stats.volume_condition.abnormal, "{stats:?}");
    for (usage, unit) in stats.usage.iter().zip([Unit::BYTES, Unit::INODES]) {
        ensure!(usage.unit.enum_value() == Ok(unit) && usage.total > 0, "{stats:?}");
        ensure!(usage.used <= usage.total && usage.available <= usage.total, "{stats:?}");
    }
    Ok(())
}

async fn a_volume_that_is_not_there_is_not_found(world: &World) -> Result<()> {
    world.refused("GetVolumeStats", &stats("/no/such/volume"), Code::NOT_FOUND).await?;
    world.refused("GetVolumeStats", &stats("relative"), Code::INVALID_ARGUMENT).await?;
    world.refused("GetVolumeStats", &stats(""), Code::INVALID_ARGUMENT).await?;
    Ok(())
}

fn resize(path: &str, size: u64) -> ResizeVolumeRequest {
    ResizeVolumeRequest { volume_guest_path: path.into(), size, ..Default::default() }
}

async fn a_file_system_fills_its_disk(world: &World) -> Result<()> {
    let volume = "/run/kata-containers/sandbox/volumes/grows";
    let disk = Storage {
        driver: "blk".into(),
        source: "/dev/vdd".into(),
        fstype: "ext4".into(),
        mount_point: volume.into(),
        ..Default::default()
    };
    let builder = world.container().request(|request| request.storages.push(disk));
    let container = builder.mount("/volume", "bind", volume, &["rbind", "rw"]).run().await?;
    let before: VolumeStatsResponse = world.ok("GetVolumeStats", &stats(volume)).await?;
    container.sh("echo kept > /volume/file").await?;
    world.done("ResizeVolume", &resize(volume, 32 << 20)).await?;
    let after: VolumeStatsResponse = world.ok("GetVolumeStats", &stats(volume)).await?;
    ensure!(after.usage[0].total > before.usage[0].total + (16 << 20), "{before:?} became {after:?}");
    ensure!(container.sh("cat /volume/file").await? == "kept");
    // It does not shrink, nor outgrow its disk.
    world.refused("ResizeVolume", &resize(volume, 16 << 20), Code::INVALID_ARGUMENT).await?;
    world.refused("ResizeVolume", &resize(volume, 64 << 20), Code::DEADLINE_EXCEEDED).await?;
    world.done("ResizeVolume", &resize(volume, 0)).await
}

async fn what_is_no_volume_is_not_resized(world: &World) -> Result<()> {
    world.refused("ResizeVolume", &resize("/no/such/volume", 1 << 20), Code::NOT_FOUND).await?;
    world.refused("ResizeVolume", &resize("relative", 1 << 20), Code::INVALID_ARGUMENT).await?;
    // A directory that is no mount, and a file system in memory.
    let directory = "/run/kata-containers";
    world.refused("ResizeVolume", &resize(directory, 1 << 20), Code::INVALID_ARGUMENT).await?;
    let memory = crate::sandbox::SCRATCH;
    world.refused("ResizeVolume", &resize(memory, 1 << 20), Code::UNIMPLEMENTED).await?;
    Ok(())
}

async fn without_shares_nothing_is_stale(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let request = RemoveStaleVirtiofsShareMountsRequest::new();
    world.done("RemoveStaleVirtiofsShareMounts", &request).await?;
    world.is_as_before(&before).await
}

async fn stale_shares_asked_for_with_garbage_are_refused(world: &World) -> Result<()> {
    world.garbage("RemoveStaleVirtiofsShareMounts").await.map(drop)
}

fn diagnose(kind: &str, id: &str) -> GetDiagnosticDataRequest {
    GetDiagnosticDataRequest { log_type: kind.into(), container_id: id.into(), ..Default::default() }
}

async fn a_termination_log_is_read(world: &World) -> Result<()> {
    world.done("CopyFile", &copy("termination-log", 0o100_666, 0, 0, b"")).await?;
    let source = format!("{SHARED}/termination-log");
    let builder = world.container().mount("/dev/termination-log", "bind", &source, &["rbind", "rw"]);
    let builder = builder.spec(|spec| {
        let path = "io.kubernetes.container.terminationMessagePath";
        drop(spec.Annotations.insert(path.into(), "/dev/termination-log".into()));
    });
    let container = builder.script("printf 'the reason' > /dev/termination-log").run().await?;
    container.wait().await?;
    let request = diagnose("termination_log", container.id());
    let response: GetDiagnosticDataResponse = world.ok("GetDiagnosticData", &request).await?;
    ensure!(response.data == "the reason", "{response:?}");
    // A container that has none has nothing to tell.
    let request = diagnose("termination_log", world.shared().await?.id());
    let response: GetDiagnosticDataResponse = world.ok("GetDiagnosticData", &request).await?;
    ensure!(response.data.is_empty(), "{response:?}");
    Ok(())
}

async fn data_of_another_kind_are_refused(world: &World) -> Result<()> {
    let id = world.shared().await?.id().to_owned();
    world.refused("GetDiagnosticData", &diagnose("core_dump", &id), Code::INVALID_ARGUMENT).await?;
    world.refused("GetDiagnosticData", &diagnose("", &id), Code::INVALID_ARGUMENT).await?;
    world.refused("GetDiagnosticData", &diagnose("termination_log", "nobody"), Code::NOT_FOUND).await?;
    Ok(())
}
