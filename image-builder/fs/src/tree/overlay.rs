//! A directory of this machine, laid over a tree.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Inode, Kind, Tree, TreeError};

impl Tree {
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
                let path = format!("{prefix}/{name}");
                let metadata = fs::symlink_metadata(&source).map_err(io("inspect", &source))?;
                let kind = metadata.file_type();
                if kind.is_dir() {
                    if self.get(&path).is_none_or(|inode| !inode.kind.is_directory()) {
                        self.replace(&path, Inode::new(0o755, Kind::directory()))?;
                    }
                    pending.push((source, path));
                } else if kind.is_symlink() {
                    let target = fs::read_link(&source).map_err(io("read", &source))?;
                    let target = Kind::Symlink(target.as_os_str().as_bytes().to_vec());
                    self.replace(&path, Inode::new(0o777, target))?;
                } else if kind.is_file() {
                    let mode = if metadata.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
                    let content = fs::read(&source).map_err(io("read", &source))?;
                    self.replace(&path, Inode::new(mode, Kind::File(content.into())))?;
                } else {
                    return Err(TreeError::Kind(source));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u16, content: &str) -> Inode {
        Inode::new(mode, Kind::File(content.into()))
    }

    #[test]
    fn an_overlay_replaces_files_and_joins_directories() {
        let host = tempfile::tempdir().unwrap();
        fs::create_dir_all(host.path().join("etc/deep")).unwrap();
        fs::write(host.path().join("etc/a"), "new").unwrap();
        fs::set_permissions(host.path().join("etc/a"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("../x", host.path().join("etc/deep/l")).unwrap();
        let mut tree = Tree::default();
        tree.insert("/etc", Inode::new(0o700, Kind::directory())).unwrap();
        tree.insert("/etc/a", file(0o644, "old")).unwrap();
        tree.insert("/etc/b", file(0o644, "kept")).unwrap();
        tree.overlay(host.path()).unwrap();
        assert_eq!(tree.get("/etc").unwrap().meta.mode, 0o700);
        assert_eq!(tree.get("/etc/a"), Some(&file(0o755, "new")));
        assert_eq!(tree.get("/etc/b"), Some(&file(0o644, "kept")));
        assert_eq!(tree.get("/etc/deep/l").unwrap().kind, Kind::Symlink(b"../x".to_vec()));
    }

    #[test]
    fn an_overlay_cannot_bury_a_directory_under_a_file() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("etc"), "").unwrap();
        let mut tree = Tree::default();
        tree.insert("/etc/a", file(0o644, "")).unwrap();
        let error = tree.overlay(host.path()).unwrap_err().to_string();
        assert_eq!(error, "/etc/a cannot be below /etc, which is not a directory");
    }
}
