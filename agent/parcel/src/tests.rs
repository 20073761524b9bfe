//! Trees that arrive as they were, and streams that must not do harm.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use std::path::Path;

use super::*;

const ALL: Options =
    Options { owner: Owner::Own, set_id: false, most_bytes: u64::MAX, most_entries: u64::MAX };

fn packed(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(fs::File::open(path).unwrap().into(), &mut bytes).unwrap();
    bytes
}

fn into(bytes: &[u8], directory: &Path, name: Option<&str>, options: &Options) -> Result<Copied, TreeError> {
    let directory = fs::File::open(directory).unwrap();
    unpack(&mut &bytes[..], directory.as_fd(), name.map(OsStr::new), options)
}

/// A stream of these entries: kind, path, data.
fn stream(entries: &[(Kind, &str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let dirs = Entry { kind: Kind::Directory, mode: 0o755, ..Entry::end() };
    write_entry(&mut bytes, &dirs).unwrap();
    for &(kind, path, data) in entries {
        let entry = Entry { kind, mode: 0o6755, size: data.len() as u64, path: path.into(), ..Entry::end() };
        write_entry(&mut bytes, &entry).unwrap();
        bytes.extend(data);
    }
    write_entry(&mut bytes, &Entry::end()).unwrap();
    bytes
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_tree_arrives_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("a/b")).unwrap();
    fs::write(from.join("a/big"), vec![7; 200_000]).unwrap();
    fs::write(from.join("empty"), "").unwrap();
    symlink("/etc/passwd", from.join("a/link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, from.join("fifo"), rustix::fs::Mode::RWXU).unwrap();
    fs::set_permissions(from.join("a/big"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o1500)).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 5);
    for path in ["a/big", "a/b", "a"] {
        fs::File::open(from.join(path)).unwrap().set_modified(old).unwrap();
    }
    let bytes = packed(&from);
    let done = into(&bytes, dir.path(), Some("to"), &ALL).unwrap();
    assert_eq!(done, Copied { entries: 6, bytes: 200_000, skipped: 1 });
    let to = dir.path().join("to");
    assert_eq!(names(&to), ["a", "empty"]);
    assert_eq!(fs::read(to.join("a/big")).unwrap(), vec![7; 200_000]);
    assert_eq!(fs::read_link(to.join("a/link")).unwrap(), Path::new("/etc/passwd"));
    let of = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
    assert_eq!(of("a/big").mode() & 0o7777, 0o711, "without its set-user-id bit");
    assert_eq!(of("a/b").mode() & 0o7777, 0o1500);
    for path in ["a/big", "a/b", "a"] {
        assert_eq!((of(path).mtime(), of(path).mtime_nsec()), (1_000_000_000, 5), "{path}");
    }
    into(&bytes, dir.path(), Some("to"), &Options { set_id: true, ..ALL }).unwrap();
    assert_eq!(of("a/big").mode() & 0o7777, 0o4711);
    // The content alone, beside what is there.
    let beside = dir.path().join("beside");
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("mine"), "").unwrap();
    into(&bytes, &beside, None, &ALL).unwrap();
    assert_eq!(names(&beside), ["a", "empty", "mine"]);
}

#[test]
fn a_file_has_the_name_that_it_is_given_and_replaces_what_had_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("from"), "new").unwrap();
    fs::write(dir.path().join("kept"), "kept").unwrap();
    symlink("kept", dir.path().join("to")).unwrap();
    let bytes = packed(&dir.path().join("from"));
    into(&bytes, dir.path(), Some("to"), &ALL).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("to")).unwrap(), "new");
    assert_eq!(fs::read_to_string(dir.path().join("kept")).unwrap(), "kept", "a link is not written through");
    assert!(into(&bytes, dir.path(), None, &ALL).is_err(), "a file is no directory");
    fs::create_dir_all(dir.path().join("there/in")).unwrap();
    assert!(into(&bytes, dir.path(), Some("there"), &ALL).is_err(), "a directory is not replaced");
    assert_eq!(names(dir.path()), ["from", "kept", "there", "to"], "nothing half-written stays");
}

