//! A root file system in memory, as the layers of an image make it.
//!
//! Owns names, inodes and their metadata; file content lives in a spool on disk. Promises that no name ever
//! leads out of the tree: symbolic links are followed inside it, `..` stops at its root. Must never look at the
//! host's file system.

use std::collections::BTreeMap;

use super::spool::Extent;

/// Symbolic links followed in one path before it counts as a loop; the kernel's limit.
const MAX_LINKS: u32 = 40;

/// Why an entry does not fit into the tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TreeError {
    #[error("the path {0:?} leads out of the image")]
    Escape(String),
    #[error("{0:?} is not a directory")]
    NotDirectory(String),
    #[error("too many symbolic links in {0:?}")]
    Loop(String),
    #[error("the hard link's target {0:?} does not exist")]
    NoTarget(String),
    #[error("the hard link's target {0:?} is a directory")]
    LinkToDirectory(String),
}

/// Names an inode of one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct InodeId(usize);

impl InodeId {
    pub(crate) const ROOT: Self = Self(0);
}

/// Everything about an inode but its content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    /// Permission bits, with set-id and sticky bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: u64,
    pub(crate) mtime_nsec: u32,
    /// Full names, such as `security.capability`.
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// A directory nobody described: what a runtime makes for a missing parent.
    pub(crate) fn implied_directory() -> Self {
        Self { mode: 0o755, ..Self::default() }
    }
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory(BTreeMap<Vec<u8>, Link>),
    File(Extent),
    Symlink(Vec<u8>),
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) meta: Meta,
    pub(crate) kind: Kind,
}

/// A name in a directory, with the number of the layer that put it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) inode: InodeId,
    layer: u32,
}

/// The tree.
#[derive(Debug)]
pub(crate) struct Tree {
    inodes: Vec<Inode>,
    layer: u32,
}

impl Tree {
    /// An empty root directory.
    pub(crate) fn new() -> Self {
        Self {
            inodes: vec![Inode { meta: Meta::implied_directory(), kind: Kind::Directory(BTreeMap::new()) }],
            layer: 0,
        }
    }

    /// How many inodes there are or were.
    pub(crate) fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Whatever is put into the tree from now on belongs to the next layer.
    pub(crate) fn begin_layer(&mut self) {
        self.layer += 1;
    }

