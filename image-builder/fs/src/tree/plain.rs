//! Entries that mean the very path they say: a recipe's. Nothing is followed, nothing replaced unasked.

use std::collections::HashMap;

use super::{Inode, InodeId, Kind, Link, Meta, Tree, TreeError, display};

/// Bytes of the longest path of another tree: PATH_MAX without the NUL (limits.h).
const PATH: usize = 4095;

/// The parts of `/a/b`.
fn plain(path: &str) -> Result<Vec<&[u8]>, TreeError> {
    let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    match path.strip_prefix('/') {
        Some(rest) if rest.split('/').all(is_plain) => Ok(rest.split('/').map(str::as_bytes).collect()),
        _ => Err(TreeError::Path(path.to_owned())),
    }
}

impl Tree {
    /// What is at an absolute path, symbolic links not followed.
    pub fn get(&self, path: &str) -> Option<&Inode> {
        Some(self.inode(self.at(&plain(path).ok()?)?))
    }

    /// Puts an inode at an absolute path. Directories above it that are not there yet are made, mode 0755, of root.
    ///
    /// # Errors
    /// When the path is not plain or is taken, or something above it is no directory.
    pub fn insert(&mut self, path: &str, inode: Inode) -> Result<InodeId, TreeError> {
        self.add(&plain(path)?, |tree| tree.push(inode))
    }

    /// Gives what is at `target` a second name, as a hard link does.
    ///
    /// # Errors
    /// As [`Tree::insert`]; and when there is nothing at `target`, or a directory.
    pub fn link(&mut self, path: &str, target: &str) -> Result<(), TreeError> {
        let id = self.at(&plain(target)?).ok_or_else(|| TreeError::NoTarget(target.to_owned()))?;
        if self.inode(id).kind.is_directory() {
            return Err(TreeError::LinkToDirectory(target.to_owned()));
        }
        self.add(&plain(path)?, |_| id).map(drop)
    }

    /// Lays another tree under this one: of it comes what is not here yet. What lies below something here that is no
    /// directory does not. Names of one file stay names of one file.
    ///
    /// # Errors
    /// When a path of the other's has more than 4095 bytes.
    pub fn underlay(&mut self, other: Self) -> Result<(), TreeError> {
        let mut taken: HashMap<InodeId, InodeId> = HashMap::new();
        // A directory here, the same in the other, and bytes of its path.
        let mut pending = vec![(InodeId::ROOT, InodeId::ROOT, 0)];
        while let Some((here, there, above)) = pending.pop() {
            for (name, theirs) in other.names(there) {
                let length = above + 1 + name.len();
                if length > PATH {
                    return Err(TreeError::TooLong(display(name)));
                }
                let is_directory = other.inode(theirs).kind.is_directory();
                let ours = match self.child(here, name) {
                    Some(ours) if is_directory && self.inode(ours).kind.is_directory() => ours,
                    Some(_) => continue,
                    None => {
                        let ours = *taken.entry(theirs).or_insert_with(|| {
                            let Inode { meta, kind } = other.inode(theirs);
                            let kind = if is_directory { Kind::directory() } else { kind.clone() };
                            self.push(Inode { meta: meta.clone(), kind })
                        });
                        self.name(here, name, ours);
                        ours
                    }
                };
                if is_directory {
                    pending.push((ours, theirs, length));
                }
            }
        }
        Ok(())
    }

    /// As [`Tree::insert`], but takes the place of what is there, unless that is a directory with something in it.
    pub(super) fn replace(&mut self, path: &str, inode: Inode) -> Result<InodeId, TreeError> {
        let parts = plain(path)?;
        let (parent, name) = self.parent_of(&parts)?;
        if let Some(id) = self.child(parent, name)
            && let Some((below, _)) = self.names(id).next()
        {
            return Err(TreeError::Parent {
                child: format!("{path}/{}", display(below)),
                parent: path.to_owned(),
            });
        }
        let id = self.push(inode);
        self.name(parent, name, id);
        Ok(id)
    }

    fn add(
        &mut self,
        parts: &[&[u8]],
        inode: impl FnOnce(&mut Self) -> InodeId,
    ) -> Result<InodeId, TreeError> {
        let (parent, name) = self.parent_of(parts)?;
        if self.child(parent, name).is_some() {
            return Err(TreeError::Twice(joined(parts)));
        }
        let id = inode(self);
        self.name(parent, name, id);
        Ok(id)
    }

    fn at(&self, parts: &[&[u8]]) -> Option<InodeId> {
        parts.iter().try_fold(InodeId::ROOT, |at, name| self.child(at, name))
    }

    /// The directory that holds the last part, made when absent, and that part.
    fn parent_of<'a>(&mut self, parts: &[&'a [u8]]) -> Result<(InodeId, &'a [u8]), TreeError> {
        let (name, above) = parts.split_last().ok_or_else(|| TreeError::Path(joined(parts)))?;
        let mut at = InodeId::ROOT;
        for (depth, part) in above.iter().enumerate() {
            at = match self.child(at, part) {
                Some(id) if self.inode(id).kind.is_directory() => id,
                Some(_) => {
                    return Err(TreeError::Parent { child: joined(parts), parent: joined(&parts[..=depth]) });
                }
                None => {
                    let id = self.push(Inode { meta: Meta::implied_directory(), kind: Kind::directory() });
                    self.name(at, part, id);
                    id
                }
            };
        }
        Ok((at, name))
    }

    fn push(&mut self, inode: Inode) -> InodeId {
        let id = InodeId(self.inodes.len());
        self.inodes.push(inode);
        id
    }

    fn name(&mut self, directory: InodeId, name: &[u8], inode: InodeId) {
        let layer = self.layer;
        self.link_name(directory, name.to_vec(), Link { inode, layer });
    }
}

