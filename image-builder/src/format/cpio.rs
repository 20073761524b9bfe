//! Writes a [`Tree`] as a `newc` cpio archive, the format of an initramfs.
//!
//! The `cpio` crate lays out single entries; this module decides everything around them. Entries come in the tree's
//! order, parents first, because the kernel creates them as it reads. Inode numbers count from 1, times are the one
//! given, and one trailer ends the archive, padded with zeros to 512 bytes as the format's tools do.
//! Must never write an entry whose size or name the format cannot hold.

use std::io::{self, Write};

use cpio::newc;

use crate::tree::{Kind, Node, Tree, TreePath};

/// Why a tree cannot be an archive.
#[derive(Debug, thiserror::Error)]
pub enum CpioError {
    /// A file is 4 GiB or larger.
    #[error("{path} has {size} bytes; the format ends at 4 GiB - 1")]
    TooLarge {
        /// The entry.
        path: TreePath,
        /// Its size.
        size: usize,
    },
    /// An entry is called like the end of the archive.
    #[error("{0} cannot be archived: its name is the mark of the end")]
    Reserved(TreePath),
    /// There are more entries than inode numbers.
    #[error("there are too many entries")]
    TooMany,
    /// Writing to memory failed.
    #[error("cannot write the archive")]
    Write(#[from] io::Error),
}

/// The archive of `tree`, every entry with the modification time `mtime` (seconds since 1970).
///
/// # Errors
/// When an entry does not fit the format.
pub fn archive(tree: &Tree, mtime: u32) -> Result<Vec<u8>, CpioError> {
    let mut out = Vec::new();
    for (index, (path, node)) in tree.iter().enumerate() {
        let inode = u32::try_from(index + 1).map_err(|_| CpioError::TooMany)?;
        entry(&mut out, path, node, inode, mtime)?;
    }
    newc::trailer(&mut out)?;
    out.resize(out.len().next_multiple_of(512), 0);
    Ok(out)
}

fn entry(out: &mut Vec<u8>, path: &TreePath, node: &Node, inode: u32, mtime: u32) -> Result<(), CpioError> {
    if path.relative() == "TRAILER!!!" {
        return Err(CpioError::Reserved(path.clone()));
    }
    let (content, device) = match &node.kind {
        Kind::Directory | Kind::Fifo => (&[][..], (0, 0)),
        Kind::File(content) => (&content[..], (0, 0)),
        Kind::Symlink(target) => (target.as_bytes(), (0, 0)),
        Kind::Character { major, minor } | Kind::Block { major, minor } => (&[][..], (*major, *minor)),
    };
    let size = u32::try_from(content.len())
        .map_err(|_| CpioError::TooLarge { path: path.clone(), size: content.len() })?;
    let mut writer = newc::Builder::new(path.relative())
        .ino(inode)
        .mode(node.kind.bits() | (node.mode & 0o7777))
        .uid(node.uid)
        .gid(node.gid)
        .nlink(if node.kind == Kind::Directory { 2 } else { 1 })
        .mtime(mtime)
        .rdev_major(device.0)
        .rdev_minor(device.1)
        .write(out, size);
    // The crate's `finish` does not notice a short write, so all of it is written before.
    writer.write_all(content)?;
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An entry as an independent reader of the format sees it.
    #[derive(Debug, PartialEq, Eq)]
    pub(crate) struct Seen {
        pub(crate) name: String,
        pub(crate) mode: u32,
        pub(crate) inode: u32,
        pub(crate) mtime: u32,
        pub(crate) device: (u32, u32),
        pub(crate) content: Vec<u8>,
    }

    /// Reads an archive by the format's description alone: 6 bytes of magic, 13 fields of 8 hexadecimal digits, the
    /// name with its NUL padded to 4, the content padded to 4.
    pub(crate) fn read(archive: &[u8]) -> Vec<Seen> {
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

    pub(crate) fn sample() -> Tree {
        let mut tree = Tree::default();
        let mut add = |path: &str, node| tree.insert(TreePath::parse(path).unwrap(), node).unwrap();
        add("/init", Node::new(0o755, Kind::File(vec![7; 1025])));
        add("/dev/console", Node::new(0o600, Kind::Character { major: 5, minor: 1 }));
        add("/etc/empty", Node::new(0o644, Kind::File(Vec::new())));
        add("/bin/sh", Node::new(0o777, Kind::Symlink("busybox".into())));
        add("/tmp", Node::new(0o1777, Kind::Directory));
        add("/pipe", Node::new(0o640, Kind::Fifo));
        add("/disk", Node::new(0o660, Kind::Block { major: 254, minor: 3 }));
        tree
    }

    #[test]
    fn an_independent_reader_sees_the_tree() {
        let seen = read(&archive(&sample(), 77).unwrap());
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
        child.stdin.take().unwrap().write_all(&archive(&sample(), 0).unwrap()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let listed = String::from_utf8(output.stdout).unwrap();
        let names: Vec<_> = listed.lines().collect();
        let tree = sample();
        let expected: Vec<_> = tree.iter().map(|(path, _)| path.relative()).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn an_empty_tree_is_a_trailer() {
        assert_eq!(read(&archive(&Tree::default(), 0).unwrap()), []);
    }

    #[test]
    fn the_name_of_the_trailer_is_reserved() {
        let mut tree = Tree::default();
        tree.insert(TreePath::parse("/TRAILER!!!").unwrap(), Node::new(0, Kind::Fifo)).unwrap();
        assert!(matches!(archive(&tree, 0), Err(CpioError::Reserved(_))));
        let mut tree = Tree::default();
        tree.insert(TreePath::parse("/a/TRAILER!!!").unwrap(), Node::new(0, Kind::Fifo)).unwrap();
        assert_eq!(read(&archive(&tree, 0).unwrap()).len(), 2);
    }
}
