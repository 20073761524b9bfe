//! Copies into a tree of one's own; owners need root and are tested in a guest.

use std::os::unix::fs::{MetadataExt as _, symlink};

use super::*;
use crate::error::{ErrorKind, Kind as _};

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

struct Tree {
    directory: tempfile::TempDir,
    copies: Copies,
}

impl Tree {
    fn new() -> Tree {
        Tree { directory: tempfile::tempdir().unwrap(), copies: Copies::default() }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("shared")
    }

    fn copy(&self, entry: &CopyRequest) -> Result<(), FileError> {
        self.copies.copy(&self.root(), entry)
    }

    fn entry(&self, name: &str, mode: u32, data: &[u8]) -> CopyRequest {
        CopyRequest {
            path: self.root().join(name),
            size: data.len() as i64,
            mode,
            directory_mode: 0o755,
            uid: -1,
            gid: -1,
            offset: 0,
            data: data.to_vec(),
        }
    }

    /// Names in a directory, sorted.
    fn names(&self, directory: &str) -> Vec<String> {
        let all = std::fs::read_dir(self.root().join(directory)).unwrap();
        let mut names: Vec<_> = all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.root().join(name)).unwrap()
    }
}

#[test]
fn a_file_appears_when_its_last_piece_has_come() {
    let tree = Tree::new();
    let whole = tree.entry("c/a.conf", REGULAR | 0o640, b"0123456789");
    let piece = |from: usize, to: usize| CopyRequest {
        offset: from as i64,
        data: whole.data[from..to].to_vec(),
        ..whole.clone()
    };
    let other = tree.entry("c/a.txt", REGULAR | 0o600, b"another file, of another name");
    tree.copy(&piece(0, 4)).unwrap();
    assert!(tree.names("c").is_empty());
    tree.copy(&CopyRequest { data: other.data[..9].to_vec(), ..other.clone() }).unwrap();
    // A piece may come twice: its answer was lost.
    tree.copy(&piece(0, 4)).unwrap();
    tree.copy(&piece(4, 7)).unwrap();
    tree.copy(&piece(4, 7)).unwrap();
    tree.copy(&piece(7, 10)).unwrap();
    assert_eq!(tree.names("c"), ["a.conf"]);
    assert_eq!(tree.read("c/a.conf"), b"0123456789");
    assert_eq!(tree.root().join("c/a.conf").metadata().unwrap().mode() & 0o7777, 0o640);
    tree.copy(&CopyRequest { offset: 9, data: other.data[9..].to_vec(), ..other.clone() }).unwrap();
    assert_eq!(tree.read("c/a.txt"), other.data);
    assert!(tree.copies.open().copies.is_empty() && tree.copies.open().order.is_empty());
}

#[test]
fn pieces_that_do_not_fit_are_refused_and_leave_nothing() {
    let tree = Tree::new();
    let entry = tree.entry("c/f", REGULAR | 0o600, b"0123456789");
    let refused = |entry: CopyRequest| {
        let error = tree.copy(&entry).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    };
    refused(CopyRequest { size: -1, ..entry.clone() });
    refused(CopyRequest { offset: -1, ..entry.clone() });
    refused(CopyRequest { size: 9, ..entry.clone() });
    refused(CopyRequest { data: vec![], ..entry.clone() });
    refused(CopyRequest { offset: 5, data: vec![0; 5], ..entry.clone() });
    assert!(!tree.root().join("c/f").exists());
    tree.copy(&CopyRequest { data: entry.data[..3].to_vec(), ..entry.clone() }).unwrap();
    refused(CopyRequest { offset: 4, data: vec![0; 6], ..entry.clone() });
    refused(CopyRequest { offset: 3, size: 20, data: vec![0; 6], ..entry.clone() });
    tree.copy(&CopyRequest { offset: 3, data: entry.data[3..].to_vec(), ..entry.clone() }).unwrap();
    assert_eq!(tree.read("c/f"), entry.data);
    for mode in [0o010_600, 0o020_600, 0o060_600, 0o140_600] {
        refused(tree.entry("c/odd", mode, b""));
    }
    refused(tree.entry(&"n".repeat(300), REGULAR | 0o600, b"x"));
    assert_eq!(tree.names("c"), ["f"]);
}

#[test]
fn an_empty_file_is_one_request() {
    let tree = Tree::new();
    tree.copy(&tree.entry("c/empty", 0o600, b"")).unwrap();
    assert_eq!(tree.read("c/empty"), b"");
}

