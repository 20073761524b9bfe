//! A tree with one of almost everything, for the tests of those who read or write file systems.

use crate::tree::{Inode, Kind, Tree, TreeError};

/// Ten entries that every format holds: files, a link, devices, a pipe, and directories nobody named.
///
/// # Errors
/// None; the signature spares a panic.
pub fn sample() -> Result<Tree, TreeError> {
    let mut tree = Tree::default();
    for (path, mode, kind) in [
        ("/init", 0o755, Kind::File(vec![7; 1025].into())),
        ("/dev/console", 0o600, Kind::Char { major: 5, minor: 1 }),
        ("/etc/empty", 0o644, Kind::File("".into())),
        ("/bin/sh", 0o777, Kind::Symlink(b"busybox".to_vec())),
        ("/tmp", 0o1777, Kind::directory()),
        ("/pipe", 0o640, Kind::Fifo),
        ("/disk", 0o660, Kind::Block { major: 254, minor: 3 }),
    ] {
        tree.insert(path, Inode::new(mode, kind))?;
    }
    Ok(tree)
}
