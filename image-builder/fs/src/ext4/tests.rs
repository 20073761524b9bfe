//! Tests of ext4.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::write::{BLOCK, END, is_complaint, run};
use super::*;
use crate::entry::{BLOCK as BLOCK_DEVICE, CHARACTER, REGULAR, TYPE};
use crate::sample::sample;
use crate::tree::{Inode, Kind, Tree};

/// One of everything, and what a script, a directory or a host could get wrong.
fn everything() -> Tree {
    let mut tree = sample().unwrap();
    let mut add = |path: &str, inode| assert!(tree.insert(path, inode).is_ok());
    let file = |content: &[u8]| Inode::new(0o644, Kind::File(content.to_vec().into()));
    let mut su = file(b"su");
    (su.meta.mode, su.meta.uid, su.meta.gid) = (0o4750, 70_000, 7);
    add("/bin/su", su);
    add("/a b/#c d", file(b"spaces"));
    add("/a b/<12>", file(b"no inode"));
    add("/a b/-R", file(b"no option"));
    add("/a b/it's $HOME\\n", file(b"no shell"));
    add("/dev/much", Inode::new(0o600, Kind::Block { major: 259, minor: 300 }));
    add("/long", Inode::new(0o777, Kind::Symlink(b"t/".repeat(1000))));
    // Blocks of zeros between others: more extents than an inode has room for.
    let holes: Vec<u8> = (0..40 * BLOCK as usize).map(|n| u8::from(n / 4096 % 2 == 0)).collect();
    add("/holes", file(&holes));
    for number in 0..600 {
        add(&format!("/many/{}-{number}", "n".repeat(90)), file(b"m"));
    }
    tree
}

#[test]
fn the_version_is_told() {
    if is_installed() {
        let version = version().unwrap();
        assert!(version.starts_with("mke2fs 1."), "{version}");
    }
}

/// As the packers do: everything with one time.
fn packed(tree: &Tree, time: u32) -> tempfile::NamedTempFile {
    let mut tree = tree.clone();
    tree.set_times(time.into());
    let file = tempfile::NamedTempFile::new().unwrap();
    write(&tree, [7; 16], time, file.path()).unwrap();
    file
}

fn tool(program: &str, arguments: &[&str], file: &Path) -> (bool, String) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(program).env("PATH", path).args(arguments).arg(file).output();
    let output = output.expect("mke2fs ran, so all of e2fsprogs is there");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Says so when the tests below can have nothing to look at.
fn is_installed() -> bool {
    let found = ["/usr/sbin/mke2fs", "/sbin/mke2fs"].iter().any(|path| Path::new(path).exists());
    if !found {
        eprintln!("skipped: mke2fs (package e2fsprogs) is not installed");
    }
    found
}

#[test]
fn e2fsck_finds_nothing_wrong_and_debugfs_sees_every_entry() {
    if !is_installed() {
        return;
    }
    // Beyond 2038, where times need their second half: 2100-01-01.
    let time: u32 = 4_102_444_800;
    let (tree, image) = (everything(), packed(&everything(), time));
    let (clean, text) = tool("e2fsck", &["-f", "-n"], image.path());
    assert!(clean, "{text}");
    let (_, many) = tool("debugfs", &["-R", "ls -p /many"], image.path());
    assert_eq!(many.lines().filter(|line| line.contains("nnn-")).count(), 600);
    for (path, id) in tree.walk().iter().filter(|(path, _)| !path.starts_with(b"/many/")) {
        let (path, inode) = (String::from_utf8(path.clone()).unwrap(), tree.inode(*id));
        let (_, text) = tool("debugfs", &["-R", &format!("stat \"{path}\"")], image.path());
        let has = |part: &str| assert!(text.contains(part), "{path}: no {part:?} in {text}");
        has(&format!("Mode:  0{:03o} ", inode.meta.mode));
        has(&format!("User: {:5}   Group: {:5}", inode.meta.uid, inode.meta.gid));
        for field in [" ctime", " atime", " mtime", "crtime"] {
            has(&format!("{field}: 0x{time:08x}:00000001"));
        }
        match &inode.kind {
            Kind::File(content) => {
                has("Type: regular");
                let (_, found) = tool("debugfs", &["-R", &format!("cat \"{path}\"")], image.path());
                assert!(found.as_bytes() == &*content.bytes().unwrap(), "{path}");
            }
            Kind::Symlink(target) if target.len() < 60 => {
                has(&format!("Fast link dest: \"{}\"", String::from_utf8_lossy(target)));
            }
            Kind::Symlink(target) => has(&format!("Size: {}", target.len())),
            Kind::Char { .. } => has("Device major/minor number: 05:01"),
            Kind::Block { major: 259, .. } => has("Device major/minor number: 259:300"),
            Kind::Block { .. } => has("Device major/minor number: 254:03"),
            Kind::Fifo => has("Type: FIFO"),
            Kind::Directory(_) => has("Type: directory"),
            Kind::Socket => unreachable!("ext4 has none"),
        }
    }
    let (_, listed) = tool("debugfs", &["-R", "ls -p /"], image.path());
    assert!(!listed.contains("lost+found"), "{listed}");
}

