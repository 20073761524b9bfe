//! Paths as texts: what a request means by one, before any file is looked at.

use super::FileError;
use crate::sandbox_api::account::expand;

/// Whose request it is: what decides where relative paths begin, and who owns what is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// User id, as the kernel outside of the container counts.
    pub(crate) uid: u32,
    /// Group id, counted likewise.
    pub(crate) gid: u32,
    /// Home directory, in the container.
    pub(crate) home: String,
    /// The directory that no path at all means, if it is not the home directory.
    pub(crate) workdir: Option<String>,
}

impl Owner {
    /// The agent itself: nobody is given what is made.
    pub(crate) fn agent() -> Owner {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Owner { uid, gid, home: "/".to_owned(), workdir: None }
    }

    /// The absolute path that a request's text stands for. An absolute path stays as it is, and is not cleaned.
    pub(crate) fn expand(&self, path: &str) -> Result<String, FileError> {
        let refuse = |reason| FileError::Path { path: path.to_owned(), reason };
        if path.contains('\0') {
            return Err(refuse("has a NUL"));
        }
        let is_absolute = path.starts_with('/');
        let whole = expand(path, &self.home, self.workdir.as_deref()).map_err(FileError::Invalid)?;
        Ok(if is_absolute { whole } else { clean(&whole) })
    }
}

/// An absolute path without `.`, `..` and empty names, by its text alone.
fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// The last name of a path; `/` for the root.
pub(crate) fn base(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    if path.is_empty() { "/" } else { path.rsplit('/').next().unwrap_or(path) }
}

/// A path's directory and its last name. None if the last name is not one that an entry can have.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (directory, name) = path.rsplit_once('/')?;
    let directory = if directory.is_empty() { "/" } else { directory };
    (!matches!(name, "" | "." | "..")).then_some((directory, name))
}

/// A path below another one.
pub(crate) fn join(directory: &str, name: &str) -> String {
    if directory.ends_with('/') { format!("{directory}{name}") } else { format!("{directory}/{name}") }
}

/// Sorts names, the first one last: from there they are taken.
pub(crate) fn last_first(names: &mut [Vec<u8>]) {
    names.sort_unstable();
    names.reverse();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_absolute_paths() {
        let owner = |workdir: Option<&str>| Owner {
            uid: 1,
            gid: 1,
            home: "/home/user".into(),
            workdir: workdir.map(str::to_owned),
        };
        let expand = |path: &str| owner(None).expand(path).ok();
        for (path, is) in [
            ("", "/home/user"),
            ("~", "/home/user"),
            ("~/a/../b", "/home/user/b"),
            ("a/./b//c", "/home/user/a/b/c"),
            ("../../../x", "/x"),
            ("/a/../b//c/", "/a/../b//c/"),
            ("a~", "/home/user/a~"),
        ] {
            assert_eq!(expand(path).as_deref(), Some(is), "{path}");
        }
        assert_eq!(expand("~other/x"), None);
        assert_eq!(expand("/a\0b"), None);
        assert_eq!(owner(Some("/work")).expand("").unwrap(), "/work");
        assert_eq!(owner(Some("/work")).expand("x").unwrap(), "/home/user/x");
    }

    #[test]
    fn paths_have_a_directory_and_a_name() {
        assert_eq!(split("/a/b/"), Some(("/a", "b")));
        assert_eq!(split("/a"), Some(("/", "a")));
        for path in ["/", "", "//", "/a/..", "/a/.", "/a/./"] {
            assert_eq!(split(path), None, "{path}");
        }
        assert_eq!((base("/a/b//"), base("/"), base("/a")), ("b", "/", "a"));
        assert_eq!(
            (join("/", "a"), join("/a", "b"), join("/a/", "b")),
            ("/a".into(), "/a/b".into(), "/a/b".into())
        );
    }
}