fn joined(parts: &[&[u8]]) -> String {
    parts.iter().map(|part| format!("/{}", display(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::listing;

    fn file(content: &str) -> Inode {
        Inode::new(0o644, Kind::File(content.into()))
    }

    fn directory(mode: u16) -> Inode {
        Inode::new(mode, Kind::directory())
    }

    #[test]
    fn paths_that_are_not_plain_are_refused() {
        for path in ["", "/", "a", "a/b", "//a", "/a/", "/a//b", "/./a", "/a/..", "/..", "/a\0b"] {
            assert!(matches!(Tree::new().insert(path, file("")), Err(TreeError::Path(_))), "{path:?}");
        }
        Tree::new().insert("/a/...", file("")).unwrap();
    }

    #[test]
    fn parents_are_made_and_come_first() {
        let mut tree = Tree::default();
        for name in ["/b/c/d", "/b-a", "/a", "/b/c.x"] {
            tree.insert(name, file(name)).unwrap();
        }
        let order: Vec<_> = tree.walk().into_iter().map(|(path, _)| display(&path)).collect();
        assert_eq!(order, ["/a", "/b", "/b-a", "/b/c", "/b/c.x", "/b/c/d"]);
        assert_eq!(tree.get("/b/c").unwrap().mode(), 0o040_755);
    }

    #[test]
    fn conflicts_are_errors() {
        let mut tree = Tree::default();
        tree.insert("/a/b", file("")).unwrap();
        assert!(matches!(tree.insert("/a/b", file("")), Err(TreeError::Twice(path)) if path == "/a/b"));
        let error = tree.insert("/a/b/c", file("")).unwrap_err();
        assert_eq!(error.to_string(), "/a/b/c cannot be below /a/b, which is not a directory");
        assert!(matches!(tree.link("/a/b", "/a/b"), Err(TreeError::Twice(_))));
        assert!(matches!(tree.link("/c", "/a"), Err(TreeError::LinkToDirectory(_))));
        assert!(matches!(tree.link("/c", "/x"), Err(TreeError::NoTarget(_))));
        assert_eq!(listing(&tree), ["/a", "/a/b"]);
    }

    #[test]
    fn an_underlay_only_fills_gaps() {
        let mut tree = Tree::default();
        tree.insert("/etc/own", file("own")).unwrap();
        tree.insert("/lib", Inode::new(0o777, Kind::Symlink(b"usr/lib".to_vec()))).unwrap();
        tree.insert("/sbin", directory(0o755)).unwrap();
        let mut below = Tree::default();
        for (name, inode) in [
            ("/etc/own", file("other")),
            ("/etc/more", file("more")),
            ("/lib/hidden", file("hidden")),
            ("/sbin", Inode::new(0o777, Kind::Symlink(b"usr/sbin".to_vec()))),
            ("/usr/lib/x", file("x")),
        ] {
            below.insert(name, inode).unwrap();
        }
        tree.underlay(below).unwrap();
        assert_eq!(
            listing(&tree),
            ["/etc", "/etc/more", "/etc/own", "/lib", "/sbin", "/usr", "/usr/lib", "/usr/lib/x"]
        );
        assert_eq!(tree.get("/etc/own"), Some(&file("own")));
        assert!(tree.get("/sbin").unwrap().kind.is_directory());
    }

    #[test]
    fn names_of_one_file_stay_names_of_one_file_and_keep_their_attributes() {
        let mut below = Tree::default();
        let mut ping = file("ping");
        ping.meta.xattrs.insert(b"security.capability".to_vec(), vec![1, 2]);
        below.insert("/bin/ping", ping.clone()).unwrap();
        below.link("/bin/ping4", "/bin/ping").unwrap();
        below.link("/usr/ping6", "/bin/ping").unwrap();
        let mut tree = Tree::default();
        // One of the names is taken: the others are still of one file.
        tree.insert("/bin/ping", file("own")).unwrap();
        tree.underlay(below).unwrap();
        let id = |path: &str| tree.find(path.as_bytes()).unwrap().unwrap();
        assert_eq!(id("/bin/ping4"), id("/usr/ping6"));
        assert_ne!(id("/bin/ping4"), id("/bin/ping"));
        assert_eq!(tree.get("/bin/ping4"), Some(&ping));
    }

    #[test]
    fn a_tree_deeper_than_a_path_is_refused() {
        let mut below = Tree::default();
        below.put(&b"d/".repeat(2047), directory(0o755)).unwrap();
        Tree::default().underlay(below.clone()).unwrap();
        below.put(&[&b"d/".repeat(2047)[..], b"xx"].concat(), file("")).unwrap();
        let refused = Tree::default().underlay(below).unwrap_err();
        assert!(matches!(refused, TreeError::TooLong(name) if name == "xx"));
    }
}
