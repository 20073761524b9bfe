//! Directories that are made because something goes through them.

use super::steps::Steps;
use super::{Inode, InodeId, Kind, Link, Meta, Tree, TreeError, display};

impl Tree {
    /// The directory at `path`, symbolic links followed. What is missing is made, also where a link leads to nothing, as
    /// containerd does when it unpacks a layer. It is made inside the tree in any case.
    ///
    /// # Errors
    /// When a file is on the way, or the links are a loop.
    pub fn make_directories(&mut self, path: &[u8]) -> Result<InodeId, TreeError> {
        // Of what is missing `..` takes the last part away, so that a link to `x/../y` makes no `x`.
        let (mut steps, mut missing) = (Steps::new(InodeId::ROOT, path), Vec::new());
        while let Some(part) = steps.next() {
            if part == b".." {
                if missing.pop().is_none() {
                    steps.leave();
                }
                continue;
            }
            let known = if missing.is_empty() { self.child(steps.at(), &part) } else { None };
            let Some(id) = known else {
                missing.push(part);
                continue;
            };
            match &self.inodes[id.0].kind {
                Kind::Directory(_) => steps.enter(id),
                Kind::Symlink(target) if steps.follow(target) => {}
                Kind::Symlink(_) => return Err(TreeError::Loop(display(path))),
                _ => return Err(TreeError::NotDirectory(display(path))),
            }
        }
        Ok(missing.into_iter().fold(steps.at(), |at, name| self.imply_directory(at, name)))
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
