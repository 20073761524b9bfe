//! The guest's own root as an EROFS file system.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

use super::erofs;
use super::error::ImageError;
use super::spool::Spool;
use super::tree::{Inode, Kind, Meta, Tree};
use crate::tree;

/// Makes an EROFS file system of a recipe's tree, every entry with the modification time `mtime` (seconds since 1970).
///
/// # Errors
/// When a temporary file cannot be written, or the format cannot hold the tree.
pub fn root_file_system(tree: &tree::Tree, mtime: u32, uuid: [u8; 16]) -> Result<Vec<u8>, ImageError> {
    let directory = std::env::temp_dir();
    let scratch = |error| ImageError::io("create a file in", &directory, error);
    let mut spool = Spool::new(&directory).map_err(scratch)?;
    let mut packed = Tree::new();
    let meta = |mode: u32| Meta { mode: (mode & 0o7777) as u16, mtime: mtime.into(), ..Meta::default() };
    let root = Inode { meta: meta(0o755), kind: Kind::Directory(BTreeMap::new()) };
    put(&mut packed, "/", root)?;
    for (path, node) in tree.iter() {
        let kind = match &node.kind {
            tree::Kind::Directory => Kind::Directory(BTreeMap::new()),
            tree::Kind::File(content) => Kind::File(spool.append(&mut &content[..]).map_err(scratch)?),
            tree::Kind::Symlink(target) => Kind::Symlink(target.clone().into_bytes()),
            &tree::Kind::Character { major, minor } => Kind::Char { major, minor },
            &tree::Kind::Block { major, minor } => Kind::Block { major, minor },
            tree::Kind::Fifo => Kind::Fifo,
        };
        let meta = Meta { uid: node.uid, gid: node.gid, ..meta(node.mode) };
        put(&mut packed, path.as_str(), Inode { meta, kind })?;
    }
    let mut file = tempfile::tempfile_in(&directory).map_err(scratch)?;
    let copy = file.try_clone().map_err(scratch)?;
    let wrong = |source| ImageError::Disk { path: "/".into(), source: Box::new(source) };
    erofs::write(&packed, &spool, uuid, copy).map_err(wrong)?;
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(scratch)?;
    Ok(bytes)
}

fn put(tree: &mut Tree, path: &str, inode: Inode) -> Result<(), ImageError> {
    let wrong = |source: super::tree::TreeError| ImageError::source(Path::new(path), source.to_string());
    tree.put(path.as_bytes(), inode).map(|_| ()).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::format::cpio::tests::sample;

    #[test]
    fn the_systems_tools_accept_it_and_see_every_entry() {
        let bytes = root_file_system(&sample(), 77, [7; 16]).unwrap();
        assert!(bytes == root_file_system(&sample(), 77, [7; 16]).unwrap());
        assert_eq!(bytes.len() % 4096, 0);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).arg(file.path()).output();
            output
                .map(|output| (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
        };
        let Ok((clean, _)) = run("fsck.erofs", &[]) else {
            return eprintln!("skipped: fsck.erofs (erofs-utils) does not run");
        };
        assert!(clean);
        for (path, _) in sample().iter() {
            let (found, text) = run("dump.erofs", &[&format!("--path={path}")]).unwrap();
            assert!(found && text.contains("1970-01-01 00:01:17"), "{path}: {text}");
        }
    }
}
