//! What an image brings to a recipe, in the products that are made of it.

use std::path::Path;
use std::process::Command;

use crate::disk;
use crate::format::compress::Compression;
use crate::initrd;
use store::cache::write_atomically;
use store::digest::Digest;
use store::layout::Layout;
use store::product::{FileSystem, Form};

/// A file capability as the kernel keeps it: version 2, effective, CAP_NET_RAW.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// A saved image with `/bin/ping`, which may send raw packets, under a second name.
fn saved_image() -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o755);
    header.set_size(4);
    layer.append_pax_extensions([("SCHILY.xattr.security.capability", CAPABILITY)]).unwrap();
    layer.append_data(&mut header, "bin/ping", &b"ping"[..]).unwrap();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    layer.append_link(&mut header, "bin/ping6", "bin/ping").unwrap();
    let layer = layer.into_inner().unwrap();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", Digest::of(&layer))]},
    });
    let config = config.to_string().into_bytes();
    let name = format!("{}.json", Digest::of(&config));
    let manifest = serde_json::json!([{"Config": name, "RepoTags": ["ping:1"], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in
        [("manifest.json", manifest.to_string().into_bytes()), (&name, config), ("layer.tar", layer)]
    {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

/// A source tree with a flavour of the image alone.
fn layout(dir: &Path, key: &str) -> Layout {
    let layout = Layout::new(dir.into(), None);
    write_atomically(&layout.rootfs().join("ping.tar"), &saved_image()).unwrap();
    let recipe =
        format!("description = 'd'\n[budget]\ncompressed = 99999\n[[image]]\npath = 'ping.tar'\n{key}\n");
    write_atomically(&layout.flavour("ping"), recipe.as_bytes()).unwrap();
    layout
}

fn on_disk(layout: &Layout, root_fs: FileSystem) -> Result<disk::Disk, super::PackError> {
    let options = disk::Options { flavour: "ping".into(), form: Form::Plain, root_fs, epoch: 7, twice: true };
    disk::pack(layout, &options)
}

/// The file system of a disk, in a file.
fn root(disk: &disk::Disk, dir: &Path) -> String {
    let part = &disk.part().partitions[0];
    let (start, len) = (part.start as usize, part.size as usize);
    let path = dir.join("root");
    std::fs::write(&path, &disk.image()[start..start + len]).unwrap();
    path.display().to_string()
}

/// What a tool says of the file system; nothing, with a line, where it is missing.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    match Command::new(program).env("PATH", path).args(arguments).output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            eprintln!("skipped: {program} does not run: {error}");
            None
        }
    }
}

#[test]
fn hard_links_and_file_capabilities_of_an_image_arrive_in_a_disk() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), "");
    let disk = on_disk(&layout, FileSystem::Erofs).unwrap();
    // The format's entry: bytes of the name, the prefix `security.`, bytes of the value.
    let entry = [&[10, 6, 20, 0], &b"capability"[..], CAPABILITY].concat();
    assert!(disk.image().windows(entry.len()).any(|window| window == entry));
    let [_, ping, ping6] = &disk.part().entries[..] else { panic!("{:?}", disk.part().entries) };
    assert_eq!((ping.link.as_deref(), ping6.link.as_deref()), (None, Some("/bin/ping")));
    assert_eq!(ping.xattrs["security.capability"], Digest::of(CAPABILITY));
    let root = root(&disk, dir.path());
    let number = |path: &str| {
        let text = said("dump.erofs", &[&format!("--path={path}"), &root])?;
        assert!(text.contains("Links: 2"), "{text}");
        Some(text.split("NID: ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned())
    };
    assert_eq!(number("/bin/ping"), number("/bin/ping6"));
}

#[test]
fn they_arrive_on_ext4_too() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), "");
    if said("mke2fs", &["-V"]).is_none() {
        return;
    }
    let disk = on_disk(&layout, FileSystem::Ext4).unwrap();
    let root = root(&disk, dir.path());
    for path in ["/bin/ping", "/bin/ping6"] {
        let stat = said("debugfs", &["-R", &format!("stat {path}"), &root]).unwrap();
        assert!(stat.contains("Links: 2"), "{stat}");
        let listed = said("debugfs", &["-R", &format!("ea_list {path}"), &root]).unwrap();
        assert!(listed.contains("security.capability (20) = 01 00 00 02 00 20"), "{listed}");
    }
}

#[test]
fn an_initrd_has_the_links_and_refuses_capabilities_by_name_unless_they_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let pack = |layout: &Layout| {
        let (flavour, compression) = ("ping".into(), Compression::None);
        initrd::pack(layout, &initrd::Options { flavour, compression, epoch: 7, twice: true, cache: None })
    };
    let refused = anyhow::Error::from(pack(&layout(dir.path(), "")).unwrap_err());
    let text = format!("{refused:#}");
    assert!(text.contains("attributes = false") && text.contains("/bin/ping"), "{text}");
    assert!(text.contains("security.capability"), "{text}");
    let initrd = pack(&layout(dir.path(), "attributes = false")).unwrap();
    let links: Vec<_> = initrd.part().entries.iter().map(|entry| entry.link.as_deref()).collect();
    assert_eq!(links, [None, None, Some("/bin/ping")]);
    // Two names of one inode, and the content once.
    let content = initrd.image().windows(4).filter(|window| window == b"ping").count();
    let names = initrd.image().windows(8).filter(|window| window == b"bin/ping").count();
    assert_eq!((names, content - names), (2, 1));
}