#[test]
fn the_same_tree_gives_the_same_bytes_at_another_time() {
    if !is_installed() {
        return;
    }
    let first = packed(&everything(), 0);
    // ext4's own times count seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let second = packed(&everything(), 0);
    assert!(fs::read(first.path()).unwrap() == fs::read(second.path()).unwrap());
    let (_, text) = tool("dumpe2fs", &["-h"], first.path());
    for line in text.lines().filter(|line| {
        ["Filesystem created", "Last write time", "Last checked"].iter().any(|name| line.starts_with(name))
    }) {
        assert!(line.ends_with("1970"), "{line}");
    }
}

#[test]
fn little_of_it_is_free() {
    if !is_installed() {
        return;
    }
    let mut large = Tree::default();
    // More than one group.
    for (name, megabytes) in [("/a", 100), ("/b", 40)] {
        let content = vec![1; megabytes << 20];
        large.insert(name, Inode::new(0o644, Kind::File(content.into()))).unwrap();
    }
    for tree in [Tree::default(), sample().unwrap(), everything(), large] {
        let image = packed(&tree, 0);
        let bytes = fs::read(image.path()).unwrap();
        let field = |at: usize| u64::from(u32::from_le_bytes(bytes[1024 + at..][..4].try_into().unwrap()));
        let (blocks, free) = (field(4), field(12));
        println!("{} inodes: {blocks} blocks, {free} of them free", tree.len());
        assert_eq!(blocks * BLOCK, bytes.len() as u64);
        assert!(free <= 64 + blocks / 50, "{free} of {blocks} blocks are free");
        assert!(tool("e2fsck", &["-f", "-n"], image.path()).0);
    }
}

