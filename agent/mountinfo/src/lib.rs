//! Reads `/proc/self/mountinfo` (proc_pid_mountinfo(5)), for the agent and for the processes that become containers.
//!
//! Promises that paths are exactly the kernel's: they need not be UTF-8. Lines that make no sense are left out.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// A mount, as far as anybody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// Its number.
    pub id: u32,
    /// The number of the mount that it is in. The root of the tree is in itself.
    pub parent: u32,
    /// Major and minor number of the device.
    pub device: (u32, u32),
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
    Ok(parse_table(std::fs::read("/proc/self/mountinfo")?))
}

/// All mounts of a table. Lines that make no sense are left out.
pub fn parse_table(table: impl AsRef<[u8]>) -> Vec<MountInfo> {
    table.as_ref().split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// The mount on top at `target`, if something is mounted there.
pub fn top<'a>(mounts: &'a [MountInfo], target: &Path) -> Option<&'a MountInfo> {
    mounts.iter().rfind(|mount| mount.point == target)
}

/// Whether the mount on top at `/` can be pivoted away (pivot_root(2)). The kernel's first mount cannot: an initramfs is in it, and
/// it has no parent but itself. A bind of it has one.
pub fn root_can_be_pivoted(mounts: &[MountInfo]) -> bool {
    top(mounts, Path::new("/")).is_some_and(|root| root.id != root.parent)
}

/// One line: `36 35 98:0 /root /point opts [tags ...] - type source super-options`.
fn parse(line: &[u8]) -> Option<MountInfo> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let word = |at: usize| words.get(at).copied();
    let number = |at: usize| std::str::from_utf8(word(at)?).ok()?.parse().ok();
    let (major, minor) = std::str::from_utf8(word(2)?).ok()?.split_once(':')?;
    // Tags come between the options and a word that is a hyphen.
    let end = 6 + words.get(6..)?.iter().position(|word| *word == b"-")?;
    let is_writable = |options: &[u8]| options.split(|byte| *byte == b',').any(|word| word == b"rw");
    Some(MountInfo {
        id: number(0)?,
        parent: number(1)?,
        device: (major.parse().ok()?, minor.parse().ok()?),
        point: OsString::from_vec(unescape(word(4)?)).into(),
        fstype: String::from_utf8_lossy(word(end + 1)?).into_owned(),
        source: String::from_utf8_lossy(&unescape(word(end + 2)?)).into_owned(),
        is_writable: is_writable(word(5)?) && word(end + 3).is_none_or(is_writable),
    })
}

/// The kernel writes space, tab, newline and backslash in paths as `\ooo` (octal).
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
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
    out
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
        super::top(&parse_table(TABLE), Path::new(point)).map(|mount| mount.fstype.clone())
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
        assert_eq!(unescape(b"x\\04"), b"x\\04");
        assert_eq!(unescape(b"\\999"), b"\\999");
    }

    #[test]
    fn paths_need_not_be_text() {
        let table = b"26 1 0:32 / /a\xffb rw - tmpfs tmpfs rw\n27 1 0:33 / /c rw - tmpfs tmpfs rw\n";
        let points: Vec<_> =
            parse_table(table).into_iter().map(|mount| mount.point.into_os_string()).collect();
        assert_eq!(points, [OsString::from_vec(b"/a\xffb".to_vec()), "/c".into()]);
    }

    #[test]
    fn numbers_are_read() {
        let mounts = parse_table(TABLE);
        assert_eq!((mounts[0].id, mounts[0].parent, mounts[0].device), (1, 1, (0, 2)));
        assert_eq!((mounts[3].id, mounts[3].parent, mounts[3].device), (23, 22, (0, 21)));
    }

    #[test]
    fn a_mount_is_writable_where_mount_and_file_system_are() {
        let writable = |line: &str| parse_table(line)[0].is_writable;
        assert!(writable("1 1 0:2 / /a rw,nosuid - ext4 /dev/vda rw,errors=continue"));
        assert!(!writable("1 1 0:2 / /a ro,nosuid - ext4 /dev/vda rw"));
        assert!(!writable("1 1 0:2 / /a rw - ext4 /dev/vda ro"));
    }

    #[test]
    fn lines_that_make_no_sense_are_left_out() {
        assert!(
            parse_table("garbage\n1 2 3 - \n1 1 0:2 / /a rw - ext4\nx 1 0:2 / /a rw - a b c\n\n").is_empty()
        );
    }

    #[test]
    fn the_kernels_first_root_cannot_be_pivoted() {
        let can = |table: &str| root_can_be_pivoted(&parse_table(table));
        let line =
            |id: u32, parent: u32, fs: &str| format!("{id} {parent} 0:2 / / rw shared:1 - {fs} {fs} rw");
        assert!(!can(&line(1, 1, "rootfs")));
        assert!(can(&line(22, 1, "ext4")));
        assert!(can(&line(22, 1, "rootfs")), "a bind of the first one");
        assert!(can(&format!("{}\n{}", line(1, 1, "rootfs"), line(22, 1, "erofs"))));
        assert!(!can("22 1 0:20 / /proc rw - proc proc rw"), "nothing is known of the root");
    }
}
