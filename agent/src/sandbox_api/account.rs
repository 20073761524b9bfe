//! Users and groups by name, from the container's own `passwd(5)` and `group(5)`, and what paths mean to a user.
//!
//! The files are the image's, so they are read as hostile ones: inside the container's root, regular, of a bounded size.

use std::collections::HashMap;
use std::os::fd::AsFd;

use crate::container::{entries, groups_of, number, read_table};

/// A user of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// Its name; its number as a text where it has none.
    pub(super) name: String,
    /// Its number.
    pub(super) uid: u32,
    /// Its primary group.
    pub(super) gid: u32,
    /// The further groups that it is a member of.
    pub(super) groups: Vec<u32>,
    /// Its home, an absolute path in the container.
    pub(super) home: String,
}

/// The tables of a container.
#[derive(Debug, Clone, Default)]
pub(super) struct Accounts {
    passwd: String,
    group: String,
}

/// Names by number.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// The name of a user, its number where it has none.
    pub(super) fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    /// The name of a group, its number where it has none.
    pub(super) fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_else(|| gid.to_string())
    }
}

impl Accounts {
    /// Reads those of a container's root. Blocks. What is not there, or no file, has no entries.
    pub(super) fn read(root: impl AsFd) -> Accounts {
        let table = |name| {
            read_table(root.as_fd(), name).unwrap_or_else(|error| {
                tracing::debug!(%error, table = name, "a container has no table of users");
                String::new()
            })
        };
        Accounts { passwd: table("etc/passwd"), group: table("etc/group") }
    }

    /// Finds a user by name, or by number. Root is known everywhere.
    pub(super) fn find(&self, name: &str) -> Option<Account> {
        let by_name = entries(&self.passwd).find(|fields| fields[0] == name);
        let fields = by_name.or_else(|| entries(&self.passwd).find(|fields| fields.get(2) == Some(&name)));
        if let Some(fields) = fields {
            let home = fields.get(5).filter(|home| home.starts_with('/')).map_or("/", |home| home);
            return Some(Account {
                name: fields[0].to_owned(),
                uid: number(fields.get(2))?,
                gid: number(fields.get(3))?,
                groups: groups_of(&self.group, fields[0]),
                home: home.to_owned(),
            });
        }
        if name == "root" || name == "0" {
            let name = "root".to_owned();
            return Some(Account { name, uid: 0, gid: 0, groups: Vec::new(), home: "/root".to_owned() });
        }
        // Without an entry a number is a user all the same, as it is to container engines.
        let uid = number(Some(&name))?;
        Some(Account { name: name.to_owned(), uid, gid: 0, groups: Vec::new(), home: "/".to_owned() })
    }

    /// Names by number; of several names the first.
    pub(super) fn names(&self) -> Names {
        let names = |table: &str| {
            let mut names = HashMap::new();
            for fields in entries(table) {
                if let Some(id) = number(fields.get(2)) {
                    names.entry(id).or_insert_with(|| fields[0].to_owned());
                }
            }
            names
        };
        Names { users: names(&self.passwd), groups: names(&self.group) }
    }
}

/// What a path means: empty is the working directory or, without one, the home; `~` the home; what is relative begins at the
/// home. Absolute paths stay as they are.
///
/// # Errors
/// A text about `~other`, which is nobody's.
pub(super) fn expand(path: &str, home: &str, workdir: Option<&str>) -> Result<String, String> {
    let below = |rest: &str| format!("{}/{rest}", home.trim_end_matches('/'));
    match path {
        "" => Ok(workdir.filter(|path| !path.is_empty()).unwrap_or(home).to_owned()),
        "~" => Ok(home.to_owned()),
        _ if path.starts_with('/') => Ok(path.to_owned()),
        _ => match path.strip_prefix('~') {
            None => Ok(below(path)),
            Some(rest) => match rest.strip_prefix('/') {
                Some(rest) => Ok(below(rest)),
                None => Err(format!("cannot expand user-specific home dir: {path:?}")),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "# x\nroot:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:\nodd:x\nrel:x:7:7::home:\n"
                .into(),
            group: "root:x:0:\nwww:x:34:web\nlogs:x:40:adm,web\nother:x:41:webby\n".into(),
        }
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let accounts = accounts();
        let web = accounts.find("web").unwrap();
        assert_eq!(
            (web.uid, web.gid, web.groups.as_slice(), web.home.as_str()),
            (33, 34, &[34, 40][..], "/var/www")
        );
        assert_eq!(accounts.find("33"), Some(web));
        assert_eq!(accounts.find("rel").unwrap().home, "/");
        assert_eq!(accounts.find("nosuch"), None);
        assert_eq!(accounts.find("odd"), None);
        assert_eq!(accounts.find("-1"), None);
        let stranger = accounts.find("1000").unwrap();
        assert_eq!((stranger.uid, stranger.gid, stranger.home.as_str()), (1000, 0, "/"));
        let nothing = Accounts::default();
        assert_eq!(nothing.find("root").unwrap().home, "/root");
        assert_eq!(nothing.find("user"), None);
    }

    #[test]
    fn numbers_have_names_or_are_texts() {
        let names = accounts().names();
        assert_eq!(
            (names.user(33), names.user(5), names.group(40), names.group(5)),
            ("web".into(), "5".into(), "logs".into(), "5".into())
        );
    }

    #[test]
    fn tables_are_read_inside_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("outside"), "out:x:1:1::/:\n").unwrap();
        std::fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        std::os::unix::fs::symlink("../../outside", dir.path().join("root/etc/passwd")).unwrap();
        let root = std::fs::File::open(dir.path().join("root")).unwrap();
        assert_eq!(Accounts::read(&root).find("out"), None);
        std::fs::write(dir.path().join("root/outside"), "in:x:2:2::/:\n").unwrap();
        assert_eq!(Accounts::read(&root).find("in").unwrap().uid, 2);
    }

    #[test]
    fn only_the_beginning_of_a_table_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let filler = "#\n".repeat(crate::container::LARGEST_TABLE as usize / 2);
        let table = format!("first:x:1:1::/:\n{filler}last:x:2:2::/:\n");
        std::fs::write(dir.path().join("etc/passwd"), table).unwrap();
        let accounts = Accounts::read(std::fs::File::open(dir.path()).unwrap());
        assert!(accounts.find("first").is_some() && accounts.find("last").is_none());
    }

    #[test]
    fn paths_are_the_users() {
        let of = |path| expand(path, "/home/u", None);
        assert_eq!(of("").unwrap(), "/home/u");
        assert_eq!(of("~").unwrap(), "/home/u");
        assert_eq!(of("~/a").unwrap(), "/home/u/a");
        assert_eq!(of("a/b").unwrap(), "/home/u/a/b");
        assert_eq!(of("/a/../b").unwrap(), "/a/../b");
        assert!(of("~other").is_err());
        assert_eq!(expand("", "/h", Some("/work")).unwrap(), "/work");
        assert_eq!(expand("a", "/", Some("/work")).unwrap(), "/a");
    }
}
