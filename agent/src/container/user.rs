//! Users given by name: looked up in the container's own `passwd(5)` and `group(5)`.
//!
//! The request's `string_user` carries texts, where the OCI process has numbers. Each text is sought as a name first and
//! taken as a number only then, as container engines do. The files are the image's, so they are read as hostile ones:
//! resolved inside the container's root, regular, of a bounded size.

use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::User;
use rustix::fs::{CWD, Mode, OFlags};

use super::file;
use crate::error::{ErrorKind, Kind, kind_of_errno};

/// Most bytes of a table that are looked at.
pub(crate) const LARGEST: u64 = 1 << 20;

/// A user as texts. What is empty leaves the OCI process's own value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UserNames {
    /// Name or number of the user.
    pub(crate) uid: String,
    /// Name or number of the primary group; empty is the one in the user's `passwd` entry.
    pub(crate) gid: String,
    /// Names or numbers of further groups; empty are those of which `group` says that the user is a member.
    pub(crate) additional_gids: Vec<String>,
}

/// Why a name leads to no number.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// Neither a name in the table nor a number.
    #[error("{what} {name:?} is not in the container's {table}, and no number")]
    Unknown {
        /// `user` or `group`.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// Where it was sought.
        table: &'static str,
    },
    /// A table is there, and cannot be read.
    #[error("read the container's {table} in {root}")]
    Table {
        /// Which.
        table: &'static str,
        /// The container's root.
        root: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Kind for UserError {
    fn kind(&self) -> ErrorKind {
        match self {
            UserError::Unknown { .. } => ErrorKind::Invalid,
            UserError::Table { source, .. } => kind_of_errno(source.raw_os_error()),
        }
    }
}

impl UserNames {
    /// Whether nothing is asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.uid.is_empty() && self.gid.is_empty() && self.additional_gids.is_empty()
    }
}

/// A container's own tables of users and groups.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    passwd: String,
    group: String,
}

impl Tables {
    /// Reads those of a container's root. Blocks: it may be a shared file system.
    pub(super) fn read(root: &Path) -> Result<Tables, UserError> {
        Ok(Tables { passwd: table(root, "etc/passwd")?, group: table(root, "etc/group")? })
    }

    /// Puts the numbers of `names` into `user`.
    pub(super) fn resolve(&self, names: &UserNames, user: &mut User) -> Result<(), UserError> {
        apply(names, &self.passwd, &self.group, user)
    }
}

fn apply(names: &UserNames, passwd: &str, group: &str, user: &mut User) -> Result<(), UserError> {
    let gid_of = |name: &str| {
        let entry = entries(group).find(|fields| fields[0] == name).and_then(|fields| number(fields.get(2)));
        entry.or_else(|| name.parse().ok()).ok_or_else(|| unknown("group", name, "etc/group"))
    };
    let mut login = None;
    let mut own_group = None;
    if !names.uid.is_empty() {
        let by_name =
            entries(passwd).find(|fields| fields[0] == names.uid && number(fields.get(2)).is_some());
        let entry =
            by_name.or_else(|| entries(passwd).find(|fields| fields.get(2) == Some(&names.uid.as_str())));
        let uid = match &entry {
            Some(fields) => number(fields.get(2)),
            None => names.uid.parse().ok(),
        };
        user.set_uid(uid.ok_or_else(|| unknown("user", &names.uid, "etc/passwd"))?);
        own_group = entry.as_ref().and_then(|fields| number(fields.get(3)));
        login = entry.map(|fields| fields[0].to_owned());
    }
    if !names.gid.is_empty() {
        user.set_gid(gid_of(&names.gid)?);
    } else if let Some(gid) = own_group {
        user.set_gid(gid);
    }
    if !names.additional_gids.is_empty() {
        let gids = names.additional_gids.iter().map(|name| gid_of(name)).collect::<Result<Vec<u32>, _>>()?;
        user.set_additional_gids(Some(gids));
    } else if let Some(login) = login {
        user.set_additional_gids(Some(groups_of(group, &login)));
    }
    Ok(())
}

fn unknown(what: &'static str, name: &str, table: &'static str) -> UserError {
    UserError::Unknown { what, name: name.to_owned(), table }
}

