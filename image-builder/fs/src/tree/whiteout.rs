//! Whiteouts: names by which a layer of an image removes what lower layers have (OCI image specification, layers).

use super::{InodeId, Kind, Link, Tree, TreeError};

impl Tree {
    /// Removes what lower layers put at `path` (a whiteout); what this layer put there stays.
    ///
    /// # Errors
    /// When the path leads out of the tree or is a loop.
    pub fn white_out(&mut self, path: &[u8]) -> Result<(), TreeError> {
        let Some((parent, name)) = self.locate_existing(path)? else { return Ok(()) };
        if let Kind::Directory(names) = &self.inodes[parent.0].kind
            && let Some(link) = names.get(&name).copied()
        {
            let stays = self.prune(link);
            if let (false, Kind::Directory(names)) = (stays, &mut self.inodes[parent.0].kind) {
                names.remove(&name);
            }
        }
        Ok(())
    }

    /// Removes what lower layers put into the directory `path` (an opaque whiteout).
    ///
    /// # Errors
    /// When the path is a loop.
    pub fn make_opaque(&mut self, path: &[u8]) -> Result<(), TreeError> {
        match self.follow(path)? {
            Some(id) => {
                self.prune_names(id);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Removes lower layers' names below a directory.
    fn prune_names(&mut self, top: InodeId) {
        // A directory is looked at twice: at first all below it is put behind it, and the second time that is done. On a list
        // and not by recursion: an image may be deeper than a thread's stack.
        let mut pending = vec![(top, false)];
        while let Some((id, is_below_done)) = pending.pop() {
            if is_below_done {
                self.drop_old_names(id);
            } else if let Kind::Directory(names) = &self.inodes[id.0].kind {
                pending.push((id, true));
                pending.extend(names.values().map(|link| (link.inode, false)));
            }
        }
    }

    /// Removes the names in a directory that stay for no reason: neither did this layer make them, nor is there anything below.
    fn drop_old_names(&mut self, id: InodeId) {
        let Kind::Directory(names) = &mut self.inodes[id.0].kind else { return };
        let mut names = std::mem::take(names);
        names.retain(|_, link| self.stays(*link));
        self.inodes[id.0].kind = Kind::Directory(names);
    }

    /// Removes lower layers' names below a link, and says whether the link itself stays.
    fn prune(&mut self, link: Link) -> bool {
        self.prune_names(link.inode);
        self.stays(link)
    }

    /// Whether a link whose insides are pruned stays: because this layer made it, or because something is below it.
    fn stays(&self, link: Link) -> bool {
        let inhabited =
            matches!(&self.inodes[link.inode.0].kind, Kind::Directory(names) if !names.is_empty());
        link.layer == self.layer || inhabited
    }
}
