//! The cgroup's path, parsed once.
//!
//! Owns: how `linux.cgroupsPath` becomes directory names below the cgroup2 mount. Promises: at least one name; none
//! of them is `.`, `..`, empty, or holds `/`, a NUL or another control character. Must never: touch the file system.

use std::fmt;

use super::Error;

/// The longest name the kernel takes for a directory (`NAME_MAX`).
const NAME_MAX: usize = 255;
/// The longest text taken at all (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// Where a container's cgroup is, below the cgroup2 mount.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CgroupPath {
    names: Vec<String>,
}

impl CgroupPath {
    /// Reads `linux.cgroupsPath`. Absolute and relative paths both start at the root; the systemd form
    /// `slice:prefix:name` becomes `slice/prefix/name`; an empty text means `/<container_id>`. Repeated and trailing
    /// separators count once, as everywhere in a path.
    ///
    /// # Errors
    /// [`Error::Path`] if it names the root itself, has a `.` or `..`, a control character, or is too long.
    pub fn parse(text: &str, container_id: &str) -> Result<CgroupPath, Error> {
        let fail = |problem| Err(Error::Path { text: text.to_owned(), problem });
        let chosen = if text.is_empty() { container_id } else { text };
        if chosen.len() >= PATH_MAX {
            return fail("longer than 4095 bytes");
        }
        let mut names = Vec::new();
        for name in chosen.split(['/', ':']).filter(|name| !name.is_empty()) {
            if name == "." || name == ".." {
                return fail("must not contain . or ..");
            }
            if name.len() > NAME_MAX {
                return fail("a name in it is longer than 255 bytes");
            }
            if name.chars().any(char::is_control) {
                return fail("must not contain control characters");
            }
            names.push(name.to_owned());
        }
        if names.is_empty() {
            return fail("names the root, where no container can be");
        }
        Ok(CgroupPath { names })
    }

    /// The same path below a cgroup of this name at the root.
    ///
    /// # Errors
    /// [`Error::Path`] if `name` is no name of one directory.
    pub fn below(&self, name: &str) -> Result<CgroupPath, Error> {
        let mut path = CgroupPath::parse(name, "")?;
        if path.names.len() != 1 {
            return Err(Error::Path { text: name.to_owned(), problem: "not the name of one directory" });
        }
        path.names.extend(self.names.iter().cloned());
        Ok(path)
    }

    /// The directories above the cgroup, outermost first.
    pub(super) fn ancestors(&self) -> &[String] {
        &self.names[..self.names.len() - 1]
    }

    /// The cgroup's own directory.
    pub(super) fn leaf(&self) -> &str {
        &self.names[self.names.len() - 1]
    }
}

/// `/` and the names joined by `/`: as in `/proc/<pid>/cgroup`.
impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.names.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Option<String> {
        CgroupPath::parse(text, "c1").ok().map(|path| path.to_string())
    }

    #[test]
    fn every_spelling_starts_at_the_root() {
        assert_eq!(parsed("/kubepods/pod1/c1").as_deref(), Some("/kubepods/pod1/c1"));
        assert_eq!(parsed("kubepods/c1").as_deref(), Some("/kubepods/c1"));
        assert_eq!(parsed("system.slice:docker:c1").as_deref(), Some("/system.slice/docker/c1"));
        assert_eq!(parsed(":cri-containerd:c1").as_deref(), Some("/cri-containerd/c1"));
        assert_eq!(parsed("system.slice::c1").as_deref(), Some("/system.slice/c1"));
        assert_eq!(parsed("/a//b/").as_deref(), Some("/a/b"));
        assert_eq!(parsed("").as_deref(), Some("/c1"));
    }

    #[test]
    fn a_path_can_be_put_below_another_cgroup() {
        let path = CgroupPath::parse("/pod/c1", "").unwrap();
        assert_eq!(path.below("pod").unwrap().to_string(), "/pod/pod/c1");
        for name in ["", "..", "a/b", "/"] {
            assert!(path.below(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_cgroup_is_refused() {
        for text in ["/", ":", "..", "/a/../b", "a/.", "/a/..", "..:x:y", "a\0b", "a\nb"] {
            let error = CgroupPath::parse(text, "c1").unwrap_err();
            assert!(error.to_string().starts_with("linux.cgroupsPath"), "{error}");
        }
        assert_eq!(parsed(&"x".repeat(256)), None);
        assert_eq!(parsed(&"x".repeat(255)).map(|text| text.len()), Some(256));
        assert_eq!(parsed(&"x/".repeat(2048)), None);
    }

    proptest! {
        #[test]
        fn names_are_always_plain(text in "[a-z./:\\x00-\\x1f]{0,40}", id in "[a-z]{1,8}") {
            if let Ok(path) = CgroupPath::parse(&text, &id) {
                prop_assert!(!path.names.is_empty());
                for name in &path.names {
                    prop_assert!(!name.is_empty() && name != "." && name != "..");
                    prop_assert!(!name.contains(['/', ':', '\0', '\n']));
                }
                // What we print, we read back as the same.
                prop_assert_eq!(CgroupPath::parse(&path.to_string(), &id).unwrap(), path);
            }
        }

        #[test]
        fn a_dot_dot_never_passes(before in "[a-z/]{0,10}", after in "[a-z/]{0,10}") {
            let text = format!("{before}/../{after}");
            prop_assert!(CgroupPath::parse(&text, "c1").is_err());
        }
    }
}