#[test]
fn what_it_cannot_hold_is_refused_by_path() {
    let refused = |path: &str, inode: Inode, expected: &str| {
        let mut tree = Tree::default();
        tree.insert(path, inode).unwrap();
        let error = write(&tree, [0; 16], 0, Path::new("/nonexistent/image")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{path:?} cannot be in ext4: ")), "{error}");
        assert!(error.contains(expected), "{error}");
    };
    let link = |target: &str| Kind::Symlink(target.into());
    for (path, kind) in [("/a\"b", Kind::Fifo), ("/a\nrm b", Kind::Fifo), ("/link", link("a\nb"))] {
        refused(path, Inode::new(0, kind), "a line break or a double quote");
    }
    refused("/socket", Inode::new(0, Kind::Socket), "socket");
    refused(&format!("/{}", "x".repeat(256)), Inode::new(0, Kind::Fifo), "255 bytes");
    refused(&"/dir4".repeat(820), Inode::new(0, Kind::Fifo), "4095");
    refused("/dev", Inode::new(0, Kind::Char { major: 4096, minor: 1 }), "4096:1");
    let with = |name: &str, value: usize| {
        let mut inode = Inode::new(0, Kind::Fifo);
        inode.meta.xattrs.insert(name.into(), vec![0; value]);
        inode
    };
    refused("/big", with("user.big", 4096), "more than 4060 bytes");
    refused("/acl", with("system.nfs4_acl", 1), "system.nfs4_acl");
    let mut late = Inode::new(0, Kind::Fifo);
    late.meta.mtime = END;
    refused("/late", late, "2446");
}

#[test]
fn hard_links_and_attributes_arrive() {
    if !is_installed() {
        return;
    }
    let mut tree = sample().unwrap();
    let mut ping = Inode::new(0o755, Kind::File("ping".into()));
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    ping.meta.xattrs.insert(b"security.capability".to_vec(), capability);
    // More than an inode has room for, and all that a block has.
    ping.meta.xattrs.insert(b"user.note".to_vec(), vec![b'x'; 3900]);
    tree.insert("/bin/ping", ping).unwrap();
    // So many that the directory has more than one block.
    for number in 0..200 {
        tree.link(&format!("/bin/{}{number}", "long".repeat(10)), "/bin/ping").unwrap();
    }
    tree.link("/a pipe", "/pipe").unwrap();
    let image = packed(&tree, 0);
    let (clean, text) = tool("e2fsck", &["-f", "-n"], image.path());
    assert!(clean, "{text}");
    let stat = |path: &str| tool("debugfs", &["-R", &format!("stat \"{path}\"")], image.path()).1;
    let ping = stat("/bin/ping");
    assert!(ping.contains("Links: 201 "), "{ping}");
    let inode = ping.split_whitespace().nth(1).unwrap();
    let other = stat(&format!("/bin/{}7", "long".repeat(10)));
    assert_eq!(other.split_whitespace().nth(1).unwrap(), inode);
    assert!(stat("/a pipe").contains("Links: 2 "));
    let (_, listed) = tool("debugfs", &["-R", "ea_list /bin/ping"], image.path());
    assert!(listed.contains("security.capability (20) = 01 00 00 02 00 20"), "{listed}");
    assert!(listed.contains("user.note (3900)"), "{listed}");
    // Another file system than one without attributes, which stays as it was.
    let features = |image: &Path| tool("dumpe2fs", &["-h"], image).1;
    assert!(features(image.path()).contains("ext_attr"));
    assert!(!features(packed(&sample().unwrap(), 0).path()).contains("ext_attr"));
}

#[test]
fn what_is_written_is_read() {
    if !is_installed() {
        return;
    }
    let image = fs::read(packed(&everything(), 0).path()).unwrap();
    assert!(is(&image) && !is(&image[1..]));
    let found = read(&image).unwrap();
    let tree = everything();
    let seen: Vec<_> = found.iter().map(|entry| entry.path.as_bytes().to_vec()).collect();
    let expected: Vec<_> = tree.walk().into_iter().map(|(path, _)| path).collect();
    assert_eq!(seen, expected);
    for entry in &found {
        let inode = tree.get(&entry.path).unwrap();
        assert_eq!((entry.mode, entry.uid, entry.gid), (inode.mode().into(), inode.meta.uid, inode.meta.gid));
        let is_device = matches!(entry.mode & TYPE, CHARACTER | BLOCK_DEVICE);
        match &inode.kind {
            Kind::File(content) => assert_eq!((entry.mode & TYPE, entry.size), (REGULAR, content.len())),
            Kind::Symlink(target) => assert_eq!(entry.target.as_ref().unwrap().as_bytes(), target),
            _ => assert!(entry.target.is_none() || !is_device),
        }
    }
    let image = fs::read(packed(&sample().unwrap(), 0).path()).unwrap();
    for at in (1024..image.len()).step_by(1009) {
        let mut damaged = image.clone();
        damaged[at] ^= 0xff;
        let _answer = read(&damaged);
    }
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    let error = run("no-such-program", &[], Path::new("/"), 0).unwrap_err().to_string();
    assert!(error.contains("no-such-program") && error.contains("package e2fsprogs"), "{error}");
}

#[test]
fn a_command_that_failed_is_told_from_the_scripts_echo() {
    for line in
        ["debugfs 1.47.0 (5-Feb-2023)", "debugfs: write \"0\" \"write: x\"", "Allocated inode: 12", ""]
    {
        assert!(!is_complaint(line), "{line}");
    }
    for line in ["write: Could not allocate block in ext2 filesystem ", "/a: File not found by ext2_lookup "]
    {
        assert!(is_complaint(line), "{line}");
    }
}

#[test]
fn an_empty_file_system_is_large_and_takes_little() {
    use std::os::unix::fs::MetadataExt as _;
    let file = tempfile::NamedTempFile::new().unwrap();
    let size = 8 << 30;
    file.as_file().set_len(size).unwrap();
    // As a file without a name is called.
    let number = std::os::fd::AsRawFd::as_raw_fd(file.as_file());
    empty(Path::new(&format!("/proc/{}/fd/{number}", std::process::id()))).unwrap();
    let metadata = file.as_file().metadata().unwrap();
    assert_eq!(metadata.len(), size);
    assert!(metadata.blocks() * 512 < 16 << 20, "{} blocks are written", metadata.blocks());
    let output = std::process::Command::new("/sbin/e2fsck").args(["-fn"]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(empty(Path::new("/no/such/file")).is_err());
}
