//! File systems from anybody, and trees of any names and metadata. The first byte says which:
//! a cpio archive, an EROFS or an ext4 as it stands; one that we wrote, with bytes of it changed; or a tree, which is written.

#![no_main]

use fs_image::sample::sample;
use fs_image::{Inode, Kind, Meta, Tree, WriteError, cpio, erofs, ext4};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((form, rest)) = input.split_first() else { return };
    match form % 6 {
        0 => drop(cpio::read(rest)),
        1 => drop(erofs::read(rest)),
        2 => drop(ext4::read(rest)),
        3 => drop(erofs::read(&changed(on_erofs(&sample().expect("the sample")).expect("it fits"), rest))),
        4 => drop(cpio::read(&changed(cpio::archive(&sample().expect("the sample")).expect("fits"), rest))),
        _ => written(rest),
    }
});

/// With three bytes each of `changes`: where, and what is there then.
fn changed(mut image: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % image.len();
        image[at] = change[2];
    }
    image
}

fn on_erofs(tree: &Tree) -> Result<Vec<u8>, WriteError> {
    let disk = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file in memory");
    erofs::write(tree, [1; 16], disk.as_file())?;
    Ok(std::fs::read(disk.path()).expect("what was written"))
}

/// Lines of names, each behind a byte that says what has it. What is written has them all when it is read.
fn written(text: &[u8]) {
    let mut tree = Tree::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some((kind, name)) = line.split_first() else { continue };
        let meta = Meta { mode: u16::from(*kind) << 4, uid: u32::from(*kind) << 20, ..Meta::default() };
        let kind = match kind % 4 {
            0 => Kind::directory(),
            1 => Kind::Symlink(name.to_vec()),
            2 => Kind::Char { major: u32::from(*kind), minor: 7 },
            _ => Kind::File(name.repeat(usize::from(*kind)).into()),
        };
        drop(tree.put(name, Inode { meta, kind }));
    }
    if let Ok(image) = on_erofs(&tree) {
        let paths =
            |found: Vec<fs_image::Entry>| found.into_iter().map(|entry| entry.path).collect::<Vec<_>>();
        let mut expected: Vec<_> =
            tree.walk().iter().map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect();
        expected.sort();
        // A name ends at a NUL, and deeper trees than this are refused.
        let is_plain = expected.iter().all(|path| !path.contains('\0') && path.matches('/').count() < 100);
        if is_plain {
            assert_eq!(paths(erofs::read(&image).expect("what is written is read")), expected);
        }
    }
    drop(cpio::archive(&tree));
}
