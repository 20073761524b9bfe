//! An in-memory file tree: what will be packed, before it is packed.
//!
//! Promises a sorted walk with parents before their children, paths that stay inside the tree, and that every
//! entry's parent is a directory of it. Needs no root: owners and device numbers are only written down. Must never
//! follow a symlink.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why a tree cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A path is not absolute and plain.
    #[error("{0:?} is not a plain absolute path: it must begin with / and have no empty, `.` or `..` part")]
    Path(String),
    /// Two things want the same path.
    #[error("{0} is there twice")]
    Twice(TreePath),
    /// Something that is not a directory has a child.
    #[error("{child} cannot be below {parent}, which is not a directory")]
    Parent {
        /// The entry.
        child: TreePath,
        /// The one above it.
        parent: TreePath,
    },
    /// A host file cannot be taken in.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A host file is of a kind that overlays do not carry.
    #[error("{0} is neither a file, a directory nor a symlink; put device nodes into the recipe")]
    Kind(PathBuf),
}

/// A path inside a tree: absolute, plain, UTF-8. The root itself has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(String);

impl TreePath {
    /// Takes `/a/b`.
    ///
    /// # Errors
    /// [`TreeError::Path`] for anything relative, empty, or with empty, `.` or `..` parts.
    pub fn parse(text: &str) -> Result<Self, TreeError> {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        match text.strip_prefix('/') {
            Some(rest) if rest.split('/').all(plain) => Ok(Self(text.to_string())),
            _ => Err(TreeError::Path(text.to_string())),
        }
    }

    /// With the leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the leading slash, as archives want it.
    pub fn relative(&self) -> &str {
        &self.0[1..]
    }

    /// The path above; none for an entry of the root.
    pub fn parent(&self) -> Option<Self> {
        match self.0.rfind('/') {
            None | Some(0) => None,
            Some(slash) => Some(Self(self.0[..slash].to_string())),
        }
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file with its content.
    File(Vec<u8>),
    /// A symbolic link and where it points.
    Symlink(String),
    /// A character device.
    Character {
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
}

impl Kind {
    /// Its bits in a mode, as `stat` has them (inode(7)).
    pub fn bits(&self) -> u32 {
        match self {
            Self::Directory => 0o040_000,
            Self::File(_) => 0o100_000,
            Self::Symlink(_) => 0o120_000,
            Self::Character { .. } => 0o020_000,
            Self::Block { .. } => 0o060_000,
            Self::Fifo => 0o010_000,
        }
    }

    /// Its name in manifests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File(_) => "file",
            Self::Symlink(_) => "symlink",
            Self::Character { .. } => "character",
            Self::Block { .. } => "block",
            Self::Fifo => "fifo",
        }
    }
}

/// An entry of a tree. Times are the packer's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub kind: Kind,
}

impl Node {
    /// A node of root.
    pub fn new(mode: u32, kind: Kind) -> Self {
        Self { mode, uid: 0, gid: 0, kind }
    }
}

/// A file tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<TreePath, Node>);

impl Tree {
    /// Adds an entry. Directories above it that are not there yet are made, mode 0755.
    ///
    /// # Errors
    /// When the path is taken or something above it is not a directory.
    pub fn insert(&mut self, path: TreePath, node: Node) -> Result<(), TreeError> {
        if self.0.contains_key(&path) {
            return Err(TreeError::Twice(path));
        }
        self.put(path, node)
    }

