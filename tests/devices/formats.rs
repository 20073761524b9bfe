//! What volumes come with beside ext4, and what a privileged container mounts from a file.

use anyhow::Result;
use tests::{Guest, host_tool, seen, storage};

use crate::user_of;

#[tokio::test]
async fn a_volume_with_fat() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = directory.path().join("disk");
    std::fs::File::create(&disk)?.set_len(16 << 20)?;
    host_tool("busybox", &["mkdosfs", "-n", "CONFIG", &disk.display().to_string()])?;
    let guest = Guest::builder().disk(&disk).boot().await?;
    guest.sandbox().await?;
    let container = user_of(&guest, "c1", storage("mmioblk", "/dev/vdb", "vfat", &[], "fat")).run().await?;
    // The long name and the letter need the character sets that mount(8) takes when nobody names one.
    container.sh("echo kept > '/vol/a rather long name é.txt' && sync").await?;
    container.remove().await?;
    let again = user_of(&guest, "c2", storage("mmioblk", "/dev/vdb", "vfat", &[], "fat")).run().await?;
    assert_eq!(again.sh("cat /vol/a\\ rather\\ long*.txt").await?, "kept");
    seen("mmioblk", "storage with FAT", "formats::a_volume_with_fat")
}

#[tokio::test]
async fn a_privileged_container_mounts_a_file() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").privileged().run().await?;
    // The kernel makes a loop device when one is asked for: it has none at boot.
    let script = "mknod /dev/loop-control c 10 237 && mknod /dev/loop0 b 7 0 && losetup -f && truncate -s 4M /image && mkdosfs /image >/dev/null && mkdir /mnt && \
        losetup /dev/loop0 /image && mount -t vfat /dev/loop0 /mnt && echo inside > /mnt/file && umount /mnt && \
        mount -t vfat /dev/loop0 /mnt && cat /mnt/file && umount /mnt && losetup -d /dev/loop0";
    assert_eq!(container.sh(script).await?, "/dev/loop0\ninside");
    seen(
        "loop",
        "a file as a disk, in a privileged container",
        "formats::a_privileged_container_mounts_a_file",
    )
}
