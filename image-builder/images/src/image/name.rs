//! Names of images: how a reference is split into a path and a name, and which names mean the same.

use std::io;
use std::path::{Path, PathBuf};

use super::ImageError;

/// What stands behind the path in a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// `:NAME`
    Name(String),
    /// `@sha256:HEX`
    Digest(String),
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(text) | Self::Digest(text) => f.write_str(text),
        }
    }
}

/// Splits a reference at the longest path that exists.
pub(super) fn locate(reference: &str) -> Result<(PathBuf, Option<Choice>), ImageError> {
    match Path::new(reference).canonicalize() {
        Ok(path) => return Ok((path, None)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(ImageError::source(reference, "this user may not look there: permission denied"));
        }
        Err(_) => {}
    }
    for (at, separator) in reference.rmatch_indices([':', '@']) {
        let (path, rest) = (&reference[..at], &reference[at + 1..]);
        if let Ok(path) = Path::new(path).canonicalize() {
            let rest = rest.to_owned();
            return Ok((
                path,
                Some(if separator == "@" { Choice::Digest(rest) } else { Choice::Name(rest) }),
            ));
        }
    }
    Err(ImageError::source(
        reference,
        "no such file or directory; an image is an OCI layout directory, an archive made by `docker save` or \
         `skopeo copy`, a runtime bundle, or a root file system as a directory or a tar archive",
    ))
}

/// How well a name that was asked for fits one of an image's: the greater the better, nothing if not at all.
pub(super) fn fit(asked: &str, name: &str) -> Option<u8> {
    if asked == name {
        return Some(3);
    }
    let (asked_full, name_full) = (full(asked), full(name));
    if asked_full == name_full {
        return Some(2);
    }
    let is_end = |whole: &str, end: &str| whole.strip_suffix(end).is_some_and(|front| front.ends_with('/'));
    if is_end(name, asked) || is_end(&name_full, &with_tag(asked)) {
        return Some(1);
    }
    let tag = name.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'));
    (tag == Some(asked)).then_some(0)
}

/// As docker completes a name: its own registry, and the tag `latest`.
fn full(name: &str) -> String {
    let name = with_tag(name);
    let first = name.split_once('/').map(|(first, _)| first);
    match first {
        None => format!("docker.io/library/{name}"),
        Some(registry) if registry.contains(['.', ':']) || registry == "localhost" => name,
        Some(_) => format!("docker.io/{name}"),
    }
}

fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_split_at_the_longest_path_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
        for name in ["F", "F:b"] {
            std::fs::write(at(name), "").unwrap();
        }
        let split = |text: &str| locate(&at(text).display().to_string()).unwrap();
        let name = |text: &str| Some(Choice::Name(text.into()));
        assert_eq!(split("F"), (at("F"), None));
        assert_eq!(split("F:b"), (at("F:b"), None));
        assert_eq!(split("F:zz:latest"), (at("F"), name("zz:latest")));
        assert_eq!(split("F:b:1"), (at("F:b"), name("1")));
        assert_eq!(split("F:localhost:5000/a/b:1"), (at("F"), name("localhost:5000/a/b:1")));
        assert_eq!(split("F@sha256:00"), (at("F"), Some(Choice::Digest("sha256:00".into()))));
        assert_eq!(split("F:a@sha256:00"), (at("F"), name("a@sha256:00")));
        let error = locate("/nonexistent/image:tag").unwrap_err().to_string();
        assert!(error.contains("OCI layout directory"), "{error}");
    }

    #[test]
    fn names_fit_in_full_by_their_end_and_by_their_tag() {
        let name = "docker.io/library/zz:latest";
        for (asked, expected) in [
            (name, Some(3)),
            ("zz:latest", Some(2)),
            ("zz", Some(2)),
            ("library/zz", Some(2)),
            ("latest", Some(0)),
            ("z", None),
            ("z:latest", None),
            ("other/zz:latest", None),
            ("library", None),
        ] {
            assert_eq!(fit(asked, name), expected, "{asked}");
        }
        assert_eq!(fit("b:1", "localhost:5000/a/b:1"), Some(1));
        assert_eq!(fit("a/b", "registry.example/a/b:latest"), Some(1));
        assert_eq!(
            [fit("1", "name:1"), fit("name:1", "name:1"), fit("5000/a", "host:5000/a")],
            [Some(0), Some(3), None]
        );
    }
}
