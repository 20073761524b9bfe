//! Reads `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::io;
use std::path::{Path, PathBuf};

/// A mount, as far as anybody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// Where it is.
    pub point: PathBuf,
    /// Type of the file system.
    pub fstype: String,
    /// Device or other source, as the file system tells it.
    pub source: String,
    /// Whether this mount and its file system can be written to.
    pub is_writable: bool,
}

/// All mounts of this process's namespace; of those on one point the last is on top.
///
/// # Errors
/// When the table cannot be read, as before `/proc` is mounted.
pub fn mounts() -> io::Result<Vec<MountInfo>> {
    Ok(parse_table(&std::fs::read_to_string("/proc/self/mountinfo")?))
}

/// All mounts of a table. Lines that make no sense are passed over.
pub fn parse_table(table: &str) -> Vec<MountInfo> {
    table.lines().filter_map(parse).collect()
}

/// The type of the file system on top at `target`, or `None` when nothing is mounted there. An unreadable table
/// means that `/proc` is not mounted yet.
pub(crate) fn mounted_type(target: &Path) -> Option<String> {
    top_type(&mounts().ok()?, target)
}

fn top_type(mounts: &[MountInfo], target: &Path) -> Option<String> {
    mounts.iter().rfind(|mount| mount.point == target).map(|mount| mount.fstype.clone())
}

/// One line: `36 35 98:0 /root /point opts [tags ...] - type source super-options`.
fn parse(line: &str) -> Option<MountInfo> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(4);
    let (point, options) = (head.next()?, head.next()?);
    let mut tail = tail.split(' ');
    let (fstype, source) = (tail.next()?, tail.next()?);
    let is_writable = |options: &str| options.split(',').any(|word| word == "rw");
    Some(MountInfo {
        point: unescape(point).into(),
        fstype: fstype.to_owned(),
        source: unescape(source),
        is_writable: is_writable(options) && tail.next().is_none_or(is_writable),
    })
}

/// The kernel writes space, tab, newline and backslash in paths as `\ooo` (octal).
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code =
            tail.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match code {
            Some(digits) => {
                out.push(
                    digits.iter().fold(0u8, |sum, digit| sum.wrapping_mul(8).wrapping_add(digit - b'0')),
                );
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
1 1 0:2 / / rw shared:1 - rootfs rootfs rw
21 1 0:20 / /proc rw,nosuid shared:2 master:1 - proc proc rw
22 1 0:5 / /dev rw,nosuid - devtmpfs devtmpfs rw,mode=755
23 22 0:21 / /dev/shm rw - tmpfs tmpfs rw
24 1 0:30 / /mnt rw - ext4 /dev/vda rw
25 24 0:31 / /mnt rw - tmpfs tmpfs rw
26 1 0:32 / /a\\040b\\134c rw - tmpfs tmpfs rw
";

    fn top(point: &str) -> Option<String> {
        top_type(&parse_table(TABLE), Path::new(point))
    }

    #[test]
    fn finds_the_type_at_exactly_that_point() {
        assert_eq!(top("/proc").as_deref(), Some("proc"));
        assert_eq!(top("/dev/shm").as_deref(), Some("tmpfs"));
        assert_eq!(top("/dev/pts"), None);
        assert_eq!(top("/de"), None);
    }

    #[test]
    fn the_topmost_of_stacked_mounts_counts() {
        assert_eq!(top("/mnt").as_deref(), Some("tmpfs"));
    }

    #[test]
    fn escaped_paths_are_understood() {
        assert_eq!(top("/a b\\c").as_deref(), Some("tmpfs"));
        assert_eq!(unescape("x\\04"), "x\\04");
        assert_eq!(unescape("\\999"), "\\999");
    }

    #[test]
    fn a_mount_is_writable_where_mount_and_file_system_are() {
        let writable = |line: &str| parse_table(line)[0].is_writable;
        assert!(writable("1 1 0:2 / /a rw,nosuid - ext4 /dev/vda rw,errors=continue"));
        assert!(!writable("1 1 0:2 / /a ro,nosuid - ext4 /dev/vda rw"));
        assert!(!writable("1 1 0:2 / /a rw - ext4 /dev/vda ro"));
    }

    #[test]
    fn lines_that_make_no_sense_are_passed_over() {
        assert!(parse_table("garbage\n1 2 3 - \n\n").is_empty());
    }
}
