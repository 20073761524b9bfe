//! Writes a [`Tree`] as a `newc` cpio archive, the format of an initramfs (the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Entries come in the order of their paths, parents first, because the kernel creates them as it reads. Inode numbers count
//! from 1, and one trailer ends the archive, padded with zeros to 512 bytes as the format's tools do. Names of one file have
//! its number and how many they are; the content comes with the last of them, as GNU cpio writes and the kernel takes it.
//!
//! Cannot hold: extended attributes; files of 4 GiB and more; times after 2106; paths of more than 4095 bytes, which the
//! kernel skips without a word; a file `/TRAILER!!!`. Fractions of seconds are cut off, and the root has no entry.

use std::collections::HashMap;
use std::io::{self, Write};

use crate::counted::Counted;
use crate::error::{WriteError, beyond_linux};
use crate::tree::{Inode, InodeId, Kind, Tree};

const FORMAT: &str = "a cpio archive";
/// The name that marks the end.
const TRAILER: &[u8] = b"TRAILER!!!";
/// Bytes of the longest name: PATH_MAX of the kernel without the NUL.
const NAME: usize = 4095;

/// The archive of `tree`, in memory.
///
/// # Errors
/// As [`write()`].
pub fn archive(tree: &Tree) -> Result<Vec<u8>, WriteError> {
    let mut out = Vec::new();
    write(tree, &mut out)?;
    Ok(out)
}

/// Writes the archive of `tree`.
///
/// # Errors
/// When an entry does not fit the format, or a side fails.
pub fn write(tree: &Tree, out: impl Write) -> Result<(), WriteError> {
    let entries = tree.walk();
    // Names that are still to come, and the number.
    let mut inodes: HashMap<InodeId, (u32, u32)> = HashMap::new();
    for (_, id) in &entries {
        inodes.entry(*id).or_default().0 += 1;
    }
    let names = inodes.clone();
    let mut out = Counted::new(out);
    let mut last = 0;
    for (path, id) in &entries {
        let links = names.get(id).map_or(1, |(names, _)| *names);
        let (left, number) = inodes.entry(*id).or_default();
        *left -= 1;
        if *number == 0 {
            last += 1;
            *number = last;
        }
        entry(&mut out, path, tree.inode(*id), *number, links, *left == 0)?;
    }
    header(&mut out, TRAILER, [0, 0, 0, 0, 1, 0, 0, 0, 0])?;
    out.align(512)?;
    Ok(out.flush()?)
}

fn entry(
    out: &mut Counted<impl Write>,
    path: &[u8],
    inode: &Inode,
    number: u32,
    names: u32,
    is_last: bool,
) -> Result<(), WriteError> {
    let refuse = |problem: String| WriteError::cannot_hold(FORMAT, path, problem);
    let name = path.strip_prefix(b"/").unwrap_or(path);
    if let Some(problem) = beyond_linux(inode) {
        return Err(refuse(problem));
    }
    if name == TRAILER {
        return Err(refuse("its name is the mark of the end".into()));
    }
    if name.len() > NAME {
        return Err(refuse(format!("its path has more than {NAME} bytes")));
    }
    if let Some(attribute) = inode.meta.xattrs.keys().next() {
        let attribute = String::from_utf8_lossy(attribute);
        return Err(refuse(format!("it has the extended attribute {attribute}, and the format knows none")));
    }
    let mtime = u32::try_from(inode.meta.mtime).map_err(|_| refuse("it is from after 2106".into()))?;
    let (size, device) = match &inode.kind {
        Kind::File(content) => (content.len(), (0, 0)),
        Kind::Symlink(target) => (target.len() as u64, (0, 0)),
        Kind::Char { major, minor } | Kind::Block { major, minor } => (0, (*major, *minor)),
        Kind::Directory(_) | Kind::Fifo | Kind::Socket => (0, (0, 0)),
    };
    let size = u32::try_from(size)
        .map_err(|_| refuse(format!("it has {size} bytes, and the format ends at 4 GiB - 1")))?;
    let is_content_here = is_last || !matches!(inode.kind, Kind::File(_));
    let size = if is_content_here { size } else { 0 };
    let links = if inode.kind.is_directory() { 2 } else { names };
    let (uid, gid) = (inode.meta.uid, inode.meta.gid);
    let fields = [number, inode.mode().into(), uid, gid, links, mtime, size, device.0, device.1];
    header(out, name, fields)?;
    match &inode.kind {
        Kind::File(content) if is_content_here => content.copy(0, content.len(), out)?,
        Kind::Symlink(target) => out.write_all(target)?,
        _ => {}
    }
    Ok(out.align(4)?)
}

