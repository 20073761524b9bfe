//! What an image says about running it, and who its users are.

use fs_image::Tree;
use serde::{Deserialize, Serialize};

use super::document::Configuration;

/// Account files larger than this are not read.
const MAX_ACCOUNTS: u64 = 1 << 20;

/// The parts of an image's configuration that matter to a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The program and its first arguments.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Arguments after the entry point, unless the pod names others.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Environment, each `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working directory; empty for the root.
    #[serde(default)]
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty for root.
    #[serde(default)]
    pub user: String,
    /// The signal that asks the program to end, such as `SIGQUIT`; empty for SIGTERM.
    #[serde(default)]
    pub stop_signal: String,
    /// Directories that the image wants volumes at.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// The image's `/etc/passwd`.
    #[serde(default)]
    pub passwd: String,
    /// The image's `/etc/group`.
    #[serde(default)]
    pub group: String,
}

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids, sorted.
    pub groups: Vec<u32>,
    /// Home directory, where the image knows one.
    pub home: Option<String>,
}

/// The image has no such user or group.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the image has no {what} {name:?}; use a number, or one that is in its {file}")]
pub struct UserError {
    what: &'static str,
    name: String,
    file: &'static str,
}

/// The image's `StopSignal` is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the image's StopSignal {0:?} is no signal; use a name such as SIGQUIT, SIGRTMIN+3, or a number up to 64"
)]
pub struct SignalError(String);

const SIGTERM: u32 = 15;
/// Real-time signals as the C library counts them, which keeps the first two of the kernel's to itself (signal(7)).
const SIGRTMIN: u32 = 34;
const SIGRTMAX: u32 = 64;

/// The number of a signal. Reads `SIGQUIT`, `quit`, `3`, `SIGRTMIN+3` or `RTMAX-1`, as docker and containerd do.
pub fn signal_number(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=SIGRTMAX).contains(number));
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let distance = |text: &str| match text {
        "" => Some(0),
        text if text[1..].bytes().all(|byte| byte.is_ascii_digit()) => text[1..].parse::<u32>().ok(),
        _ => None,
    };
    if let Some(above) = name.strip_prefix("RTMIN").filter(|rest| rest.is_empty() || rest.starts_with('+')) {
        return distance(above)?.checked_add(SIGRTMIN).filter(|number| *number <= SIGRTMAX);
    }
    if let Some(below) = name.strip_prefix("RTMAX").filter(|rest| rest.is_empty() || rest.starts_with('-')) {
        return SIGRTMAX.checked_sub(distance(below)?).filter(|number| *number >= SIGRTMIN);
    }
    let name = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        name => name,
    };
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
    u32::try_from(signal as i32).ok()
}

impl ImageConfig {
    pub(super) fn of(configuration: &Configuration) -> Self {
        let settings = configuration.config.clone();
        Self {
            entrypoint: settings.entrypoint,
            cmd: settings.cmd,
            env: settings.env,
            working_dir: settings.working_dir,
            user: settings.user,
            stop_signal: settings.stop_signal,
            volumes: settings.volumes.into_keys().collect(),
            passwd: String::new(),
            group: String::new(),
        }
    }

    /// Makes the directories that the image wants volumes at, where they are missing: what starts containers mounts something
    /// there, and programs count on it.
    pub(super) fn make_volumes(&self, tree: &mut Tree) -> Result<(), String> {
        for volume in &self.volumes {
            tree.make_directories(volume.as_bytes())
                .map_err(|error| format!("the volume {volume:?} cannot be made: {error}"))?;
        }
        Ok(())
    }

    /// The number of the signal that asks the program to end.
    ///
    /// # Errors
    /// When the image names a signal that does not exist.
    pub fn stop_signal(&self) -> Result<u32, SignalError> {
        match self.stop_signal.trim() {
            "" => Ok(SIGTERM),
            text => signal_number(text).ok_or_else(|| SignalError(self.stop_signal.clone())),
        }
    }

    /// Remembers who the image's users are.
    pub(super) fn take_accounts(&mut self, tree: &Tree) {
        let read = |path: &[u8]| {
            let content = tree.file(path).filter(|content| content.len() <= MAX_ACCOUNTS)?;
            Some(String::from_utf8_lossy(&content.bytes().ok()?).into_owned())
        };
        self.passwd = read(b"/etc/passwd").unwrap_or_default();
        self.group = read(b"/etc/group").unwrap_or_default();
    }

