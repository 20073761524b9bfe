//! The tree: names that lead to inodes.
//!
//! Owns names, inodes and their metadata; a file's content may be on disk ([`Content`]). Promises that no name ever leads out
//! of the tree: symbolic links are followed inside it, `..` stops at its root. Must never look at the host's file system,
//! but for a directory that is laid over it.
//!
//! There are two ways in. Layers of an image ([`Tree::put`], [`Tree::white_out`]) name what they mean by paths that go through
//! symbolic links, and replace what is there. A recipe ([`Tree::insert`], [`Tree::overlay`], [`Tree::underlay`]) means the very
//! names that it says, and two entries that contradict each other are an error.

mod error;
mod make;
mod overlay;
mod plain;
mod steps;
#[cfg(test)]
mod tests;
mod whiteout;

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::content::Content;
pub use error::TreeError;
use steps::{Steps, components};

/// Names an inode of one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeId(usize);

impl InodeId {
    /// The tree's root directory.
    pub const ROOT: Self = Self(0);

    /// Below [`Tree::len`].
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// Everything about an inode but its content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits, with set-id and sticky bits: `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was changed, in seconds since 1970.
    pub mtime: u64,
    /// Nanoseconds on top of it.
    pub mtime_nsec: u32,
    /// Extended attributes by their full names, such as `security.capability`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// A directory nobody described: what a runtime makes for a missing parent.
    pub fn implied_directory() -> Self {
        Self { mode: 0o755, ..Self::default() }
    }
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory, and the names in it.
    Directory(BTreeMap<Vec<u8>, Link>),
    /// A regular file.
    File(Content),
    /// A symbolic link and where it points.
    Symlink(Vec<u8>),
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    /// A directory with nothing in it.
    pub fn directory() -> Self {
        Self::Directory(BTreeMap::new())
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// Its bits in a mode, as `stat` has them (inode(7)).
    pub fn bits(&self) -> u16 {
        match self {
            Self::Directory(_) => 0o040_000,
            Self::File(_) => 0o100_000,
            Self::Symlink(_) => 0o120_000,
            Self::Char { .. } => 0o020_000,
            Self::Block { .. } => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
        }
    }

    /// Its name in lists.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Directory(_) => "directory",
            Self::File(_) => "file",
            Self::Symlink(_) => "symlink",
            Self::Char { .. } => "character",
            Self::Block { .. } => "block",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
        }
    }
}

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its metadata.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
}

impl Inode {
    /// One of root, of 1970, with these permission bits.
    pub fn new(mode: u16, kind: Kind) -> Self {
        Self { meta: Meta { mode, ..Meta::default() }, kind }
    }

    /// Type and permission bits, as `stat` has them.
    pub fn mode(&self) -> u16 {
        self.kind.bits() | self.meta.mode & 0o7777
    }
}

/// A name in a directory, with the number of the layer that put it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Where it leads.
    pub inode: InodeId,
    layer: u32,
}

/// The tree.
#[derive(Debug, Clone)]
pub struct Tree {
    inodes: Vec<Inode>,
    layer: u32,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Inode { meta: Meta::implied_directory(), kind: Kind::directory() };
        Self { inodes: vec![root], layer: 0 }
    }
}

impl Tree {
    /// An empty root directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many inodes there are or were, the root among them.
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Whether there is nothing in the root.
    pub fn is_empty(&self) -> bool {
        self.names(InodeId::ROOT).next().is_none()
    }

    /// All names with their absolute paths, sorted by path; a directory comes before what is in it. The root has none.
    pub fn walk(&self) -> Vec<(Vec<u8>, InodeId)> {
        let mut found = Vec::new();
        // A list and not recursion: a tree may be deeper than a stack.
        let mut pending = vec![(Vec::new(), InodeId::ROOT)];
        while let Some((path, id)) = pending.pop() {
            for (name, child) in self.names(id) {
                let path = [&path, &b"/"[..], name].concat();
                if self.inode(child).kind.is_directory() {
                    pending.push((path.clone(), child));
                }
                found.push((path, child));
            }
        }
        found.sort_unstable();
        found
    }

    /// The `count` largest files with their sizes in bytes, largest first; of the names of one file, the first.
    pub fn largest(&self, count: usize) -> Vec<(String, u64)> {
        let (mut files, mut seen) = (Vec::new(), HashSet::new());
        for (path, id) in self.walk() {
            if let Kind::File(content) = &self.inode(id).kind
                && seen.insert(id)
            {
                files.push((display(&path), content.len()));
            }
        }
        files.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        files.truncate(count);
        files
    }

    /// Gives everything one modification time, in seconds since 1970.
    pub fn set_times(&mut self, mtime: u64) {
        for inode in &mut self.inodes {
            (inode.meta.mtime, inode.meta.mtime_nsec) = (mtime, 0);
        }
    }

    /// Keeps the extended attributes whose full names are wanted, and drops all others.
    pub fn retain_xattrs(&mut self, is_wanted: impl Fn(&[u8]) -> bool) {
        for inode in &mut self.inodes {
            inode.meta.xattrs.retain(|name, _| is_wanted(name));
        }
    }

    /// A path of an inode, for messages; the root's for one that has no name any more.
    pub(crate) fn path_of(&self, wanted: InodeId) -> Vec<u8> {
        let mut above: HashMap<InodeId, (InodeId, &[u8])> = HashMap::new();
        let mut pending = vec![InodeId::ROOT];
        while let Some(id) = pending.pop().filter(|_| !above.contains_key(&wanted)) {
            for (name, child) in self.names(id) {
                above.insert(child, (id, name));
                pending.extend(self.inode(child).kind.is_directory().then_some(child));
            }
        }
        let mut names = Vec::new();
        let mut at = wanted;
        while let Some(&(parent, name)) = above.get(&at) {
            names.push(name);
            at = parent;
        }
        names.iter().rev().flat_map(|name| [b"/", *name]).collect::<Vec<_>>().concat()
    }