    /// Lays a host directory over the tree: files and symlinks replace what is there, directories only add to it.
    /// Everything belongs to root. Of a file's mode only the owner's execute bit counts, since that is all that
    /// version control keeps: 0755 or 0644.
    ///
    /// # Errors
    /// When something cannot be read, has a name that is not UTF-8, or is of another kind.
    pub fn overlay(&mut self, host: &Path) -> Result<(), TreeError> {
        let mut pending = vec![(host.to_path_buf(), String::new())];
        while let Some((dir, prefix)) = pending.pop() {
            let io = |operation, path: &Path| {
                let path = path.to_path_buf();
                move |source| TreeError::Io { operation, path, source }
            };
            for entry in fs::read_dir(&dir).map_err(io("list", &dir))? {
                let source = entry.map_err(io("list", &dir))?.path();
                let name = source.file_name().and_then(|name| name.to_str());
                let name = name.ok_or_else(|| TreeError::Path(source.display().to_string()))?;
                let path = TreePath::parse(&format!("{prefix}/{name}"))?;
                let metadata = fs::symlink_metadata(&source).map_err(io("inspect", &source))?;
                let kind = metadata.file_type();
                if kind.is_dir() {
                    pending.push((source, path.as_str().to_string()));
                    if self.0.get(&path).is_none_or(|node| node.kind != Kind::Directory) {
                        self.put(path, Node::new(0o755, Kind::Directory))?;
                    }
                } else if kind.is_symlink() {
                    let target = fs::read_link(&source).map_err(io("read", &source))?;
                    let target =
                        target.to_str().ok_or_else(|| TreeError::Path(target.display().to_string()))?;
                    self.put(path, Node::new(0o777, Kind::Symlink(target.to_string())))?;
                } else if kind.is_file() {
                    let mode = if metadata.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
                    let content = fs::read(&source).map_err(io("read", &source))?;
                    self.put(path, Node::new(mode, Kind::File(content)))?;
                } else {
                    return Err(TreeError::Kind(source));
                }
            }
        }
        Ok(())
    }

    /// Lays another tree under this one: of it comes what is not here yet. What lies below something here that is no
    /// directory does not.
    ///
    /// # Errors
    /// None that a tree can have; they are those of adding an entry.
    pub fn underlay(&mut self, other: Self) -> Result<(), TreeError> {
        for (path, node) in other.0 {
            let mut above = std::iter::successors(path.parent(), TreePath::parent);
            let hidden =
                above.any(|parent| self.0.get(&parent).is_some_and(|node| node.kind != Kind::Directory));
            if !hidden && !self.0.contains_key(&path) {
                self.put(path, node)?;
            }
        }
        Ok(())
    }

