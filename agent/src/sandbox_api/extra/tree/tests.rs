//! Trees in and out of a temporary directory.

use super::*;
use crate::sandbox_api::rooted::Workers;
use sandbox_api::tar::{END, Entry, Kind};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;

struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        Case { dir: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> Root {
        Root::new(Arc::new(std::fs::File::open(self.dir.path()).unwrap().into()))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn pack(&self, path: &str) -> Result<Vec<u8>, FileError> {
        let mut archive = Vec::new();
        let top = pack::Top::find(&self.root(), path)?;
        top.pack(|piece| {
            archive.extend(piece);
            true
        })?;
        Ok(archive)
    }

    fn unpack(&self, path: &str, archive: &[u8]) -> Result<Counts, FileError> {
        let mut input = archive;
        unpack::unpack(&self.root(), &own(), path, Owners::Caller, &mut input, &Stop::default())
    }
}

fn own() -> Owner {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Owner { uid, gid, home: "/".into(), workdir: None }
}

fn entry(path: &str, kind: Kind, link: &str) -> Vec<u8> {
    let (path, link) = (path.as_bytes().to_vec(), link.as_bytes().to_vec());
    Entry { path, kind, mode: 0o644, uid: 0, gid: 0, size: 0, modified: 1, link }.encode()
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let case = Case::new();
    std::fs::create_dir_all(case.path("from/d/empty")).unwrap();
    std::fs::write(case.path("from/d/f"), vec![7; 200_001]).unwrap();
    std::fs::hard_link(case.path("from/d/f"), case.path("from/z")).unwrap();
    symlink("/somewhere/else", case.path("from/link")).unwrap();
    std::fs::write(case.path("from/run"), "#!").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(case.path("from/run"), executable).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(case.path("from/socket")).unwrap();
    let archive = case.pack("/from").unwrap();
    let counts = case.unpack("/new/to", &archive).unwrap();
    assert_eq!(counts, Counts { entries: 6, bytes: 200_003 });
    assert_eq!(std::fs::read(case.path("new/to/d/f")).unwrap(), vec![7; 200_001]);
    let inode = |path: &str| case.path(path).metadata().unwrap().ino();
    assert_eq!(inode("new/to/d/f"), inode("new/to/z"));
    assert_eq!(std::fs::read_link(case.path("new/to/link")).unwrap(), PathBuf::from("/somewhere/else"));
    assert_eq!(case.path("new/to/run").metadata().unwrap().mode() & 0o7777, 0o755);
    let modified = |path: &str| case.path(path).metadata().unwrap().mtime();
    assert_eq!(modified("new/to/run"), modified("from/run"));
    assert!(case.path("new/to/d/empty").is_dir() && !case.path("new/to/socket").exists());
    // Over what is there: files are replaced, directories stay.
    std::fs::write(case.path("new/to/d/more"), "kept").unwrap();
    case.unpack("/new/to", &archive).unwrap();
    assert!(case.path("new/to/d/more").exists());
    // One file is a tree, too.
    case.unpack("/one", &case.pack("/from/run").unwrap()).unwrap();
    assert_eq!(std::fs::read_to_string(case.path("one/run")).unwrap(), "#!");
    assert!(matches!(case.pack("/none"), Err(FileError::Missing(_))));
    assert!(matches!(case.pack("/from/socket"), Err(FileError::Special(_))));
}

#[test]
fn nothing_lands_outside_of_the_directory() {
    let case = Case::new();
    std::fs::create_dir(case.path("outside")).unwrap();
    std::fs::write(case.path("outside/f"), "kept").unwrap();
    let archive = |entries: &[Vec<u8>]| [entries.concat(), END.to_vec()].concat();
    let link = |to: &str| entry("link", Kind::Symlink, to);
    for refused in [
        archive(&[entry("../outside/f", Kind::File, "")]),
        archive(&[entry("a/../../outside/f", Kind::File, "")]),
        archive(&[link("/outside"), entry("link/f", Kind::File, "")]),
        archive(&[link("../outside"), entry("link/f", Kind::File, "")]),
        archive(&[link("../outside"), entry("link/new/f", Kind::File, "")]),
        archive(&[link("../outside"), entry("hard", Kind::HardLink, "link/f")]),
        archive(&[entry("hard", Kind::HardLink, "../outside/f")]),
        archive(&[entry("device", Kind::Block, "")]),
        archive(&[entry("d", Kind::Directory, ""), entry("d", Kind::File, "")]),
        b"no archive at all".to_vec(),
        vec![1; 512],
    ] {
        let error = case.unpack("/top", &refused).unwrap_err();
        assert!(error.status() < 500, "{error}");
    }
    assert_eq!(std::fs::read_to_string(case.path("outside/f")).unwrap(), "kept");
    assert_eq!(std::fs::read_dir(case.path("outside")).unwrap().count(), 1);
    // Links inside are followed, and a leading slash is nothing.
    let inside = archive(&[
        entry("usr/lib", Kind::Directory, ""),
        entry("lib", Kind::Symlink, "usr/lib"),
        entry("/lib/f", Kind::File, ""),
    ]);
    case.unpack("/top", &inside).unwrap();
    assert!(case.path("top/usr/lib/f").is_file());
}

#[test]
fn a_tree_that_nobody_wants_is_not_packed_on() {
    let case = Case::new();
    std::fs::write(case.path("large"), vec![0; 1 << 20]).unwrap();
    let mut pieces = 0;
    let packed = pack::Top::find(&case.root(), "/").unwrap().pack(|_| {
        pieces += 1;
        pieces < 3
    });
    assert!(matches!(packed, Err(FileError::Abandoned)));
    assert_eq!(pieces, 3);
}

#[test]
fn names_that_wait_have_a_bound() {
    let case = Case::new();
    for number in 0..100 {
        std::fs::write(case.path(&format!("a-file-with-a-name-{number}")), "").unwrap();
    }
    let pack = |most| pack::Top::find(&case.root(), "/").unwrap().pack_within(most, |_| true);
    assert!(pack(pack::MOST_NAMES).is_ok());
    assert!(matches!(pack(1000), Err(FileError::Exhausted(_))));
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_thread() {
    let (sender, pieces) = mpsc::channel(PIECES);
    sender.send(Piece::Data(Bytes::from(entry("f", Kind::Directory, "")))).await.unwrap();
    drop(sender);
    let case = Case::new();
    let (root, mut input) = (case.root(), Pieces { pieces, current: Bytes::new(), is_ended: false });
    let workers = Workers::default();
    let unpacked =
        workers.run(move |stop| unpack::unpack(&root, &own(), "/", Owners::Caller, &mut input, stop));
    assert_eq!(unpacked.await.unwrap_err().status(), 400);
}
