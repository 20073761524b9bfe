//! The values of `--network`.

use std::fmt;
use std::str::FromStr;

use super::error::NetworkError;
use super::publish::Publish;
use machine::vm::{Forward, Protocol};

/// A value of `--network`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    /// QEMU's user-mode network.
    User,
    /// Only the guest's loopback.
    None,
    /// A link of a named network namespace of the host.
    Netns {
        /// The namespace's name below `/run/netns`.
        name: String,
        /// The link; the only one with addresses if absent.
        link: Option<String>,
    },
}

impl FromStr for NetworkMode {
    type Err = NetworkError;

    fn from_str(word: &str) -> Result<Self, NetworkError> {
        let wrong =
            |problem: &str| Err(NetworkError::Word { word: word.to_owned(), problem: problem.to_owned() });
        let place = match (word, word.strip_prefix("netns=")) {
            ("user", _) => return Ok(Self::User),
            ("none", _) => return Ok(Self::None),
            (_, Some(place)) => place,
            _ => return wrong("there is user, none, netns=NAME and netns=NAME/LINK"),
        };
        let (name, link) = match place.split_once('/') {
            Some((name, link)) => (name, Some(link)),
            None => (place, None),
        };
        if matches!(name, "" | "." | "..") {
            return wrong("name a network namespace as `ip netns` shows it");
        }
        // What the kernel takes for a link's name (dev_valid_name): IFNAMSIZ is 16 with the NUL.
        let is_link = |link: &str| {
            (1..16).contains(&link.len())
                && !matches!(link, "." | "..")
                && !link.contains(|c: char| c == '/' || c == ':' || c.is_ascii_whitespace())
        };
        if link.is_some_and(|link| !is_link(link)) {
            return wrong("no network link can have this name");
        }
        Ok(Self::Netns { name: name.to_owned(), link: link.map(str::to_owned) })
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("user"),
            Self::None => f.write_str("none"),
            Self::Netns { name, link: None } => write!(f, "netns={name}"),
            Self::Netns { name, link: Some(link) } => write!(f, "netns={name}/{link}"),
        }
    }
}

/// How a guest is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// QEMU's user-mode network.
    User {
        /// Ports of the host that lead in.
        publish: Vec<Forward>,
    },
    /// Only the guest's loopback.
    None,
    /// A link of a named network namespace of the host.
    Netns {
        /// The namespace's name below `/run/netns`.
        name: String,
        /// The link; the only one with addresses if absent.
        link: Option<String>,
    },
}

impl Network {
    /// Puts together what the user said.
    ///
    /// # Errors
    /// Ports that cannot be published in this mode, or twice.
    pub fn new(mode: &NetworkMode, publish: &[Publish]) -> Result<Self, NetworkError> {
        if *mode != NetworkMode::User && !publish.is_empty() {
            return Err(NetworkError::NotUser(mode.to_string()));
        }
        match mode {
            NetworkMode::User => {
                let publish: Vec<Forward> = publish.iter().map(|publish| publish.0).collect();
                super::publish::refuse_doubles(&publish)?;
                Ok(Self::User { publish })
            }
            NetworkMode::None => Ok(Self::None),
            NetworkMode::Netns { name, link } => Ok(Self::Netns { name: name.clone(), link: link.clone() }),
        }
    }

    /// The ports that lead into the guest.
    pub fn published(&self) -> &[Forward] {
        match self {
            Self::User { publish } => publish,
            Self::None | Self::Netns { .. } => &[],
        }
    }

    /// Those of them that stay closed until somebody in the pod answers: where connections are made.
    pub fn held(&self) -> impl Iterator<Item = Forward> {
        self.published().iter().filter(|forward| forward.protocol == Protocol::Tcp).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_and_written_alike() {
        for word in ["user", "none", "netns=pod1", "netns=pod1/eth0", "netns=cni-5f/veth.7"] {
            assert_eq!(word.parse::<NetworkMode>().unwrap().to_string(), word);
        }
    }

    #[test]
    fn other_modes_are_refused_with_what_there_is() {
        for (word, part) in [
            ("host", "there is user, none, netns=NAME"),
            ("", "there is user"),
            ("netns", "there is user"),
            ("netns=", "`ip netns` shows"),
            ("netns=..", "`ip netns` shows"),
            ("netns=a/", "no network link"),
            ("netns=a/b/c", "no network link"),
            ("netns=a/0123456789abcdef", "no network link"),
        ] {
            let text = word.parse::<NetworkMode>().unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn ports_are_published_by_the_user_network_only() {
        let publish = ["8080:80".parse().unwrap()];
        let text = Network::new(&NetworkMode::None, &publish).unwrap_err().to_string();
        assert!(text.contains("--network user only, not with none"), "{text}");
        assert_eq!(Network::new(&NetworkMode::User, &publish).unwrap().published().len(), 1);
        assert_eq!(Network::new(&NetworkMode::None, &[]).unwrap(), Network::None);
    }
}
