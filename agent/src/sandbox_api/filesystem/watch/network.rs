//! Whether a directory is on a file system that others change without inotify's noticing.

use std::os::fd::AsFd;

/// Numbers of statfs(2).
const NETWORKS: [i64; 5] = [
    // NFS
    0x6969,
    // CIFS, SMB, SMB2
    0xFF53_4D42,
    0x517B,
    0xFE53_4D42,
    // FUSE
    FUSE,
];
const FUSE: i64 = 0x6573_5546;

/// A virtio-fs is a FUSE to statfs, but it is what the host gave the pod for its files, whose root may be all on it.
pub(super) fn is_network(directory: impl AsFd) -> std::io::Result<bool> {
    #[allow(clippy::unnecessary_cast, reason = "the type differs between architectures")]
    let kind = rustix::fs::fstatfs(&directory)?.f_type as i64 & 0xFFFF_FFFF;
    if !NETWORKS.contains(&kind) {
        return Ok(false);
    }
    let device = rustix::fs::fstat(&directory)?.st_dev;
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(!(kind == FUSE && is_virtiofs(&mounts, device)))
}

/// Whether a table of mounts has a virtio-fs with this device number.
fn is_virtiofs(mounts: &str, device: (u32, u32)) -> bool {
    let number = format!("{}:{}", device.0, device.1);
    mounts.lines().any(|line| {
        let Some((mount, file_system)) = line.split_once(" - ") else { return false };
        file_system.split(' ').next() == Some("virtiofs") && mount.split(' ').nth(2) == Some(number.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_can_be_watched() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_network(std::fs::File::open(dir.path()).unwrap()).unwrap());
    }

    #[test]
    fn a_virtiofs_is_told_from_other_fuses() {
        let mounts = "31 1 0:27 / /run/shared rw,relatime shared:1 - virtiofs kataShared rw\n\
            32 1 0:28 /sub /mnt rw - fuse.sshfs host: rw\n";
        assert!(is_virtiofs(mounts, (0, 27)));
        assert!(!is_virtiofs(mounts, (0, 28)));
        assert!(!is_virtiofs(mounts, (0, 2)));
    }
}
