//! The guest's own root: as an EROFS file system, and from images.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

use super::Ceiling;
use super::error::ImageError;
use super::spool::Spool;
use super::tree::{Inode, InodeId, Kind, Meta, Tree};
use super::{erofs, source};
use crate::cache::Cache;
use crate::tree;

/// Makes an EROFS file system of a recipe's tree, every entry with the modification time `mtime` (seconds since 1970).
///
/// # Errors
/// When a temporary file cannot be written, or the format cannot hold the tree.
pub fn root_file_system(tree: &tree::Tree, mtime: u32, uuid: [u8; 16]) -> Result<Vec<u8>, ImageError> {
    let directory = std::env::temp_dir();
    let scratch = |error| ImageError::io("create a file in", &directory, error);
    let mut spool = Spool::new(&directory, Ceiling::default()).map_err(scratch)?;
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
    let wrong =
        |source| ImageError::Disk { path: "/".into(), place: directory.clone(), source: Box::new(source) };
    erofs::write(&packed, &spool, uuid, copy).map_err(wrong)?;
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(scratch)?;
    Ok(bytes)
}

/// The files of the image at `reference` (as [`super::prepare`] takes it), layers applied, as a recipe's tree. A file of two
/// names becomes two files; extended attributes, which an initrd cannot hold, are left out.
///
/// # Errors
/// As [`super::prepare`]; and when a name is not UTF-8, or an entry is a socket.
pub fn contents(reference: &str) -> Result<tree::Tree, ImageError> {
    let temporary = std::env::temp_dir();
    let scratch = |error| ImageError::io("create a directory in", &temporary, error);
    let work = tempfile::tempdir_in(&temporary).map_err(scratch)?;
    // Archives are unpacked into the cache's workspace, which need not outlive this.
    let cache = Cache::new(work.path().to_path_buf());
    let (mut packed, mut spool) =
        (Tree::new(), Spool::new(work.path(), Ceiling::default()).map_err(scratch)?);
    source::open(reference, &cache, Ceiling::default())?.fill(&mut packed, &mut spool)?;
    let mut found = tree::Tree::default();
    let reader = Reader { reference, tree: &packed, spool: &spool };
    reader.list(&mut found)?;
    Ok(found)
}

struct Reader<'a> {
    reference: &'a str,
    tree: &'a Tree,
    spool: &'a Spool,
}

impl Reader<'_> {
    /// Everything below the root, parents first.
    fn list(&self, found: &mut tree::Tree) -> Result<(), ImageError> {
        let wrong = |problem: String| ImageError::source(Path::new(self.reference), problem);
        // A list and not recursion: an image may be deeper than a stack.
        let mut pending = vec![(InodeId::ROOT, String::new())];
        while let Some((id, path)) = pending.pop() {
            for (name, child) in self.tree.names(id) {
                let name = std::str::from_utf8(name).map_err(|_| {
                    wrong(format!("a name in {path:?} is not UTF-8: {:?}", String::from_utf8_lossy(name)))
                })?;
                let path = format!("{path}/{name}");
                let inode = self.tree.inode(child);
                let node = self.node(&path, inode)?;
                tree::TreePath::parse(&path)
                    .and_then(|path| found.insert(path, node))
                    .map_err(|error| wrong(error.to_string()))?;
                if matches!(inode.kind, Kind::Directory(_)) {
                    pending.push((child, path));
                }
            }
        }
        Ok(())
    }

    fn node(&self, path: &str, inode: &Inode) -> Result<tree::Node, ImageError> {
        let wrong = |problem: String| ImageError::source(Path::new(self.reference), problem);
        let kind = match &inode.kind {
            Kind::Directory(_) => tree::Kind::Directory,
            Kind::File(extent) => tree::Kind::File(
                self.spool.read(*extent).map_err(|error| ImageError::io("read", path, error))?,
            ),
            Kind::Symlink(target) => tree::Kind::Symlink(
                String::from_utf8(target.clone())
                    .map_err(|_| wrong(format!("the target of {path:?} is not UTF-8")))?,
            ),
            &Kind::Char { major, minor } => tree::Kind::Character { major, minor },
            &Kind::Block { major, minor } => tree::Kind::Block { major, minor },
            Kind::Fifo => tree::Kind::Fifo,
            Kind::Socket => return Err(wrong(format!("{path:?} is a socket"))),
        };
        let meta = &inode.meta;
        Ok(tree::Node { mode: meta.mode.into(), uid: meta.uid, gid: meta.gid, kind })
    }
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
