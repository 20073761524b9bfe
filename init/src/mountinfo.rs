//! Reads `/proc/self/mountinfo` (proc_pid_mountinfo(5)) just far enough to know what is mounted where.

use std::path::Path;

/// The type of the file system on top at `target`, or `None` when nothing is mounted there. An unreadable table
/// means that `/proc` is not mounted yet.
pub(crate) fn mounted_type(target: &Path) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    top_type(&table, target.to_str()?)
}

/// Like [`mounted_type`], on a given table. The last line for a mount point is the one on top.
fn top_type(table: &str, target: &str) -> Option<String> {
    table.lines().filter_map(parse).rfind(|(point, _)| point == target).map(|(_, fstype)| fstype.to_owned())
}

/// Mount point and type of one line: `36 35 98:0 /root /point opts [tags ...] - type source super-options`.
fn parse(line: &str) -> Option<(String, &str)> {
    let (head, tail) = line.split_once(" - ")?;
    let point = head.split(' ').nth(4)?;
    let fstype = tail.split(' ').next()?;
    Some((unescape(point), fstype))
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

    #[test]
    fn finds_the_type_at_exactly_that_point() {
        assert_eq!(top_type(TABLE, "/proc").as_deref(), Some("proc"));
        assert_eq!(top_type(TABLE, "/dev/shm").as_deref(), Some("tmpfs"));
        assert_eq!(top_type(TABLE, "/dev/pts"), None);
        assert_eq!(top_type(TABLE, "/de"), None);
    }

    #[test]
    fn the_topmost_of_stacked_mounts_counts() {
        assert_eq!(top_type(TABLE, "/mnt").as_deref(), Some("tmpfs"));
    }

    #[test]
    fn escaped_paths_are_understood() {
        assert_eq!(top_type(TABLE, "/a b\\c").as_deref(), Some("tmpfs"));
        assert_eq!(unescape("x\\04"), "x\\04");
        assert_eq!(unescape("\\999"), "\\999");
    }

    #[test]
    fn lines_that_make_no_sense_are_passed_over() {
        assert_eq!(top_type("garbage\n1 2 3 - \n\n", "/proc"), None);
    }
}
