//! Names of artifacts in registries: `host[:port]/path[:tag][@sha256:…]`.
//!
//! Promises that a parsed name can be used in a URL without escaping. Only [`Reference::of_image`] adds missing parts.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use store::digest::Digest;

use crate::error::RegistryError;

/// The registry of names that have none.
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

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

    /// Where requests go: the registry, but for Docker Hub, which has another host for them.
    pub fn host(&self) -> &str {
        if self.registry == HUB { HUB_HOST } else { &self.registry }
    }

    /// The name of a container image as people type it: without a registry it is one of Docker Hub, and without a tag or a
    /// digest it is `latest`.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn of_image(text: &str) -> Result<Self, RegistryError> {
        let wrong = |problem| RegistryError::Reference { text: text.to_string(), problem };
        if text.contains("://") {
            return Err(wrong("a name has no scheme; leave out what stands before the host"));
        }
        let (first, has_path) = text.split_once('/').map_or((text, false), |(first, _)| (first, true));
        let mut whole = match (has_path, is_registry(first)) {
            (true, true) => text.to_string(),
            (true, false) => format!("{HUB}/{text}"),
            (false, _) => format!("{HUB}/library/{text}"),
        };
        for alias in ["index.docker.io/", "registry-1.docker.io/"] {
            if let Some(rest) = whole.strip_prefix(alias) {
                whole = format!("{HUB}/{rest}");
            }
        }
        if let Some(rest) = whole.strip_prefix(&format!("{HUB}/")).filter(|rest| !rest.contains('/')) {
            whole = format!("{HUB}/library/{rest}");
        }
        // A colon before the last slash belongs to the host's port.
        let last = whole.rsplit('/').next().unwrap_or_default();
        if !whole.contains('@') && !last.contains(':') {
            whole += ":latest";
        }
        whole.parse().map_err(|error| match error {
            RegistryError::Reference { problem, .. } => wrong(problem),
            other => other,
        })
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
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |problem| RegistryError::Reference { text: text.to_string(), problem };
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
        if name.contains(':') {
            return Err(wrong(
                "it has more than one tag; the form is [HOST[:PORT]/]PATH[:TAG][@sha256:DIGEST]",
            ));
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
    (text == "localhost" || text.contains(['.', ':']))
        && text.bytes().all(known)
        && !text.starts_with(['.', '-', ':'])
        && !text.contains("..")
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
            ("ghcr.io/guest:a:b", "more than one tag; the form is"),
            ("ghcr.io/guest:a/b?c", "a tag"),
            ("ghcr.io/guest@md5:1", "sha256"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn images_are_named_as_people_name_them() {
        let hex = "ab".repeat(32);
        for (text, whole) in [
            ("nginx", "docker.io/library/nginx:latest".to_string()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_string()),
            ("library/nginx", "docker.io/library/nginx:latest".to_string()),
            ("grafana/loki:3", "docker.io/grafana/loki:3".to_string()),
            ("docker.io/nginx", "docker.io/library/nginx:latest".to_string()),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest".to_string()),
            ("localhost/app", "localhost/app:latest".to_string()),
            ("localhost:5000/app", "localhost:5000/app:latest".to_string()),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c".to_string()),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest".to_string()),
            (&format!("nginx@sha256:{hex}"), format!("docker.io/library/nginx@sha256:{hex}")),
            (&format!("q.io/a:1@sha256:{hex}"), format!("q.io/a:1@sha256:{hex}")),
        ] {
            assert_eq!(Reference::of_image(text).unwrap().to_string(), whole, "{text}");
        }
        assert_eq!(Reference::of_image("nginx").unwrap().host(), "registry-1.docker.io");
        for (text, hint) in [
            ("https://q.io/a", "scheme"),
            ("Nginx", "lower-case"),
            ("nginx:", "tag"),
            ("nginx:a b", "tag"),
            ("nginx:a:b", "more than one tag"),
            ("q.io/", "lower-case"),
            ("", "lower-case"),
            ("nginx@sha256:12", "64 hexadecimal"),
            ("../nginx", "lower-case"),
        ] {
            let error = Reference::of_image(text).unwrap_err().to_string();
            assert!(error.contains(hint) && error.contains(&format!("{text:?}")), "{text}: {error}");
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