/// Writes a header and the name behind it: inode, mode, owner, group, links, time, size, device's major and minor.
fn header(out: &mut Counted<impl Write>, name: &[u8], fields: [u32; 9]) -> io::Result<()> {
    let [inode, mode, uid, gid, links, mtime, size, major, minor] = fields;
    write!(out, "070701{inode:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{mtime:08x}{size:08x}")?;
    // The device that the file is on, and a checksum that this variant of the format has not.
    write!(out, "{:08x}{:08x}{major:08x}{minor:08x}{:08x}{:08x}", 0, 0, name.len() + 1, 0)?;
    out.write_all(name)?;
    out.write_all(&[0])?;
    out.align(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::sample;

    /// An entry as an independent reader of the format sees it.
    #[derive(Debug, PartialEq, Eq)]
    struct Seen {
        name: String,
        mode: u32,
        inode: u32,
        mtime: u32,
        device: (u32, u32),
        content: Vec<u8>,
    }

    /// Reads an archive by the format's description alone: 6 bytes of magic, 13 fields of 8 hexadecimal digits, the
    /// name with its NUL padded to 4, the content padded to 4.
    fn read(archive: &[u8]) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut at = 0;
        loop {
            let header = std::str::from_utf8(&archive[at..at + 110]).unwrap();
            assert_eq!(&header[..6], "070701");
            let field = |n: usize| u32::from_str_radix(&header[6 + 8 * n..14 + 8 * n], 16).unwrap();
            let (size, name_size) = (field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&archive[at + 110..at + 110 + name_size - 1]).unwrap().to_string();
            assert_eq!(archive[at + 110 + name_size - 1], 0);
            let start = (at + 110 + name_size).next_multiple_of(4);
            let content = archive[start..start + size].to_vec();
            at = (start + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert!(archive[at..].iter().all(|byte| *byte == 0));
                assert_eq!(archive.len() % 512, 0);
                return seen;
            }
            seen.push(Seen {
                name,
                mode: field(1),
                inode: field(0),
                mtime: field(5),
                device: (field(9), field(10)),
                content,
            });
        }
    }

    #[test]
    fn an_independent_reader_sees_the_tree() {
        let mut later = sample().unwrap();
        later.set_times(77);
        let seen = read(&archive(&later).unwrap());
        let brief: Vec<_> =
            seen.iter().map(|s| (s.name.as_str(), s.mode, s.device, s.content.len())).collect();
        assert_eq!(
            brief,
            [
                ("bin", 0o040_755, (0, 0), 0),
                ("bin/sh", 0o120_777, (0, 0), 7),
                ("dev", 0o040_755, (0, 0), 0),
                ("dev/console", 0o020_600, (5, 1), 0),
                ("disk", 0o060_660, (254, 3), 0),
                ("etc", 0o040_755, (0, 0), 0),
                ("etc/empty", 0o100_644, (0, 0), 0),
                ("init", 0o100_755, (0, 0), 1025),
                ("pipe", 0o010_640, (0, 0), 0),
                ("tmp", 0o041_777, (0, 0), 0),
            ]
        );
        assert!(seen.iter().enumerate().all(|(index, s)| s.inode == index as u32 + 1 && s.mtime == 77));
        assert_eq!(seen[1].content, b"busybox");
        assert_eq!(seen[7].content, [7; 1025]);
    }

    #[test]
    fn the_systems_cpio_lists_it() {
        use std::process::{Command, Stdio};
        let Ok(mut child) = Command::new("cpio")
            .args(["-t", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
        else {
            eprintln!("skipped: cpio is not installed");
            return;
        };
        child.stdin.take().unwrap().write_all(&archive(&sample().unwrap()).unwrap()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let listed = String::from_utf8(output.stdout).unwrap();
        let names: Vec<_> = listed.lines().collect();
        let expected: Vec<_> = sample().unwrap().walk().into_iter().map(|(path, _)| path).collect();
        let expected: Vec<_> = expected.iter().map(|path| std::str::from_utf8(&path[1..]).unwrap()).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn an_empty_tree_is_a_trailer() {
        assert_eq!(read(&archive(&Tree::default()).unwrap()), []);
    }

    #[test]
    fn the_name_of_the_trailer_is_reserved() {
        let mut tree = Tree::default();
        tree.insert("/TRAILER!!!", Inode::new(0, Kind::Fifo)).unwrap();
        assert!(matches!(archive(&tree), Err(WriteError::CannotHold { path, .. }) if path == "/TRAILER!!!"));
        let mut tree = Tree::default();
        tree.insert("/a/TRAILER!!!", Inode::new(0, Kind::Fifo)).unwrap();
        assert_eq!(read(&archive(&tree).unwrap()).len(), 2);
    }

    /// GNU cpio is the judge; the kernel is in the tests that boot guests.
    #[test]
    fn names_of_one_file_are_one_file_when_unpacked() {
        use std::os::unix::fs::MetadataExt;
        use std::process::{Command, Stdio};
        let mut tree = Tree::default();
        for (name, content) in [("many", "content"), ("empty", "")] {
            tree.insert(&format!("/a/{name}"), Inode::new(0o640, Kind::File(content.into()))).unwrap();
            tree.link(&format!("/b-{name}"), &format!("/a/{name}")).unwrap();
            tree.link(&format!("/z/{name}"), &format!("/a/{name}")).unwrap();
        }
        let bytes = archive(&tree).unwrap();
        let seen = read(&bytes);
        let of = |name: &str| seen.iter().find(|entry| entry.name == name).unwrap();
        assert_eq!((of("a/many").inode, of("b-many").inode), (of("z/many").inode, of("z/many").inode));
        // Once, with the last name.
        assert_eq!(seen.iter().filter(|entry| entry.content == b"content").count(), 1);
        assert_eq!(of("z/many").content, b"content");
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("cpio");
        command.args(["-i", "-d", "--quiet"]).current_dir(dir.path()).stdin(Stdio::piped());
        let Ok(mut child) = command.spawn() else { return eprintln!("skipped: cpio is not installed") };
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(child.wait().unwrap().success());
        for name in ["many", "empty"] {
            let stat = |path: String| std::fs::metadata(dir.path().join(path)).unwrap();
            let (one, other) = (stat(format!("a/{name}")), stat(format!("z/{name}")));
            assert_eq!((one.ino(), one.nlink(), one.mode()), (other.ino(), 3, 0o100_640));
            assert_eq!(stat(format!("b-{name}")).ino(), one.ino());
        }
        assert_eq!(std::fs::read(dir.path().join("b-many")).unwrap(), b"content");
    }

    #[test]
    fn what_the_format_cannot_hold_is_refused_by_name() {
        let refused = |change: &dyn Fn(&mut Tree)| {
            let mut tree = sample().unwrap();
            change(&mut tree);
            archive(&tree).unwrap_err().to_string()
        };
        let add = |tree: &mut Tree, path: &str, inode| assert!(tree.insert(path, inode).is_ok());
        let capable = refused(&|tree| {
            let mut ping = Inode::new(0o755, Kind::File("ping".into()));
            ping.meta.xattrs.insert(b"security.capability".to_vec(), vec![1]);
            add(tree, "/bin/ping", ping);
        });
        assert!(capable.starts_with("\"/bin/ping\" cannot be in a cpio archive"), "{capable}");
        assert!(capable.contains("security.capability"), "{capable}");
        let late = refused(&|tree| tree.set_times(1 << 32));
        assert!(late.contains("2106"), "{late}");
        let device = refused(&|tree| add(tree, "/d", Inode::new(0, Kind::Block { major: 4096, minor: 0 })));
        assert!(device.contains("4096:0"), "{device}");
        let long = refused(&|tree| add(tree, &"/dir4".repeat(820), Inode::new(0, Kind::Fifo)));
        assert!(long.contains("4095 bytes"), "{long}");
        let large = refused(&|tree| {
            let file = std::sync::Arc::new(tempfile::tempfile().unwrap());
            let content = crate::Extent::new(file, 0, 1 << 32).into();
            add(tree, "/large", Inode::new(0o644, Kind::File(content)));
        });
        assert!(large.contains("/large") && large.contains("4 GiB"), "{large}");
    }
}
