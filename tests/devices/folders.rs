//! Directories of the host: `virtio-fs` and `9p`.

use anyhow::Result;
use tests::{Guest, seen, storage};

use crate::q35;

/// Names that a host may have.
const NAMES: [&str; 4] = ["two words", "naïve ☕", "-dash", "a,b:c=d\\e"];

/// Reads what the host wrote, under all kinds of names, and writes back.
async fn exchange(guest: &Guest, directory: &std::path::Path, point: &str) -> Result<()> {
    let container = guest.container("c1").mount("/host", "bind", point, &["rbind", "rw"]).run().await?;
    for (number, name) in NAMES.iter().enumerate() {
        std::fs::write(directory.join(name), format!("{number}"))?;
    }
    let shown =
        container.sh("cd /host; for file in *; do cat -- \"$file\"; printf ' %s\\n' \"$file\"; done").await?;
    for (number, name) in NAMES.iter().enumerate() {
        assert!(shown.lines().any(|line| line == format!("{number} {name}")), "{name} in {shown}");
    }
    container
        .sh("printf back > '/host/ünï code'; mv '/host/two words' /host/one; chmod 640 /host/one")
        .await?;
    assert_eq!(std::fs::read_to_string(directory.join("ünï code"))?, "back");
    assert!(directory.join("one").exists() && !directory.join("two words").exists());
    container.remove().await?;
    Ok(())
}

#[tokio::test]
async fn a_directory_by_virtio_fs() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let guest = Guest::builder().share(directory.path(), "kataShared").boot().await?;
    let volume = storage("virtio-fs", "kataShared", "virtiofs", &[], "shared folder");
    let point = volume.mount_point.clone();
    guest.sandbox_with(vec![volume]).await?;
    exchange(&guest, directory.path(), &point).await?;
    let how = "storage, there at boot (its daemon is started with the VM)";
    seen("virtio-fs", how, "folders::a_directory_by_virtio_fs")
}

#[tokio::test]
async fn a_directory_by_9p() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let device = format!("local,id=share,path={},security_model=none", directory.path().display());
    let builder = Guest::builder().qemu(&[
        "-fsdev",
        &device,
        "-device",
        "virtio-9p-pci,fsdev=share,mount_tag=kataShared,addr=0x18",
    ]);
    let guest = q35(builder, &[]).await?;
    let volume =
        storage("9p", "kataShared", "9p", &["trans=virtio,version=9p2000.L,cache=none", "msize=65536"], "9p");
    let (point, request) = (volume.mount_point.clone(), volume);
    let warm = guest.container("warm").request(|create| create.storages.push(request)).run().await?;
    exchange(&guest, directory.path(), &point).await?;
    warm.remove().await?;
    seen("9p", "storage, there at boot (QEMU plugs no export in later)", "folders::a_directory_by_9p")
}
