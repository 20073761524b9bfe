//! Files of a root that is a temporary directory.

use super::*;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::sync::Arc;

struct Case {
    dir: tempfile::TempDir,
    root: Root,
}

impl Case {
    /// A root with a sibling that nobody may reach from it.
    fn new() -> Case {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        let root = Root::new(Arc::new(std::fs::File::open(dir.path().join("root")).unwrap().into()));
        Case { dir, root }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn read(&self, path: &str) -> Result<String, FileError> {
        let mut text = String::new();
        self.root.read(path)?.0.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    fn write(&self, path: &str, text: &str) -> Result<(), FileError> {
        self.root.write(path, &own())?.write_all(text.as_bytes()).unwrap();
        Ok(())
    }

    fn entry(&self, path: &str) -> serde_json::Value {
        Entry::of(&self.root, &self.root.names(), path).unwrap().to_json()
    }
}

/// Who runs the test: to give files to others takes root.
fn own() -> Owner {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Owner { uid, gid, home: "/home".into(), workdir: None }
}

#[test]
fn files_are_made_with_their_directories_and_emptied_in_place() {
    let case = Case::new();
    case.write("/a/b/f", "long text").unwrap();
    let inode = case.path("a/b/f").metadata().unwrap().ino();
    case.write("/a/b/f", "x").unwrap();
    assert_eq!(case.read("/a/b/f").unwrap(), "x");
    let metadata = case.path("a/b/f").metadata().unwrap();
    assert_eq!((metadata.ino(), metadata.mode() & 0o7777), (inode, 0o644));
    assert_eq!(case.path("a").metadata().unwrap().mode() & 0o7777, 0o755);
    // By way of what is not there yet, as a shell does it step by step.
    case.write("/n/../m/f", "y").unwrap();
    assert_eq!(case.read("/m/f").unwrap(), "y");
    assert!(case.path("n").is_dir());
}

#[test]
fn no_link_leads_out() {
    let case = Case::new();
    let outside = case.dir.path().join("secret");
    symlink("../secret", case.path("up")).unwrap();
    symlink(&outside, case.path("absolute")).unwrap();
    symlink("../../../../../../../..", case.path("far")).unwrap();
    symlink("/proc/self/root", case.path("magic")).unwrap();
    for path in ["/up", "/absolute", "/../secret", "/far/../secret", "/magic/etc/passwd"] {
        assert!(matches!(case.read(path), Err(FileError::Missing(_))), "{path}");
    }
    // What a link names is made inside.
    case.write("/up", "in").unwrap();
    case.write("/absolute", "in").unwrap();
    case.write("/far/new/f", "in").unwrap();
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "outside");
    assert_eq!(case.read("/secret").unwrap(), "in");
    assert_eq!(case.read("/new/f").unwrap(), "in");
    assert!(case.path(&outside.to_str().unwrap()[1..]).is_file());
}

#[test]
fn loops_and_files_on_the_way_are_told() {
    let case = Case::new();
    symlink("loop", case.path("loop")).unwrap();
    case.write("/f", "1").unwrap();
    assert!(matches!(case.read("/loop"), Err(FileError::Loop(_))));
    assert!(matches!(case.write("/loop", ""), Err(FileError::Loop(_))));
    assert!(matches!(case.write("/loop/x", ""), Err(FileError::Loop(_))));
    assert!(matches!(case.read("/f/x"), Err(FileError::Missing(_))));
    assert!(matches!(case.write("/f/x", ""), Err(FileError::NoDirectory(_))));
    assert!(matches!(case.write("/f/x/y", ""), Err(FileError::NoDirectory(_))));
    for directory in ["/", "/f/", "/..", "/a/."] {
        assert!(matches!(case.write(directory, ""), Err(FileError::Directory(_))), "{directory}");
    }
    let long = format!("/{}", "x".repeat(300));
    assert_eq!(case.read(&long).unwrap_err().status(), 400);
    assert_eq!(case.read(&"/x".repeat(5000)).unwrap_err().status(), 400);
    // Links that lead to nothing, one after the other.
    for number in 0..30 {
        symlink(format!("chain{}", number + 1), case.path(&format!("chain{number}"))).unwrap();
    }
    case.write("/chain0", "end").unwrap();
    assert_eq!(case.read("/chain30").unwrap(), "end");
}

#[test]
fn nothing_but_files_is_opened() {
    let case = Case::new();
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, case.path("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(case.path("socket")).unwrap();
    std::fs::create_dir(case.path("d")).unwrap();
    for path in ["/pipe", "/socket"] {
        assert!(matches!(case.read(path), Err(FileError::Special(_))), "{path}");
        assert!(matches!(case.write(path, ""), Err(FileError::Special(_))), "{path}");
    }
    assert_eq!(case.read("/d").unwrap_err().to_string(), "path '/d' is a directory");
    assert_eq!(case.write("/d", "").unwrap_err().to_string(), "path is a directory: /d");
    assert_eq!(case.entry("/pipe")["permissions"], "prwx------");
    assert!(case.entry("/pipe").get("type").is_none());
}

#[test]
fn entries_are_told_as_they_are() {
    let case = Case::new();
    std::fs::create_dir_all(case.path("d/e")).unwrap();
    case.write("/d/f", "123").unwrap();
    case.write("/d/empty", "").unwrap();
    symlink("/d/f", case.path("d/link")).unwrap();
    symlink("../../d", case.path("d/e/up")).unwrap();
    symlink("nothing", case.path("d/broken")).unwrap();
    let file = case.entry("/d/f");
    assert_eq!(
        (&file["name"], &file["path"], &file["type"]),
        (&"f".into(), &"/d/f".into(), &"FILE_TYPE_FILE".into())
    );
    assert_eq!((&file["size"], &file["mode"]), (&"3".into(), &0o644.into()));
    assert_eq!(file["permissions"], "-rw-r--r--");
    assert!(file["modifiedTime"].as_str().unwrap().ends_with('Z'));
    for absent in ["symlinkTarget", "isSymlink", "metadata"] {
        assert!(file.get(absent).is_none(), "{absent}");
    }
    assert!(case.entry("/d/empty").get("size").is_none());
    // Without a table of users a number is the name.
    assert_eq!(file["owner"], own().uid.to_string());
    std::fs::create_dir(case.path("etc")).unwrap();
    std::fs::write(case.path("etc/passwd"), format!("me:x:{}:0::/:\n", own().uid)).unwrap();
    assert_eq!(case.entry("/d/f")["owner"], "me");
    let link = case.entry("/d/link");
    assert_eq!((&link["symlinkTarget"], &link["type"]), (&"/d/f".into(), &"FILE_TYPE_FILE".into()));
    assert_eq!((&link["permissions"], &link["mode"]), (&"Lrwxrwxrwx".into(), &0o644.into()));
    assert_eq!(link["isSymlink"], true);
    assert_eq!(case.entry("/d/e/up")["symlinkTarget"], "/d");
    let broken = case.entry("/d/broken");
    assert_eq!(broken["symlinkTarget"], "/d/broken");
    assert!(broken.get("type").is_none() && broken.get("mode").is_none());
    assert_eq!(case.entry("/")["name"], "/");
    assert_eq!(case.entry("/d/")["name"], "d");
}

#[test]
fn links_that_are_swapped_meanwhile_lead_nowhere_else() {
    let case = Case::new();
    std::fs::create_dir_all(case.path("real/x")).unwrap();
    std::fs::write(case.path("real/secret"), "inside").unwrap();
    let (here, there) = (case.path("swapped"), case.path("other"));
    symlink("real", &here).unwrap();
    symlink("../..", &there).unwrap();
    let swap = std::thread::spawn(move || {
        for _ in 0..2000 {
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                &here,
                rustix::fs::CWD,
                &there,
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .unwrap();
        }
    });
    while !swap.is_finished() {
        if let Ok(text) = case.read("/swapped/secret") {
            assert_eq!(text, "inside");
        }
    }
    swap.join().unwrap();
}