    /// Whatever is put into the tree from now on belongs to the next layer.
    pub fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// The inode of this tree that an id names.
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.0]
    }

    /// The names in a directory, sorted; none for anything else.
    pub fn names(&self, id: InodeId) -> impl Iterator<Item = (&[u8], InodeId)> {
        let names = match &self.inodes[id.0].kind {
            Kind::Directory(names) => Some(names),
            _ => None,
        };
        names.into_iter().flatten().map(|(name, link)| (name.as_slice(), link.inode))
    }

    /// Puts `inode` at `path`, making missing parents. A directory over a directory only replaces its metadata;
    /// anything else replaces what was there.
    ///
    /// # Errors
    /// When the path leads out of the tree, or through something that is no directory.
    pub fn put(&mut self, path: &[u8], inode: Inode) -> Result<InodeId, TreeError> {
        let Some((parent, name)) = self.locate(path)? else {
            // The root itself: only a directory can be meant, and only its metadata counts.
            return match inode.kind {
                Kind::Directory(_) => {
                    self.inodes[0].meta = inode.meta;
                    Ok(InodeId::ROOT)
                }
                _ => Err(TreeError::Root),
            };
        };
        let layer = self.layer;
        if let (Some(id), Kind::Directory(_)) = (self.child(parent, &name), &inode.kind)
            && matches!(self.inodes[id.0].kind, Kind::Directory(_))
        {
            self.inodes[id.0].meta = inode.meta;
            self.link_name(parent, name, Link { inode: id, layer });
            return Ok(id);
        }
        let id = InodeId(self.inodes.len());
        self.inodes.push(inode);
        self.link_name(parent, name, Link { inode: id, layer });
        Ok(id)
    }

    /// Gives the inode at `target` a second name.
    ///
    /// # Errors
    /// As [`Tree::put`]; and when there is nothing at `target`, or a directory.
    pub fn put_hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), TreeError> {
        let id = self.find(target)?.ok_or_else(|| TreeError::NoTarget(display(target)))?;
        if matches!(self.inodes[id.0].kind, Kind::Directory(_)) {
            return Err(TreeError::LinkToDirectory(display(target)));
        }
        let (parent, name) = self.locate(path)?.ok_or(TreeError::Root)?;
        let layer = self.layer;
        self.link_name(parent, name, Link { inode: id, layer });
        Ok(())
    }

    /// What is at `path`; a symbolic link at its end is not followed.
    ///
    /// # Errors
    /// When the path leads out of the tree or is a loop.
    pub fn find(&self, path: &[u8]) -> Result<Option<InodeId>, TreeError> {
        match self.locate_existing(path)? {
            Some((parent, name)) => Ok(self.child(parent, &name)),
            None if components(path).next().is_none() => Ok(Some(InodeId::ROOT)),
            None => Ok(None),
        }
    }

    /// The regular file at `path`, symbolic links followed.
    pub fn file(&self, path: &[u8]) -> Option<&Content> {
        let id = self.follow(path).ok()??;
        match &self.inodes[id.0].kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    fn child(&self, parent: InodeId, name: &[u8]) -> Option<InodeId> {
        match &self.inodes[parent.0].kind {
            Kind::Directory(names) => names.get(name).map(|link| link.inode),
            _ => None,
        }
    }

    fn link_name(&mut self, parent: InodeId, name: Vec<u8>, link: Link) {
        if let Kind::Directory(names) = &mut self.inodes[parent.0].kind {
            names.insert(name, link);
        }
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
                None => self.imply_directory(at, part.to_vec()),
                Some(id) => match &self.inodes[id.0].kind {
                    Kind::Directory(_) => id,
                    Kind::Symlink(_) => self.make_directories(&prefix)?,
                    _ => return Err(TreeError::NotDirectory(display(&prefix))),
                },
            };
        }
        Ok(Some((at, name.to_vec())))
    }

    /// As [`Tree::locate`], but makes nothing: nothing also for a parent that does not exist.
    fn locate_existing(&self, path: &[u8]) -> Result<Option<(InodeId, Vec<u8>)>, TreeError> {
        let mut parts = checked_components(path)?;
        let Some(name) = parts.pop() else { return Ok(None) };
        let parent = parts.join(&b'/');
        Ok(self.follow(&parent)?.map(|id| (id, name.to_vec())))
    }

    /// Follows a path with all its symbolic links, as a process chrooted into the tree would.
    fn follow(&self, path: &[u8]) -> Result<Option<InodeId>, TreeError> {
        let mut steps = Steps::new(InodeId::ROOT, path);
        while let Some(part) = steps.next() {
            if part == b".." {
                steps.leave();
                continue;
            }
            let Some(id) = self.child(steps.at(), &part) else { return Ok(None) };
            match &self.inodes[id.0].kind {
                Kind::Symlink(target) if steps.follow(target) => {}
                Kind::Symlink(_) => return Err(TreeError::Loop(display(path))),
                _ => steps.enter(id),
            }
        }
        Ok(Some(steps.at()))
    }
}

/// The components of a path that an archive names. `..` has no business there.
fn checked_components(path: &[u8]) -> Result<Vec<&[u8]>, TreeError> {
    let parts: Vec<&[u8]> = components(path).collect();
    if parts.contains(&&b".."[..]) {
        return Err(TreeError::Escape(display(path)));
    }
    Ok(parts)
}

fn display(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
