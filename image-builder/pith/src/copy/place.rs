//! The source and destination of a copy: parses them, and applies the rules of `cp -r`.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use pods::run::courier::There;

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// A file or directory of this host.
    Here(PathBuf),
    /// One of a container.
    Container {
        /// The pod, or the id of a container.
        pod: String,
        /// The container, if it is named.
        container: Option<String>,
        /// The absolute path in it.
        path: String,
    },
    /// A tar archive on standard input or output.
    Stream,
}

/// Understands SRC or DST: `POD:PATH`, `POD/CONTAINER:PATH`, `-`, or a path of this host, which has no colon, or begins
/// with a slash or a dot.
pub(super) fn parse(text: &str) -> Result<End, String> {
    if text == "-" {
        return Ok(End::Stream);
    }
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    let Some((whose, path)) = text.split_once(':').filter(|_| !text.starts_with(['/', '.'])) else {
        return Ok(End::Here(PathBuf::from(text)));
    };
    let (pod, container) = match whose.split_once('/') {
        Some((pod, container)) => (pod, Some(container)),
        None => (whose, None),
    };
    if pod.is_empty() || container.is_some_and(|name| name.is_empty() || name.contains('/')) {
        return Err(format!(
            "{text:?} is not POD:PATH or POD/CONTAINER:PATH; a path of this host with a colon begins with / or ./"
        ));
    }
    if path.is_empty() || path.contains('\0') {
        return Err(format!("{text:?} has no path behind the colon"));
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(End::Container { pod: pod.to_owned(), container: container.map(str::to_owned), path })
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) is_directory: bool,
    /// Its name, if the tree itself is copied and not only what is in it.
    pub(super) name: Option<String>,
}

impl Source {
    /// The source at `path`. `PATH/.` is what is in a directory.
    pub(super) fn new(path: &str, is_directory: bool) -> Self {
        let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let name = Some(last.to_owned()).filter(|name| !matches!(name.as_str(), "" | "." | ".."));
        Self { is_directory, name }
    }
}

/// Where a copy is made: in this directory, under this name, or without one in the directory itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) directory: String,
    pub(super) name: Option<String>,
}

/// Where `source` goes if it is copied to `path`, and `there` is what is there.
pub(super) fn target(source: &Source, path: &str, there: There) -> anyhow::Result<Target> {
    let split = || {
        let plain = path.trim_end_matches('/');
        let at = plain.rfind('/').map_or(0, |at| at + 1);
        let directory = match &plain[..at] {
            "" => ".",
            "/" => "/",
            directory => directory.trim_end_matches('/'),
        };
        Target { directory: directory.to_owned(), name: Some(plain[at..].to_owned()) }
    };
    match there {
        There::Directory => Ok(Target { directory: path.to_owned(), name: source.name.clone() }),
        There::Other => bail!("{path} is neither a file nor a directory; name another destination"),
        There::File => {
            ensure!(!source.is_directory, "{path} is a file, and a directory cannot be copied to it");
            ensure!(!path.ends_with('/'), "{path} is a file, and not a directory as the slash says");
            Ok(split())
        }
        There::Nothing => {
            ensure!(
                source.is_directory || !path.ends_with('/'),
                "there is no directory {path}; make it first, or leave out the slash to copy to a file"
            );
            Ok(split())
        }
    }
}

/// What is at a path of this host. A link counts as what it leads to.
pub(super) fn look(path: &Path) -> anyhow::Result<There> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(There::Directory),
        Ok(metadata) if metadata.is_file() => Ok(There::File),
        Ok(_) => Ok(There::Other),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let parent =
                path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            ensure!(
                parent.is_dir(),
                "there is no directory {} on this host; make it first with mkdir -p",
                parent.display()
            );
            Ok(There::Nothing)
        }
        Err(error) => Err(anyhow::Error::from(error).context(format!("cannot look at {}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_written_as_podman_and_kubectl_have_them() {
        let of = |pod: &str, container: Option<&str>, path: &str| End::Container {
            pod: pod.into(),
            container: container.map(str::to_owned),
            path: path.into(),
        };
        for (text, end) in [
            ("web:/etc/hosts", of("web", None, "/etc/hosts")),
            ("web:etc/", of("web", None, "/etc/")),
            ("web/side:/a:b", of("web", Some("side"), "/a:b")),
            ("-", End::Stream),
            ("./web:1", End::Here("./web:1".into())),
            ("/a:b", End::Here("/a:b".into())),
            ("file", End::Here("file".into())),
        ] {
            assert_eq!(parse(text), Ok(end), "{text}");
        }
        for wrong in ["", ":/x", "web:", "web/:/x", "/web/a/b:".trim_start_matches('/'), "web/a/b:/x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_copy_goes_where_cp_would_make_it() {
        let file = Source::new("/a/file", false);
        let tree = Source::new("/a/tree/", true);
        let content = Source::new("tree/.", true);
        let at = |directory: &str, name: &str| Target {
            directory: directory.into(),
            name: Some(name.to_owned()).filter(|name| !name.is_empty()),
        };
        for (source, path, there, expected) in [
            (&file, "/to", There::Directory, at("/to", "file")),
            (&file, "/to/", There::Directory, at("/to/", "file")),
            (&file, "/to/new", There::Nothing, at("/to", "new")),
            (&file, "new", There::File, at(".", "new")),
            (&file, "/new", There::Nothing, at("/", "new")),
            (&tree, "/to", There::Directory, at("/to", "tree")),
            (&tree, "/to/new/", There::Nothing, at("/to", "new")),
            (&content, "/to", There::Directory, at("/to", "")),
            (&content, "/to", There::Nothing, at("/", "to")),
        ] {
            assert_eq!(target(source, path, there).unwrap(), expected, "{source:?} {path} {there:?}");
        }
        for (source, path, there) in [
            (&file, "/to/", There::Nothing),
            (&file, "/to/", There::File),
            (&file, "/dev/null", There::Other),
            (&tree, "/to", There::File),
            (&tree, "/to", There::Other),
        ] {
            assert!(target(source, path, there).is_err(), "{source:?} {path} {there:?}");
        }
        assert_eq!((Source::new("/", true).name, Source::new("a/..", true).name), (None, None));
    }

    #[test]
    fn what_is_here_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let of = |name: &str| look(&dir.path().join(name));
        assert_eq!(of("").unwrap(), There::Directory);
        assert_eq!(of("file").unwrap(), There::File);
        assert_eq!(of("new").unwrap(), There::Nothing);
        assert!(of("no/new").unwrap_err().to_string().contains("mkdir -p"));
        assert_eq!(look(Path::new("/dev/null")).unwrap(), There::Other);
    }
}
