//! Tests of EROFS.

use std::process::Command;

use std::io;

use super::write::{crc32c, device_number};
use super::*;
use crate::WriteError;
use crate::entry::DIRECTORY;
use crate::tree::{Inode, Kind, Meta, Tree};

/// A tree with one of everything, and a directory of more than one block.
fn everything() -> Tree {
    let mut tree = Tree::new();
    let file = |tree: &mut Tree, path: &str, bytes: &[u8], meta: Meta| {
        tree.put(path.as_bytes(), Inode { meta, kind: Kind::File(bytes.to_vec().into()) }).unwrap();
    };
    let meta = |mode| Meta { mode, uid: 70_000, gid: 7, mtime: 1_700_000_000, ..Meta::default() };
    file(&mut tree, "bin/su", b"su", meta(0o4755));
    file(&mut tree, "empty", b"", meta(0o600));
    file(&mut tree, "block", &[1; 4096], meta(0o644));
    file(&mut tree, "tail", &[2; 4100], meta(0o644));
    file(&mut tree, "fat-tail", &[3; 8191], meta(0o644));
    let mut with_xattr = meta(0o755);
    with_xattr
        .xattrs
        .insert(b"security.capability".to_vec(), b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec());
    with_xattr.xattrs.insert(b"user.note".to_vec(), b"x".to_vec());
    file(&mut tree, "caps", b"caps", with_xattr);
    for number in 0..600 {
        file(&mut tree, &format!("many/a-rather-long-name-{number:04}"), b"m", meta(0o644));
    }
    file(&mut tree, "many/-first", b"", meta(0o644));
    tree.put_hard_link(b"hard", b"bin/su").unwrap();
    let mut put = |path: &str, kind: Kind| {
        tree.put(path.as_bytes(), Inode { meta: meta(0o777), kind }).unwrap();
    };
    put("soft", Kind::Symlink(b"bin/su".to_vec()));
    put("null", Kind::Char { major: 1, minor: 3 });
    put("disk", Kind::Block { major: 259, minor: 300 });
    put("pipe", Kind::Fifo);
    put("socket", Kind::Socket);
    put("void", Kind::directory());
    tree
}

fn on_disk(tree: &Tree) -> Result<Vec<u8>, WriteError> {
    let disk = tempfile::NamedTempFile::new().unwrap();
    write(tree, [7; 16], disk.as_file())?;
    Ok(std::fs::read(disk.path()).unwrap())
}

fn image() -> Vec<u8> {
    on_disk(&everything()).unwrap()
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let first = image();
    assert_eq!(first.len() % 4096, 0);
    assert!(first == image());
}

#[test]
fn the_checksum_is_the_published_one() {
    // RFC 3720 B.4: 32 bytes of zeros have CRC-32C 0x8a9136aa, inverted at the end.
    assert_eq!(!crc32c(&[0; 32]), 0x8a91_36aa);
}

#[test]
fn device_numbers_are_packed_like_the_kernel_does() {
    assert_eq!(device_number(1, 3), 0x103);
    assert_eq!(device_number(259, 300), 0x0011_032c);
}