    /// Resolves `user[:group]`, by name or number, as the image specification says.
    ///
    /// # Errors
    /// When a name is not in the image's files.
    pub fn account(&self, user: &str) -> Result<Account, UserError> {
        let (user, group) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (user, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let entry = entries(&self.passwd).find(|fields| fields[0] == user || fields.get(2) == Some(&user));
        let number = |fields: &[&str], at: usize| fields.get(at).and_then(|text| text.parse::<u32>().ok());
        let known = entry.as_ref().and_then(|fields| Some((number(fields, 2)?, number(fields, 3)?)));
        let (uid, primary) = match (known, user.parse::<u32>()) {
            (Some(known), _) => known,
            (None, Ok(uid)) => (uid, 0),
            (None, Err(_)) => {
                return Err(UserError { what: "user", name: user.to_owned(), file: "/etc/passwd" });
            }
        };
        let home = entry.as_ref().and_then(|fields| fields.get(5)).filter(|home| !home.is_empty());
        let home = home.map(|home| (*home).to_owned());
        let Some(group) = group.filter(|group| !group.is_empty()) else {
            let name = entry.as_ref().map_or("", |fields| fields[0]);
            return Ok(Account { uid, gid: primary, groups: self.groups_of(name), home });
        };
        let named =
            entries(&self.group).find(|fields| fields[0] == group).and_then(|fields| number(&fields, 2));
        match named.or_else(|| group.parse().ok()) {
            // An explicit group leaves no room for supplementary ones.
            Some(gid) => Ok(Account { uid, gid, groups: Vec::new(), home }),
            None => Err(UserError { what: "group", name: group.to_owned(), file: "/etc/group" }),
        }
    }

    fn groups_of(&self, name: &str) -> Vec<u32> {
        if name.is_empty() {
            return Vec::new();
        }
        let mut groups: Vec<u32> = entries(&self.group)
            .filter(|fields| {
                fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
            })
            .filter_map(|fields| fields.get(2)?.parse().ok())
            .collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ImageConfig {
        ImageConfig {
            passwd: "root:x:0:0:root:/root:/bin/sh\n# comment\nwww:x:33:34:www:/var/www:/bin/false\n".into(),
            group: "root:x:0:\nwww:x:34:\nlog:x:4:www,other\ntape:x:26:other\nadm:x:3:www\n".into(),
            ..ImageConfig::default()
        }
    }

    fn account(user: &str) -> Account {
        config().account(user).unwrap()
    }

    #[test]
    fn stop_signals_by_name_and_number() {
        let signal = |text: &str| ImageConfig { stop_signal: text.into(), ..config() }.stop_signal();
        for (text, number) in [
            ("", 15),
            ("SIGQUIT", 3),
            ("quit", 3),
            ("9", 9),
            ("64", 64),
            ("SIGRTMIN+3", 37),
            ("rtmin", 34),
            ("SIGRTMAX-1", 63),
            ("RTMAX", 64),
            ("SIGRTMIN+30", 64),
            ("SIGWINCH", 28),
            ("SIGPOLL", 29),
            ("CLD", 17),
        ] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for text in [
            "SIGNOTHING",
            "0",
            "65",
            "-1",
            "SIGRTMIN+31",
            "SIGRTMIN-1",
            "SIGRTMAX+1",
            "RTMAX-31",
            "RTMIN+",
            "RTMIN+x",
            "RTMIN++1",
            "SIG",
            "SIGSIGTERM",
            "99999999999999999999",
            "3 4",
        ] {
            assert!(signal(text).unwrap_err().to_string().contains(text), "{text}");
        }
    }

    #[test]
    fn users_by_name_and_number() {
        assert_eq!((account("").uid, account("").home), (0, Some("/root".into())));
        for user in ["www", "33"] {
            let account = account(user);
            assert_eq!((account.uid, account.gid, account.groups), (33, 34, vec![3, 4]));
        }
        assert_eq!(account("1000"), Account { uid: 1000, ..Account::default() });
    }

    #[test]
    fn a_named_group_replaces_all_others() {
        let home = Some("/var/www".to_owned());
        assert_eq!(account("www:log"), Account { uid: 33, gid: 4, groups: vec![], home: home.clone() });
        assert_eq!(account("33:77"), Account { uid: 33, gid: 77, groups: vec![], home });
    }

    #[test]
    fn unknown_names_are_errors() {
        assert!(config().account("nginx").unwrap_err().to_string().contains("no user \"nginx\""));
        assert!(config().account("www:nope").unwrap_err().to_string().contains("no group \"nope\""));
    }
}