    /// All entries, sorted by path; a directory comes before what is in it.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.0.iter()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entry at a path.
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.0.get(path)
    }

    /// The `count` largest files with their sizes, largest first.
    pub fn largest(&self, count: usize) -> Vec<(&TreePath, u64)> {
        let size = |node: &Node| match &node.kind {
            Kind::File(content) => Some(content.len() as u64),
            _ => None,
        };
        let mut files: Vec<_> = self.iter().filter_map(|(path, node)| Some((path, size(node)?))).collect();
        files.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        files.truncate(count);
        files
    }

    fn put(&mut self, path: TreePath, node: Node) -> Result<(), TreeError> {
        let mut above = path.parent();
        while let Some(parent) = above {
            match self.0.get(&parent) {
                Some(Node { kind: Kind::Directory, .. }) => break,
                Some(_) => return Err(TreeError::Parent { child: path, parent }),
                None => {
                    above = parent.parent();
                    self.0.insert(parent, Node::new(0o755, Kind::Directory));
                }
            }
        }
        if node.kind != Kind::Directory && self.0.keys().any(|other| other.parent().as_ref() == Some(&path)) {
            let child = self.0.keys().find(|other| other.parent().as_ref() == Some(&path)).cloned();
            return Err(TreeError::Parent { child: child.unwrap_or_else(|| path.clone()), parent: path });
        }
        self.0.insert(path, node);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    fn file(content: &str) -> Node {
        Node::new(0o644, Kind::File(content.into()))
    }

    #[test]
    fn paths_that_are_not_plain_are_refused() {
        for text in ["", "/", "a", "a/b", "//a", "/a/", "/a//b", "/./a", "/a/..", "/..", "/a\0b"] {
            assert!(TreePath::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), None);
        assert_eq!(path("/a/...").relative(), "a/...");
    }

    #[test]
    fn parents_are_made_and_come_first() {
        let mut tree = Tree::default();
        for name in ["/b/c/d", "/b-a", "/a", "/b/c.x"] {
            tree.insert(path(name), file(name)).unwrap();
        }
        let order: Vec<_> = tree.iter().map(|(path, _)| path.as_str()).collect();
        for (index, name) in order.iter().enumerate() {
            if let Some(parent) = path(name).parent() {
                assert!(order[..index].contains(&parent.as_str()), "{order:?}");
            }
        }
        assert_eq!(tree.len(), 6);
        assert_eq!(tree.get(&path("/b/c")), Some(&Node::new(0o755, Kind::Directory)));
    }

    #[test]
    fn conflicts_are_errors() {
        let mut tree = Tree::default();
        tree.insert(path("/a/b"), file("")).unwrap();
        assert!(matches!(tree.insert(path("/a/b"), file("")), Err(TreeError::Twice(_))));
        let error = tree.insert(path("/a/b/c"), file("")).unwrap_err();
        assert_eq!(error.to_string(), "/a/b/c cannot be below /a/b, which is not a directory");
        assert_eq!(tree.len(), 2);
    }

    #[test]
    fn an_overlay_replaces_files_and_joins_directories() {
        let host = tempfile::tempdir().unwrap();
        fs::create_dir_all(host.path().join("etc/deep")).unwrap();
        fs::write(host.path().join("etc/a"), "new").unwrap();
        fs::set_permissions(host.path().join("etc/a"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("../x", host.path().join("etc/deep/l")).unwrap();
        let mut tree = Tree::default();
        tree.insert(path("/etc"), Node::new(0o700, Kind::Directory)).unwrap();
        tree.insert(path("/etc/a"), file("old")).unwrap();
        tree.insert(path("/etc/b"), file("kept")).unwrap();
        tree.overlay(host.path()).unwrap();
        assert_eq!(tree.get(&path("/etc")).unwrap().mode, 0o700);
        assert_eq!(tree.get(&path("/etc/a")), Some(&Node::new(0o755, Kind::File("new".into()))));
        assert_eq!(tree.get(&path("/etc/b")), Some(&file("kept")));
        assert_eq!(tree.get(&path("/etc/deep/l")).unwrap().kind, Kind::Symlink("../x".into()));
    }

    #[test]
    fn an_underlay_only_fills_gaps() {
        let mut tree = Tree::default();
        for (name, node) in [
            ("/etc/own", file("own")),
            ("/lib", Node::new(0o777, Kind::Symlink("usr/lib".into()))),
            ("/sbin", Node::new(0o755, Kind::Directory)),
        ] {
            tree.insert(path(name), node).unwrap();
        }
        let mut below = Tree::default();
        for (name, node) in [
            ("/etc/own", file("other")),
            ("/etc/more", file("more")),
            ("/lib/hidden", file("hidden")),
            ("/sbin", Node::new(0o777, Kind::Symlink("usr/sbin".into()))),
            ("/usr/lib/x", file("x")),
        ] {
            below.insert(path(name), node).unwrap();
        }
        tree.underlay(below).unwrap();
        let names: Vec<_> = tree.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            names,
            ["/etc", "/etc/more", "/etc/own", "/lib", "/sbin", "/usr", "/usr/lib", "/usr/lib/x"]
        );
        assert_eq!(tree.get(&path("/etc/own")), Some(&file("own")));
        assert_eq!(tree.get(&path("/sbin")).unwrap().kind, Kind::Directory);
    }

    #[test]
    fn an_overlay_cannot_bury_a_directory_under_a_file() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("etc"), "").unwrap();
        let mut tree = Tree::default();
        tree.insert(path("/etc/a"), file("")).unwrap();
        assert!(matches!(tree.overlay(host.path()), Err(TreeError::Parent { .. })));
    }

    #[test]
    fn the_largest_files_come_first() {
        let mut tree = Tree::default();
        for (name, size) in [("/a", 3), ("/b", 9), ("/c", 9), ("/d", 1)] {
            tree.insert(path(name), file(&"x".repeat(size))).unwrap();
        }
        let names: Vec<_> = tree.largest(3).into_iter().map(|(path, size)| (path.as_str(), size)).collect();
        assert_eq!(names, [("/b", 9), ("/c", 9), ("/a", 3)]);
    }
}