#[test]
fn what_the_format_cannot_hold_is_refused_by_name() {
    let refused = |path: &str, inode: Inode| {
        let mut tree = everything();
        tree.put(path.as_bytes(), inode).unwrap();
        on_disk(&tree).unwrap_err().to_string()
    };
    let with = |name: &str, value: Vec<u8>| {
        let mut inode = Inode::new(0o644, Kind::Fifo);
        inode.meta.xattrs.insert(name.into(), value);
        inode
    };
    let long = "n".repeat(256);
    let far = "t".repeat(4096).into_bytes();
    for (path, inode, expected) in [
        ("a/b/big", with("user.big", vec![0; 70_000]), "the extended attribute user.big is too long"),
        ("a/b/acl", with("system.nfs4_acl", vec![0]), "system.nfs4_acl is in no name space"),
        ("many/link", Inode::new(0o777, Kind::Symlink(far)), "its target has more than 4095 bytes"),
        ("dev", Inode::new(0, Kind::Char { major: 1, minor: 1 << 20 }), "1:1048576"),
        (long.as_str(), Inode::new(0, Kind::Fifo), "longer than 255 bytes"),
    ] {
        let error = refused(path, inode);
        assert!(error.starts_with(&format!("\"/{path}\" cannot be in EROFS: ")), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    let mut many = Inode::new(0o644, Kind::Fifo);
    for number in 0..9 {
        many.meta.xattrs.insert(format!("user.{number}").into(), vec![0; 8000]);
    }
    assert!(refused("many/x", many).ends_with("its extended attributes take more than 64 KiB"));
    let mut tree = everything();
    tree.put(b"x", with("system.nfs4_acl", vec![0])).unwrap();
    tree.retain_xattrs(is_attribute);
    on_disk(&tree).unwrap();
}

/// erofs-utils' own checker is the judge where it is installed; the guest's kernel is in the e2e tests.
#[test]
fn fsck_finds_nothing_wrong_and_extracts_the_tree() {
    if Command::new("fsck.erofs").arg("-V").output().is_err() {
        eprintln!("skipped: fsck.erofs (package erofs-utils) is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.erofs");
    std::fs::write(&disk, image()).unwrap();
    let out = dir.path().join("out");
    let checked =
        Command::new("fsck.erofs").arg(format!("--extract={}", out.display())).arg(&disk).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let read = |name: &str| std::fs::read(out.join(name)).unwrap();
    assert_eq!(read("bin/su"), b"su");
    assert_eq!(read("hard"), b"su");
    assert_eq!(read("tail"), [2; 4100]);
    assert_eq!(read("fat-tail"), [3; 8191]);
    assert_eq!(read("block"), [1; 4096]);
    assert_eq!(std::fs::read_link(out.join("soft")).unwrap(), std::path::Path::new("bin/su"));
    assert_eq!(std::fs::read_dir(out.join("many")).unwrap().count(), 601);
    let dump = Command::new("dump.erofs").arg("--path=/caps").arg(&disk).output().unwrap();
    let text = String::from_utf8_lossy(&dump.stdout).into_owned();
    assert!(text.contains("Uid: 70000") && text.contains("Xattr size: "), "{text}");
}

#[test]
fn content_of_every_size_arrives_in_whichever_form_it_is() {
    // Larger and smaller than what is collected; and a directory between them.
    let sizes = [0, 1, 4096, 4032, 4033, 30_000, 32_768, 131_072, 200_001, 399_999];
    let mut spool = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> =
        (0..500_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    io::Write::write_all(&mut spool, &bytes).unwrap();
    let spool = std::sync::Arc::new(spool);
    let disk = |form: &dyn Fn(usize, usize) -> crate::Content| {
        let mut tree = everything();
        for (number, len) in sizes.into_iter().enumerate() {
            let path = format!("large/{number}/file");
            tree.put(path.as_bytes(), Inode::new(0o644, Kind::File(form(number, len)))).unwrap();
        }
        on_disk(&tree).unwrap()
    };
    let image = disk(&|start, len| bytes[start..][..len].to_vec().into());
    let kept = disk(&|start, len| {
        crate::Extent::new(std::sync::Arc::clone(&spool), start as u64, len as u64).into()
    });
    assert!(image == kept);
    for (start, len) in sizes.into_iter().enumerate() {
        let (whole, tail) = bytes[start..][..len].split_at(len / 4096 * 4096);
        let is_there =
            |part: &[u8], step| (0..image.len()).step_by(step).any(|at| image[at..].starts_with(part));
        assert!(is_there(whole, 4096) && is_there(tail, 32), "{len} bytes");
    }
}

#[test]
fn what_is_written_is_read() {
    let image = image();
    assert!(is(&image) && !is(&image[1..]));
    let found = read(&image).unwrap();
    let seen: Vec<_> = found.iter().map(|entry| entry.path.as_bytes().to_vec()).collect();
    let tree = everything();
    let expected: Vec<_> = tree.walk().into_iter().map(|(path, _)| path).collect();
    assert_eq!(seen, expected);
    for entry in &found {
        let inode = tree.get(&entry.path).unwrap();
        assert_eq!((entry.mode, entry.uid, entry.gid), (inode.mode().into(), inode.meta.uid, inode.meta.gid));
        if let Kind::File(content) = &inode.kind {
            assert_eq!(entry.size, content.len());
        }
    }
    let target = |path: &str| found.iter().find(|entry| entry.path == path).unwrap().target.clone().unwrap();
    assert_eq!([target("/soft"), target("/disk")], ["bin/su", "259:300"]);
    assert!(found.iter().any(|entry| entry.path == "/void" && entry.mode & crate::entry::TYPE == DIRECTORY));
}

/// For kernels with larger pages that take no smaller blocks.
#[test]
fn blocks_of_every_size_hold_the_same() {
    let tree = everything();
    let usual = read(&image()).unwrap();
    for block_size in BlockSize::ALL {
        let parameters = Parameters { uuid: [7; 16], block_size };
        let file = tempfile::NamedTempFile::new().unwrap();
        write(&tree, parameters, file.as_file()).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(bytes.len() as u64 % block_size.bytes(), 0);
        assert_eq!(1 << bytes[1024 + 12], block_size.bytes());
        assert_eq!(read(&bytes).unwrap(), usual, "{block_size:?}");
        let contents = super::read::contents(&bytes).unwrap();
        assert_eq!(contents.len(), 608, "{block_size:?}");
        for (path, content) in contents {
            let Kind::File(expected) = &tree.get(&path).unwrap().kind else { panic!("{path} is no file") };
            let mut bytes = Vec::new();
            expected.copy(0, expected.len(), &mut bytes).unwrap();
            assert!(content == bytes, "{path} with blocks of {block_size:?}");
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    write(&tree, Parameters { uuid: [7; 16], ..Parameters::default() }, file.as_file()).unwrap();
    assert!(std::fs::read(file.path()).unwrap() == image(), "4 KiB is the usual size");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// A byte anywhere may be anything.
    #[test]
    fn damage_is_survived(at in 0usize..60_000, value: u8) {
        let mut bytes = image();
        let at = at % bytes.len();
        bytes[at] = value;
        let _answer = read(&bytes);
    }
}
