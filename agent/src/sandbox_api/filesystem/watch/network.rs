//! Whether a directory is on a file system that others change without inotify's noticing.

use std::os::fd::AsFd;

use mountinfo::MountInfo;

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
    Ok(!(kind == FUSE && is_virtiofs(&mountinfo::mounts()?, device)))
}

/// Whether one of the mounts is a virtio-fs with this device number.
fn is_virtiofs(mounts: &[MountInfo], device: (u32, u32)) -> bool {
    mounts.iter().any(|mount| mount.fstype == "virtiofs" && mount.device == device)
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
        let mounts = mountinfo::parse_table(mounts);
        assert!(is_virtiofs(&mounts, (0, 27)));
        assert!(!is_virtiofs(&mounts, (0, 28)));
        assert!(!is_virtiofs(&mounts, (0, 2)));
    }
}
