//! Users of a root file system: who owns its files, and what `/etc/passwd` and `/etc/group` say.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A user, and the group that is its first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) name: String,
    uid: u32,
    gid: Option<u32>,
    group: Option<String>,
    #[serde(default = "root")]
    home: String,
    #[serde(default = "nothing")]
    shell: String,
}

fn root() -> String {
    "/".to_owned()
}

fn nothing() -> String {
    "/bin/false".to_owned()
}

impl User {
    fn gid(&self) -> u32 {
        self.gid.unwrap_or(self.uid)
    }

    fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(&self.name)
    }
}

/// Who owns an entry: `USER:GROUP`, each a name or a number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Owner {
    user: String,
    group: String,
}

impl TryFrom<String> for Owner {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some((user, group)) if !user.is_empty() && !group.is_empty() && !group.contains(':') => {
                Ok(Self { user: user.to_owned(), group: group.to_owned() })
            }
            _ => Err(format!("{text:?} is no owner: USER:GROUP is expected, each a name or a number")),
        }
    }
}

impl Owner {
    /// The numbers, or the name that nobody has.
    pub(super) fn resolve(&self, users: &[User]) -> Result<(u32, u32), String> {
        let find = |name: &str, number: fn(&User) -> (&str, u32)| match name.parse() {
            Ok(number) => Ok(number),
            Err(_) => {
                let found = users.iter().map(number).find(|(known, _)| *known == name);
                found.map(|(_, number)| number).ok_or_else(|| name.to_owned())
            }
        };
        let user = find(&self.user, |user| (&user.name, user.uid))?;
        Ok((user, find(&self.group, |user| (user.group(), user.gid()))?))
    }
}

/// What is wrong with these users, if anything is.
pub(super) fn contradiction(users: &[User]) -> Option<String> {
    let (mut uids, mut gids) = (BTreeMap::new(), BTreeMap::new());
    for user in users {
        for text in [user.name.as_str(), user.group(), &user.home, &user.shell] {
            if text.is_empty() || text.contains([':', '\n']) {
                return Some(format!(
                    "the user {:?} has {text:?}, which a line of /etc/passwd cannot hold",
                    user.name
                ));
            }
        }
        if uids.insert(&user.name, user.uid).is_some() {
            return Some(format!("the user {:?} is there twice", user.name));
        }
        let gid = *gids.entry(user.group()).or_insert(user.gid());
        if gid != user.gid() {
            return Some(format!(
                "the group {:?} has the numbers {gid} and {}; give it one",
                user.group(),
                user.gid()
            ));
        }
    }
    None
}

/// The files that name the users; none when there is no user.
pub(super) fn files(users: &[User]) -> Vec<(&'static str, String)> {
    if users.is_empty() {
        return Vec::new();
    }
    let passwd = |user: &User| {
        let User { name, uid, home, shell, .. } = user;
        format!("{name}:x:{uid}:{}:{name}:{home}:{shell}\n", user.gid())
    };
    let mut groups: Vec<(&str, u32)> = Vec::new();
    for user in users {
        if !groups.iter().any(|(name, _)| *name == user.group()) {
            groups.push((user.group(), user.gid()));
        }
    }
    let group = |(name, gid): &(&str, u32)| format!("{name}:x:{gid}:\n");
    vec![
        ("/etc/passwd", users.iter().map(passwd).collect()),
        ("/etc/group", groups.iter().map(group).collect()),
    ]
}
