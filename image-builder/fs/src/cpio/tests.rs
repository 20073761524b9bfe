//! Tests of cpio.

use std::io::Write as _;

use super::*;
use crate::entry::Entry;
use crate::error::WriteError;
use crate::sample::sample;
use crate::tree::{Inode, Kind, Tree};

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
fn parse(archive: &[u8]) -> Vec<Seen> {
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
    let seen = parse(&archive(&later).unwrap());
    let brief: Vec<_> = seen.iter().map(|s| (s.name.as_str(), s.mode, s.device, s.content.len())).collect();
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
    assert_eq!(parse(&archive(&Tree::default()).unwrap()), []);
}

#[test]
fn the_name_of_the_trailer_is_reserved() {
    let mut tree = Tree::default();
    tree.insert("/TRAILER!!!", Inode::new(0, Kind::Fifo)).unwrap();
    assert!(matches!(archive(&tree), Err(WriteError::CannotHold { path, .. }) if path == "/TRAILER!!!"));
    let mut tree = Tree::default();
    tree.insert("/a/TRAILER!!!", Inode::new(0, Kind::Fifo)).unwrap();
    assert_eq!(parse(&archive(&tree).unwrap()).len(), 2);
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
    let seen = parse(&bytes);
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

#[test]
fn what_is_written_is_read() {
    let bytes = archive(&sample().unwrap()).unwrap();
    assert!(is(&bytes) && !is(&bytes[1..]));
    let brief = |entry: &Entry| (entry.path.clone(), entry.mode, entry.size, entry.target.clone());
    let found: Vec<_> = read(&bytes).unwrap().iter().map(brief).collect();
    let entry = |path: &str, mode, size, target: Option<&str>| {
        (path.to_owned(), mode, size, target.map(str::to_owned))
    };
    assert_eq!(
        found,
        [
            entry("/bin", 0o040_755, 0, None),
            entry("/bin/sh", 0o120_777, 0, Some("busybox")),
            entry("/dev", 0o040_755, 0, None),
            entry("/dev/console", 0o020_600, 0, Some("5:1")),
            entry("/disk", 0o060_660, 0, Some("254:3")),
            entry("/etc", 0o040_755, 0, None),
            entry("/etc/empty", 0o100_644, 0, None),
            entry("/init", 0o100_755, 1025, None),
            entry("/pipe", 0o010_640, 0, None),
            entry("/tmp", 0o041_777, 0, None),
        ]
    );
    // Of two archives the second counts.
    let mut again = Tree::new();
    again.insert("/init", Inode::new(0o600, Kind::File("x".into()))).unwrap();
    let found = read(&[&bytes[..], &archive(&again).unwrap()].concat()).unwrap();
    assert_eq!(found.iter().find(|entry| entry.path == "/init").unwrap().size, 1);
    let error = read(&[&bytes[..], b"junk"].concat()).unwrap_err();
    assert_eq!(error.offset, bytes.len() as u64);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// A byte anywhere may be anything.
    #[test]
    fn damage_is_survived(at in 0usize..10_000, value: u8) {
        let mut bytes = archive(&sample().unwrap()).unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        let _answer = read(&bytes);
    }
}