    pub(crate) fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.0]
    }

    /// The names in a directory; none for anything else.
    pub(crate) fn names(&self, id: InodeId) -> impl Iterator<Item = (&[u8], InodeId)> {
        let names = match &self.inodes[id.0].kind {
            Kind::Directory(names) => Some(names),
            _ => None,
        };
        names.into_iter().flatten().map(|(name, link)| (name.as_slice(), link.inode))
    }

    /// Puts `inode` at `path`, making missing parents. A directory over a directory only replaces its metadata;
    /// anything else replaces what was there.
    pub(crate) fn put(&mut self, path: &[u8], inode: Inode) -> Result<InodeId, TreeError> {
        let Some((parent, name)) = self.locate(path)? else {
            // The root itself: only a directory can be meant, and only its metadata counts.
            return match inode.kind {
                Kind::Directory(_) => {
                    self.inodes[0].meta = inode.meta;
                    Ok(InodeId::ROOT)
                }
                _ => Err(TreeError::Escape(display(path))),
            };
        };
        let layer = self.layer;
        if let (Some(id), Kind::Directory(_)) = (self.child(parent, &name), &inode.kind)
            && matches!(self.inodes[id.0].kind, Kind::Directory(_))
        {
            self.inodes[id.0].meta = inode.meta;
            self.link(parent, name, Link { inode: id, layer });
            return Ok(id);
        }
        let id = InodeId(self.inodes.len());
        self.inodes.push(inode);
        self.link(parent, name, Link { inode: id, layer });
        Ok(id)
    }

    /// Gives the inode at `target` a second name.
    pub(crate) fn put_hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), TreeError> {
        let id = self.find(target)?.ok_or_else(|| TreeError::NoTarget(display(target)))?;
        if matches!(self.inodes[id.0].kind, Kind::Directory(_)) {
            return Err(TreeError::LinkToDirectory(display(target)));
        }
        let (parent, name) = self.locate(path)?.ok_or_else(|| TreeError::Escape(display(path)))?;
        let layer = self.layer;
        self.link(parent, name, Link { inode: id, layer });
        Ok(())
    }

    /// Removes what lower layers put at `path` (a whiteout); what this layer put there stays.
    pub(crate) fn white_out(&mut self, path: &[u8]) -> Result<(), TreeError> {
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
    pub(crate) fn make_opaque(&mut self, path: &[u8]) -> Result<(), TreeError> {
        match self.walk(path, 0)? {
            Some(id) => {
                self.prune_names(id);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What is at `path`; a symbolic link at its end is not followed.
    pub(crate) fn find(&self, path: &[u8]) -> Result<Option<InodeId>, TreeError> {
        match self.locate_existing(path)? {
            Some((parent, name)) => Ok(self.child(parent, &name)),
            None if components(path).next().is_none() => Ok(Some(InodeId::ROOT)),
            None => Ok(None),
        }
    }

    /// The regular file at `path`, symbolic links followed.
    pub(crate) fn file(&self, path: &[u8]) -> Option<Extent> {
        let id = self.walk(path, 0).ok()??;
        match &self.inodes[id.0].kind {
            Kind::File(extent) => Some(*extent),
            _ => None,
        }
    }

    fn child(&self, parent: InodeId, name: &[u8]) -> Option<InodeId> {
        match &self.inodes[parent.0].kind {
            Kind::Directory(names) => names.get(name).map(|link| link.inode),
            _ => None,
        }
    }

    fn link(&mut self, parent: InodeId, name: Vec<u8>, link: Link) {
        if let Kind::Directory(names) = &mut self.inodes[parent.0].kind {
            names.insert(name, link);
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

    /// The directory that holds the last component of `path`, made when absent, and that component. Nothing for
    /// the root.
    fn locate(&mut self, path: &[u8]) -> Result<Option<(InodeId, Vec<u8>)>, TreeError> {
        let mut parts: Vec<&[u8]> = checked_components(path)?;
        let Some(name) = parts.pop() else { return Ok(None) };
        let mut at = InodeId::ROOT;
        let mut prefix: Vec<u8> = Vec::new();
        for part in parts {
            prefix.push(b'/');
            prefix.extend_from_slice(part);
            at = match self.child(at, part) {
                None => {
                    let id = InodeId(self.inodes.len());
                    self.inodes.push(Inode {
                        meta: Meta::implied_directory(),
                        kind: Kind::Directory(BTreeMap::new()),
                    });
                    let layer = self.layer;
                    self.link(at, part.to_vec(), Link { inode: id, layer });
                    id
                }
                Some(id) => match &self.inodes[id.0].kind {
                    Kind::Directory(_) => id,
                    Kind::Symlink(_) => self.make_directories(&prefix)?,
                    _ => return Err(TreeError::NotDirectory(display(&prefix))),
                },
            };
            if !matches!(self.inodes[at.0].kind, Kind::Directory(_)) {
                return Err(TreeError::NotDirectory(display(&prefix)));
            }
        }
        Ok(Some((at, name.to_vec())))
    }

    /// As [`Tree::locate`], but makes nothing: nothing also for a parent that does not exist.
    fn locate_existing(&self, path: &[u8]) -> Result<Option<(InodeId, Vec<u8>)>, TreeError> {
        let mut parts = checked_components(path)?;
        let Some(name) = parts.pop() else { return Ok(None) };
        let parent = parts.join(&b'/');
        Ok(self.walk(&parent, 0)?.map(|id| (id, name.to_vec())))
    }

    /// Follows a path with all its symbolic links, as a process chrooted into the tree would.
    fn walk(&self, path: &[u8], links: u32) -> Result<Option<InodeId>, TreeError> {
        self.walk_from(InodeId::ROOT, path, links)
    }

    fn walk_from(&self, start: InodeId, path: &[u8], mut links: u32) -> Result<Option<InodeId>, TreeError> {
        // The chain of directories down to here, so that `..` in a link's target can go back up.
        let mut chain = vec![start];
        let mut pending: Vec<Vec<u8>> = reversed(path);
        while let Some(part) = pending.pop() {
            if part == b".." {
                if chain.len() > 1 {
                    chain.pop();
                }
                continue;
            }
            let at = chain.last().copied().unwrap_or(InodeId::ROOT);
            let Some(id) = self.child(at, &part) else { return Ok(None) };
            if let Kind::Symlink(target) = &self.inodes[id.0].kind {
                links += 1;
                if links > MAX_LINKS {
                    return Err(TreeError::Loop(display(path)));
                }
                if target.starts_with(b"/") {
                    chain.truncate(1);
                }
                pending.extend(reversed(target));
            } else {
                chain.push(id);
            }
        }
        Ok(chain.last().copied())
    }
}

impl Tree {
    /// The directory at `path`, symbolic links followed; what is missing is made, also where a link leads to nothing. A file on
    /// the way is an error.
    pub(crate) fn make_directories(&mut self, path: &[u8]) -> Result<InodeId, TreeError> {
        // As in `walk_from`, `..` goes back up the chain. Of what is missing it takes the last part away, so that a link to
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
        let mut at = chain.last().copied().unwrap_or(InodeId::ROOT);
        for name in missing {
            let id = InodeId(self.inodes.len());
            let kind = Kind::Directory(BTreeMap::new());
            self.inodes.push(Inode { meta: Meta::implied_directory(), kind });
            self.link(at, name, Link { inode: id, layer: self.layer });
            at = id;
        }
        Ok(at)
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// The components of a path that an archive names. `..` has no business there.
fn checked_components(path: &[u8]) -> Result<Vec<&[u8]>, TreeError> {
    let parts: Vec<&[u8]> = components(path).collect();
    if parts.contains(&&b".."[..]) {
        return Err(TreeError::Escape(display(path)));
    }
    Ok(parts)
}

fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
    parts.reverse();
    parts
}

fn display(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> Inode {
        Inode { meta: Meta::implied_directory(), kind: Kind::Directory(BTreeMap::new()) }
    }

    fn file(len: u64) -> Inode {
        Inode { meta: Meta::default(), kind: Kind::File(Extent { offset: 0, len }) }
    }

    fn symlink(target: &str) -> Inode {
        Inode { meta: Meta::default(), kind: Kind::Symlink(target.into()) }
    }

    fn listing(tree: &Tree) -> Vec<String> {
        fn visit(tree: &Tree, id: InodeId, prefix: &str, out: &mut Vec<String>) {
            for (name, child) in tree.names(id) {
                let path = format!("{prefix}/{}", String::from_utf8_lossy(name));
                out.push(path.clone());
                visit(tree, child, &path, out);
            }
        }
        let mut out = Vec::new();
        visit(tree, InodeId::ROOT, "", &mut out);
        out
    }

    #[test]
    fn parents_are_made_and_directories_merge() {
        let mut tree = Tree::new();
        tree.put(b"./a/b/c", file(1)).unwrap();
        tree.begin_layer();
        let mut again = dir();
        again.meta.mode = 0o700;
        let id = tree.put(b"a/b", again).unwrap();
        assert_eq!(tree.inode(id).meta.mode, 0o700);
        assert_eq!(listing(&tree), ["/a", "/a/b", "/a/b/c"]);
    }

    #[test]
    fn a_tree_deeper_than_any_stack_is_pruned() {
        let mut tree = Tree::new();
        let deep = b"d/".repeat(250_000);
        tree.put(&deep, dir()).unwrap();
        tree.put(b"kept", file(1)).unwrap();
        tree.begin_layer();
        tree.white_out(b"d").unwrap();
        assert_eq!(listing(&tree), ["/kept"]);
        tree.put(&deep, dir()).unwrap();
        tree.begin_layer();
        tree.make_opaque(b"").unwrap();
        assert!(listing(&tree).is_empty());
    }

    #[test]
    fn a_file_replaces_a_directory_and_back() {
        let mut tree = Tree::new();
        tree.put(b"a/b", file(1)).unwrap();
        tree.begin_layer();
        tree.put(b"a", file(2)).unwrap();
        assert_eq!(listing(&tree), ["/a"]);
        tree.begin_layer();
        tree.put(b"a", dir()).unwrap();
        tree.put(b"a/c", file(3)).unwrap();
        assert_eq!(listing(&tree), ["/a", "/a/c"]);
    }

    #[test]
    fn whiteouts_spare_the_own_layer() {
        let mut tree = Tree::new();
        tree.put(b"d/old", file(1)).unwrap();
        tree.put(b"x", file(1)).unwrap();
        tree.begin_layer();
        tree.put(b"d/new", file(1)).unwrap();
        tree.put(b"x", file(2)).unwrap();
        tree.white_out(b"d").unwrap();
        tree.white_out(b"x").unwrap();
        tree.white_out(b"absent/too").unwrap();
        assert_eq!(listing(&tree), ["/d", "/d/new", "/x"]);
    }

    #[test]
    fn opaque_hides_lower_layers_whatever_the_order() {
        let mut tree = Tree::new();
        tree.put(b"d/sub/old", file(1)).unwrap();
        tree.put(b"d/gone", file(1)).unwrap();
        tree.begin_layer();
        tree.put(b"d/sub/new", file(1)).unwrap();
        tree.make_opaque(b"d").unwrap();
        tree.put(b"d/later", file(1)).unwrap();
        assert_eq!(listing(&tree), ["/d", "/d/later", "/d/sub", "/d/sub/new"]);
    }

    #[test]
    fn hard_links_share_an_inode() {
        let mut tree = Tree::new();
        let id = tree.put(b"a", file(1)).unwrap();
        tree.put_hard_link(b"b/c", b"/a").unwrap();
        assert_eq!(tree.find(b"b/c").unwrap(), Some(id));
        assert_eq!(tree.put_hard_link(b"e", b"nothing"), Err(TreeError::NoTarget("nothing".into())));
        assert_eq!(tree.put_hard_link(b"e", b"b"), Err(TreeError::LinkToDirectory("b".into())));
        // A new file under one name leaves the other name alone.
        tree.put(b"a", file(7)).unwrap();
        assert_eq!(tree.find(b"b/c").unwrap(), Some(id));
        assert_ne!(tree.find(b"a").unwrap(), Some(id));
    }

    #[test]
    fn parents_follow_links_inside_the_tree_only() {
        let mut tree = Tree::new();
        tree.put(b"usr/lib", dir()).unwrap();
        tree.put(b"lib", symlink("usr/lib")).unwrap();
        tree.put(b"up", symlink("../../../usr")).unwrap();
        tree.put(b"abs", symlink("/usr/lib")).unwrap();
        tree.put(b"lib/one", file(1)).unwrap();
        tree.put(b"up/two", file(1)).unwrap();
        tree.put(b"abs/three", file(1)).unwrap();
        let names = listing(&tree);
        for name in ["/usr/lib/one", "/usr/two", "/usr/lib/three"] {
            assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
        }
    }

    #[test]
    fn escapes_loops_and_files_as_parents_are_refused() {
        let mut tree = Tree::new();
        assert_eq!(tree.put(b"../x", file(1)), Err(TreeError::Escape("../x".into())));
        assert_eq!(tree.put(b"a/../../x", file(1)), Err(TreeError::Escape("a/../../x".into())));
        tree.put(b"loop", symlink("loop")).unwrap();
        assert_eq!(tree.put(b"loop/x", file(1)), Err(TreeError::Loop("/loop".into())));
        tree.put(b"f", file(1)).unwrap();
        assert_eq!(tree.put(b"f/x", file(1)), Err(TreeError::NotDirectory("/f".into())));
        tree.put(b"to-f", symlink("f")).unwrap();
        assert_eq!(tree.put(b"to-f/x", file(1)), Err(TreeError::NotDirectory("/to-f".into())));
        assert!(matches!(tree.put(b"/", file(1)), Err(TreeError::Escape(_))));
    }

    #[test]
    fn where_a_dangling_link_leads_a_directory_is_made_inside_the_root() {
        let mut tree = Tree::new();
        tree.put(b"var/run", symlink("/run")).unwrap();
        tree.put(b"up", symlink("../../outside/./deep")).unwrap();
        tree.put(b"chain", symlink("up/absent/../more")).unwrap();
        tree.put(b"var/run/lock/x", file(1)).unwrap();
        tree.put(b"chain/y", file(1)).unwrap();
        let names = listing(&tree);
        for name in ["/run/lock/x", "/outside/deep/more/y"] {
            assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
        }
        assert!(!names.contains(&"/outside/deep/absent".to_owned()), "{names:?}");
        let id = tree.make_directories(b"/var/run/new").unwrap();
        assert_eq!(tree.find(b"run/new").unwrap(), Some(id));
        assert_eq!(tree.make_directories(b"").unwrap(), InodeId::ROOT);
    }

    #[test]
    fn replacing_a_symlink_does_not_follow_it() {
        let mut tree = Tree::new();
        tree.put(b"target", file(1)).unwrap();
        tree.put(b"link", symlink("target")).unwrap();
        let id = tree.put(b"link", file(2)).unwrap();
        assert_eq!(tree.find(b"link").unwrap(), Some(id));
        assert_ne!(tree.find(b"target").unwrap(), Some(id));
    }
}