#[test]
fn links_are_replaced_as_config_maps_do_it() {
    let tree = Tree::new();
    tree.copy(&tree.entry("v/..1/key", REGULAR | 0o644, b"one")).unwrap();
    tree.copy(&tree.entry("v/..data", LINK | 0o777, b"..1")).unwrap();
    tree.copy(&tree.entry("v/key", LINK | 0o777, b"..data/key")).unwrap();
    assert_eq!(tree.read("v/key"), b"one");
    tree.copy(&tree.entry("v/..2/key", REGULAR | 0o644, b"two")).unwrap();
    tree.copy(&tree.entry("v/..data", LINK | 0o777, b"..2")).unwrap();
    assert_eq!(tree.read("v/key"), b"two");
    assert_eq!(tree.names("v"), ["..1", "..2", "..data", "key"]);
    for bad in [&b""[..], b"a\0b"] {
        assert_eq!(tree.copy(&tree.entry("v/bad", LINK, bad)).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_kind_of_entry_makes_room_for_another() {
    let tree = Tree::new();
    tree.copy(&tree.entry("c/x/deep/file", REGULAR | 0o600, b"1")).unwrap();
    tree.copy(&tree.entry("c/x", DIRECTORY | 0o711, b"")).unwrap();
    assert_eq!(tree.read("c/x/deep/file"), b"1");
    assert_eq!(tree.root().join("c/x").metadata().unwrap().mode() & 0o7777, 0o711);
    tree.copy(&tree.entry("c/x", REGULAR | 0o600, b"2")).unwrap();
    assert_eq!(tree.read("c/x"), b"2");
    tree.copy(&tree.entry("c/x", DIRECTORY | 0o700, b"")).unwrap();
    assert!(tree.names("c/x").is_empty());
    tree.copy(&tree.entry("c/x", LINK, b"nowhere")).unwrap();
    tree.copy(&tree.entry("c/x", DIRECTORY | 0o700, b"")).unwrap();
    assert!(tree.root().join("c/x").is_dir());
    assert_eq!(tree.names("c"), ["x"]);
}

#[test]
fn nothing_outside_is_written_through_a_link() {
    let tree = Tree::new();
    let outside = tree.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("f"), "kept").unwrap();
    tree.copy(&tree.entry("c/f", REGULAR | 0o600, b"1")).unwrap();
    symlink("../../outside", tree.root().join("c/away")).unwrap();
    symlink(&outside, tree.root().join("c/absolute")).unwrap();
    symlink("../../outside/f", tree.root().join("c/target")).unwrap();
    for name in ["c/away/f", "c/absolute/f"] {
        assert_eq!(tree.copy(&tree.entry(name, REGULAR, b"2")).unwrap_err().kind(), ErrorKind::Invalid);
    }
    // The link itself is replaced, not what it leads to.
    tree.copy(&tree.entry("c/target", REGULAR | 0o600, b"3")).unwrap();
    tree.copy(&tree.entry("c/away", DIRECTORY | 0o700, b"")).unwrap();
    assert_eq!(std::fs::read(outside.join("f")).unwrap(), b"kept");
    assert_eq!(tree.read("c/target"), b"3");
    assert!(tree.root().join("c/away").symlink_metadata().unwrap().is_dir());
}

#[test]
fn copies_that_are_never_finished_are_forgotten() {
    let tree = Tree::new();
    for number in 0..UNFINISHED + 5 {
        let entry = tree.entry(&format!("c/{number}"), REGULAR, b"12");
        tree.copy(&CopyRequest { data: b"1".to_vec(), ..entry }).unwrap();
    }
    assert_eq!(tree.copies.open().copies.len(), UNFINISHED);
    assert!(tree.names("c").is_empty());
    let first = tree.entry("c/0", REGULAR, b"12");
    assert!(tree.copy(&CopyRequest { offset: 1, data: b"2".to_vec(), ..first }).is_err());
}

#[test]
fn the_end_of_a_copy_is_not_the_end_of_one_begun_anew() {
    let mut open = Open::default();
    let path = Path::new("/f");
    let copy = || Unfinished { file: tempfile::tempfile().unwrap(), size: 2, written: 0 };
    let first = open.put(path, copy());
    let second = open.put(path, copy());
    open.end(path, &first);
    assert!(open.copies.contains_key(path) && open.order == [path]);
    open.end(path, &second);
    assert!(open.copies.is_empty() && open.order.is_empty());
}