/// The entries of a table of users or groups, each by its fields.
pub(crate) fn entries(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table.lines().filter(|line| !line.starts_with('#')).map(|line| line.trim_end().split(':').collect())
}

/// The groups of which a table says that the user is a member.
pub(crate) fn groups_of(group: &str, login: &str) -> Vec<u32> {
    let is_member =
        |fields: &Vec<&str>| fields.get(3).is_some_and(|list| list.split(',').any(|member| member == login));
    entries(group).filter(is_member).filter_map(|fields| number(fields.get(2))).collect()
}

/// A field that is a number.
pub(crate) fn number(field: Option<&&str>) -> Option<u32> {
    field?.parse().ok()
}

/// The beginning of a table in a container's root.
pub(crate) fn read_table(root: impl AsFd, name: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    file::open(root, Path::new(name))?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The text of a table in the container's root; empty where there is none.
fn table(root: &Path, name: &'static str) -> Result<String, UserError> {
    let read = || -> io::Result<String> {
        let directory = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        match read_table(directory, name) {
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ENOTDIR)) => {
                Ok(String::new())
            }
            read => read,
        }
    };
    read().map_err(|source| UserError::Table { table: name, root: root.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "# users\nroot:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:\n44:x:45:46::/:\nodd:x\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:web\nlogs:x:40:adm,web\nother:x:41:webby\n";

    fn names(uid: &str, gid: &str, more: &[&str]) -> UserNames {
        let additional_gids = more.iter().map(|name| (*name).to_owned()).collect();
        UserNames { uid: uid.into(), gid: gid.into(), additional_gids }
    }

    fn resolved(names: &UserNames) -> (u32, u32, Option<Vec<u32>>) {
        let mut user = User::default();
        user.set_uid(7).set_gid(8).set_additional_gids(Some(vec![9]));
        apply(names, PASSWD, GROUP, &mut user).unwrap();
        (user.uid(), user.gid(), user.additional_gids().clone())
    }

    #[test]
    fn names_become_numbers_with_the_groups_of_their_entries() {
        assert_eq!(resolved(&names("web", "", &[])), (33, 34, Some(vec![34, 40])));
        assert_eq!(resolved(&names("web", "logs", &["other", "5"])), (33, 40, Some(vec![41, 5])));
        assert_eq!(resolved(&names("33", "", &[])), (33, 34, Some(vec![34, 40])));
    }

    #[test]
    fn numbers_need_no_entry_and_names_go_before_numbers() {
        assert_eq!(resolved(&names("1000", "", &[])), (1000, 8, Some(vec![9])));
        assert_eq!(resolved(&names("44", "", &[])), (45, 46, Some(vec![])));
        assert_eq!(resolved(&names("", "www", &[])), (7, 34, Some(vec![9])));
        assert!(names("", "", &[]).is_empty());
    }

    #[test]
    fn who_is_not_known_is_refused() {
        let refused = |names: &UserNames| apply(names, PASSWD, GROUP, &mut User::default()).unwrap_err();
        let error = refused(&names("nobody", "", &[]));
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(error.to_string(), "user \"nobody\" is not in the container's etc/passwd, and no number");
        assert!(refused(&names("", "nogroup", &[])).to_string().contains("group \"nogroup\""));
        assert!(refused(&names("", "", &["-1"])).to_string().contains("\"-1\""));
        assert!(refused(&names("odd", "", &[])).to_string().contains("\"odd\""));
        assert!(refused(&names("4294967296", "", &[])).to_string().contains("4294967296"));
    }

    #[test]
    fn tables_are_read_inside_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("outside"), "web:x:1:1::/:\n").unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        assert_eq!(table(&root, "etc/passwd").unwrap(), "");
        std::os::unix::fs::symlink("../../outside", root.join("etc/passwd")).unwrap();
        assert_eq!(table(&root, "etc/passwd").unwrap(), "");
        std::fs::write(root.join("outside"), "in:x:2:2::/:\n").unwrap();
        assert_eq!(table(&root, "etc/passwd").unwrap(), "in:x:2:2::/:\n");
        std::fs::create_dir(root.join("etc/group")).unwrap();
        assert!(matches!(table(&root, "etc/group"), Err(UserError::Table { .. })));
    }
}
