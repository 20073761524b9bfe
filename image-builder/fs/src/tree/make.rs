//! Directories that are made because something goes through them.

use super::{Inode, InodeId, Kind, Link, MAX_LINKS, Meta, Tree, TreeError, display, reversed};

impl Tree {
    /// The directory at `path`, symbolic links followed. What is missing is made, also where a link leads to nothing, as
    /// containerd does when it unpacks a layer. It is made inside the tree in any case.
    ///
    /// # Errors
    /// When a file is on the way, or the links are a loop.
    pub fn make_directories(&mut self, path: &[u8]) -> Result<InodeId, TreeError> {
        // As in `follow`, `..` goes back up the chain. Of what is missing it takes the last part away, so that a link to
        // `x/../y` makes no `x`.
        let (mut chain, mut missing, mut links) = (vec![InodeId::ROOT], Vec::new(), 0);
        let mut pending = reversed(path);
        while let Some(part) = pending.pop() {
            let at = chain.last().copied().unwrap_or(InodeId::ROOT);
            if part == b".." {
                if missing.pop().is_none() {
                    chain.truncate(chain.len().max(2) - 1);
                }
                continue;
            }
            let known = if missing.is_empty() { self.child(at, &part) } else { None };
            let Some(id) = known else {
                missing.push(part);
                continue;
            };
            match &self.inodes[id.0].kind {
                Kind::Directory(_) => chain.push(id),
                Kind::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(TreeError::Loop(display(path)));
                    }
                    if target.starts_with(b"/") {
                        chain.truncate(1);
                    }
                    pending.extend(reversed(target));
                }
                _ => return Err(TreeError::NotDirectory(display(path))),
            }
        }
        let last = chain.last().copied().unwrap_or(InodeId::ROOT);
        Ok(missing.into_iter().fold(last, |at, name| self.imply_directory(at, name)))
    }

    /// Makes a directory that nobody described.
    pub(super) fn imply_directory(&mut self, parent: InodeId, name: Vec<u8>) -> InodeId {
        let id = InodeId(self.inodes.len());
        self.inodes.push(Inode { meta: Meta::implied_directory(), kind: Kind::directory() });
        let layer = self.layer;
        self.link_name(parent, name, Link { inode: id, layer });
        id
    }
}