#[test]
fn nothing_leaves_the_destination() {
    let dir = tempfile::tempdir().unwrap();
    let (into_it, outside) = (dir.path().join("into"), dir.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let up = outside.display().to_string();
    let cases: &[&[(Kind, &str, &[u8])]] = &[
        &[(Kind::File, "../outside/x", b"x")],
        &[(Kind::File, "/outside/x", b"x")],
        &[(Kind::File, "a/../../outside/x", b"x")],
        &[(Kind::File, ".", b"x")],
        &[(Kind::File, "a//x", b"x")],
        &[(Kind::File, "a\0", b"x")],
        &[(Kind::Symlink, "out", up.as_bytes()), (Kind::File, "out/x", b"x")],
        &[(Kind::Symlink, "out", up.as_bytes()), (Kind::Directory, "out", b"")],
        &[(Kind::Symlink, "out", b"../outside"), (Kind::Directory, "out/d", b"")],
        &[(Kind::Symlink, "out", b"../outside"), (Kind::HardLink, "x", b"out/secret")],
        &[(Kind::HardLink, "x", b"../outside/secret")],
        &[(Kind::HardLink, "x", b"/etc/passwd")],
        &[(Kind::Directory, "a", b""), (Kind::Symlink, "a/b", b".."), (Kind::File, "a/b/b/outside/x", b"x")],
        &[(Kind::Symlink, "x", b"")],
        &[(Kind::Symlink, "x", b"a\0b")],
        &[(Kind::Symlink, "x", &[b'a'; MOST_PATH + 1])],
    ];
    for case in cases {
        for name in [None, Some("tree")] {
            fs::create_dir(&into_it).unwrap();
            let refused = into(&stream(case), &into_it, name, &ALL);
            assert!(refused.is_err(), "{case:?} {name:?}");
            assert_eq!(names(&outside), ["secret"], "{case:?}");
            assert_eq!(fs::metadata(outside.join("secret")).unwrap().nlink(), 1, "{case:?}");
            assert_eq!(names(dir.path()), ["into", "outside"], "{case:?}");
            fs::remove_dir_all(&into_it).unwrap();
        }
    }
    for name in ["..", ".", "", "a/b", "a\0"] {
        assert!(into(&stream(&[]), dir.path(), Some(name), &ALL).is_err(), "{name:?}");
    }
}

#[test]
fn links_of_one_file_and_directories_on_the_way_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let entries: &[(Kind, &str, &[u8])] = &[(Kind::File, "a/b/c", b"x"), (Kind::HardLink, "d", b"a/b/c")];
    into(&stream(entries), dir.path(), Some("tree"), &ALL).unwrap();
    assert_eq!(fs::metadata(dir.path().join("tree/d")).unwrap().nlink(), 2);
    into(&stream(entries), dir.path(), None, &ALL).unwrap();
    assert_eq!(fs::metadata(dir.path().join("d")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(dir.path().join("a/b/c")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_stream_is_bounded_and_one_that_ends_early_leaves_nothing_half() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = stream(&[(Kind::File, "a", b"12345"), (Kind::File, "b", b"12345")]);
    let too_much = |options: Options| {
        let error = into(&bytes, dir.path(), None, &options).unwrap_err();
        assert!(matches!(error, TreeError::TooMuch { .. }), "{error}");
    };
    too_much(Options { most_bytes: 9, ..ALL });
    too_much(Options { most_entries: 2, ..ALL });
    into(&bytes, dir.path(), None, &Options { most_bytes: 10, most_entries: 3, ..ALL }).unwrap();
    fs::remove_file(dir.path().join("a")).unwrap();
    fs::remove_file(dir.path().join("b")).unwrap();
    for length in 0..bytes.len() {
        let error = into(&bytes[..length], dir.path(), None, &ALL).unwrap_err();
        assert!(matches!(error, TreeError::Stream(_)), "{length}: {error}");
        for name in names(dir.path()) {
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"12345", "{length}");
        }
    }
    // A size that no file of this length has is only as large as what comes.
    let mut huge = Vec::new();
    write_entry(&mut huge, &Entry { kind: Kind::File, size: u64::MAX, ..Entry::end() }).unwrap();
    assert!(into(&huge, dir.path(), Some("x"), &ALL).is_err());
    assert!(!dir.path().join("x").exists());
    assert!(into(b"x", dir.path(), None, &ALL).is_err());
    assert!(read_entry(&mut &[b'x'; 64][..]).is_err(), "no such kind");
    assert!(read_entry(&mut &[b'f'; 64][..]).is_err(), "no such mode");
}

#[test]
fn no_link_leads_out_of_a_root() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("root/etc")).unwrap();
    fs::write(dir.path().join("root/etc/file"), "inside").unwrap();
    symlink("/etc", dir.path().join("root/link")).unwrap();
    symlink("../../../../..", dir.path().join("root/up")).unwrap();
    let root = fs::File::open(dir.path().join("root")).unwrap();
    for path in ["/link/file", "up/etc/file", "../etc/file", "/etc/file"] {
        let file = open_in(root.as_fd(), &std::ffi::CString::new(path).unwrap(), OFlags::RDONLY).unwrap();
        assert_eq!(io::read_to_string(fs::File::from(file)).unwrap(), "inside", "{path}");
    }
}

#[test]
fn a_tree_is_not_too_deep() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    let deep = vec!["d"; MOST_DEPTH + 1].join("/");
    fs::create_dir_all(dir.path().join(&deep)).unwrap();
    let error = pack(fs::File::open(dir.path()).unwrap().into(), &mut bytes).unwrap_err();
    assert!(matches!(error, TreeError::TooDeep(_)), "{error}");
}
