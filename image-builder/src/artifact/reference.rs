//! Names of artifacts in registries: `host[:port]/path[:tag][@sha256:…]`.
//!
//! Promises that what parsed can stand in a URL as it is. Must never guess a registry or a tag.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::ArtifactError;
use crate::digest::Digest;

/// A name in a registry, and which of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host, with the port if there is one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The manifest's digest.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same name with another digest and no tag.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Whether the registry is on this host.
    pub fn is_loopback(&self) -> bool {
        let host = match self.registry.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.registry,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.map_or(Ok(()), |digest| write!(f, "@sha256:{digest}"))
    }
}

impl FromStr for Reference {
    type Err = ArtifactError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |problem| ArtifactError::Reference { text: text.to_string(), problem };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
                let digest = digest.ok_or_else(|| wrong("after @ goes sha256: and 64 hexadecimal digits"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (registry, rest) =
            rest.split_once('/').ok_or_else(|| wrong("it has the form host[:port]/path:tag"))?;
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag.to_string())),
            None => (rest, None),
        };
        if !is_registry(registry) {
            return Err(wrong("it begins with the registry's host, such as localhost:5000 or ghcr.io"));
        }
        if !is_name(name) {
            return Err(wrong("the path has lower-case letters, digits and . _ - between its slashes"));
        }
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("a tag has at most 128 letters, digits, and . _ - but not first"));
        }
        if tag.is_none() && digest.is_none() {
            return Err(wrong("a tag (host/path:tag) or a digest (host/path@sha256:…) is missing"));
        }
        Ok(Self { registry: registry.into(), name: name.into(), tag, digest })
    }
}

/// A host is told from a path's first part as everywhere: by a dot, a colon, or by being `localhost`.
fn is_registry(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    (text == "localhost" || text.contains(['.', ':'])) && text.bytes().all(known)
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.split('/').all(|part| {
        part.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
            && part.bytes().next().is_some_and(plain)
            && part.bytes().next_back().is_some_and(plain)
            && !part.contains("..")
    })
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || b".-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_print_as_they_were_written() {
        let digest = "0123456789abcdef".repeat(4);
        for text in [
            "localhost/pith:1".to_string(),
            "127.0.0.1:5000/a/b-c:V_1.0-x".to_string(),
            format!("ghcr.io/pith/guest@sha256:{digest}"),
            format!("[::1]:5000/guest:a@sha256:{digest}"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_incomplete_or_odd_is_refused_with_a_hint() {
        for (text, hint) in [
            ("guest", "form"),
            ("pith/guest:1", "host"),
            ("https://ghcr.io/guest:1", "path"),
            ("ghcr.io/guest", "missing"),
            ("ghcr.io/Guest:1", "lower-case"),
            ("ghcr.io/../guest:1", "lower-case"),
            ("ghcr.io/guest:", "tag"),
            ("ghcr.io/guest:a/b?c", "a tag"),
            ("ghcr.io/guest@md5:1", "sha256"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn only_this_host_is_loopback() {
        let is = |text: &str| text.parse::<Reference>().unwrap().is_loopback();
        assert!(
            is("localhost/a:1") && is("localhost:1/a:1") && is("127.1.2.3:5000/a:1") && is("[::1]:5/a:1")
        );
        assert!(!is("localhost.example.org/a:1") && !is("10.0.0.1:5000/a:1") && !is("127.0.0.1.nip.io/a:1"));
    }
}
