//! Source tarballs: found on this host or fetched by URL, always known by their SHA-256.
//!
//! Promises that a fetched tarball is used only if its digest is the stated one, and is fetched once. Must never
//! trust a URL without a digest.

use std::io;
use std::path::{Path, PathBuf};

use crate::program::{Program, ProgramError};
use store::cache::{Cache, CacheError};
use store::digest::Digest;
use store::progress::Progress;

/// Why a tarball cannot be had or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file is not there.
    #[error("cannot read the source {path}; {hint}")]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// How to get it.
        hint: String,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// The file is not the one meant.
    #[error("{subject} has sha256 {found}, but {expected} is expected")]
    Mismatch {
        /// The file or URL.
        subject: String,
        /// Its digest.
        found: Digest,
        /// What it should be.
        expected: Digest,
    },
    /// A URL came without a digest.
    #[error("{0} needs a sha256 beside it: what comes from the network is checked")]
    Unpinned(String),
    /// Neither a path nor a URL is known.
    #[error("kernel.toml names neither a path nor a url of the source; pass --source")]
    Nowhere,
    /// The digest is none.
    #[error("the source's sha256 is wrong")]
    Digest(#[source] store::digest::ParseDigestError),
    /// It cannot be kept.
    #[error("cannot keep the fetched source")]
    Cache(#[from] CacheError),
    /// curl or tar failed.
    #[error("cannot {operation} {subject}")]
    Program {
        /// What was tried.
        operation: &'static str,
        /// On what.
        subject: String,
        /// How it failed.
        source: ProgramError,
    },
}

/// Where a tarball is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// On this host.
    File(PathBuf),
    /// Elsewhere, by http, https or file URL.
    Url(String),
}

impl Location {
    /// Text with `://` in it is a URL, all else a path.
    pub fn parse(text: &str) -> Self {
        match text.contains("://") {
            true => Self::Url(text.to_string()),
            false => Self::File(text.into()),
        }
    }
}

/// A tarball that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub location: Location,
    /// What it must hash to; obligatory for a URL.
    pub sha256: Option<Digest>,
    /// What to do when a file is missing.
    pub hint: String,
}

/// A tarball that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tarball {
    /// The file.
    pub path: PathBuf,
    /// The last part of its path or URL.
    pub name: String,
    /// Its digest.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl Source {
    /// Makes sure that the tarball is on this host and is the right one.
    ///
    /// # Errors
    /// When it is missing, cannot be fetched, or has another digest.
    pub async fn fetch(&self, cache: &Cache, progress: Progress) -> Result<Tarball, SourceError> {
        match &self.location {
            Location::File(path) => {
                let tarball = digest(path, &file_name(&path.to_string_lossy()), &self.hint).await?;
                self.check(&path.display().to_string(), tarball)
            }
            Location::Url(url) => {
                let Some(expected) = self.sha256 else { return Err(SourceError::Unpinned(url.clone())) };
                let name = file_name(url);
                let is_whole = |entry: &Path| {
                    Digest::of_file(&entry.join("tarball")).is_ok_and(|(digest, _)| digest == expected)
                };
                if let Some(entry) = cache.entry_or_older("source", &expected, is_whole) {
                    return self.check(url, digest(&entry.join("tarball"), &name, "").await?);
                }
                let step = progress.step(&format!("fetch {name}"), None);
                let work = cache.workspace()?;
                let dir = work.path().join("entry");
                std::fs::create_dir(&dir).map_err(|source| CacheError::Io {
                    operation: "create",
                    path: dir.clone(),
                    source,
                })?;
                let file = dir.join("tarball");
                Program::new("curl", "install curl, or give the source as a path")
                    .args(["--fail", "--location", "--silent", "--show-error", "--retry", "3"])
                    // No deadline for the whole, which may be large, but one for a minute without progress.
                    .args([
                        "--connect-timeout",
                        "30",
                        "--speed-limit",
                        "1000",
                        "--speed-time",
                        "60",
                        "--output",
                    ])
                    .arg(&file)
                    .arg(url)
                    .run(|_| ())
                    .await
                    .map_err(|source| SourceError::Program {
                        operation: "fetch",
                        subject: format!("{url} into {}", file.display()),
                        source,
                    })?;
                let mut tarball = self.check(url, digest(&file, &name, "").await?)?;
                tarball.path = cache.publish("source", &expected, &dir)?.join("tarball");
                step.done(&store::progress::bytes(tarball.size));
                Ok(tarball)
            }
        }
    }

    fn check(&self, subject: &str, tarball: Tarball) -> Result<Tarball, SourceError> {
        match self.sha256 {
            Some(expected) if expected != tarball.sha256 => {
                Err(SourceError::Mismatch { subject: subject.to_string(), found: tarball.sha256, expected })
            }
            _ => Ok(tarball),
        }
    }
}

impl Tarball {
    /// Unpacks the tarball into `dir` without its first path component. With `patterns` (tar wildcards), only what
    /// matches one of them.
    ///
    /// # Errors
    /// When tar is missing or fails.
    pub async fn unpack(&self, dir: &Path, patterns: &[&str], progress: Progress) -> Result<(), SourceError> {
        let mut step = progress.step(&format!("unpack {}", self.name), None);
        Program::new("tar", "install tar and xz-utils")
            .args([
                "--extract",
                "--verbose",
                "--strip-components=1",
                "--no-same-owner",
                "--wildcards",
                "--file",
            ])
            .arg(&self.path)
            .arg("--directory")
            .arg(dir)
            .args(patterns)
            .run(|line| step.advance(line))
            .await
            .map_err(|source| SourceError::Program {
                operation: "unpack",
                subject: self.name.clone(),
                source,
            })?;
        let files = step.count();
        step.done(&format!("{files} files"));
        Ok(())
    }
}

async fn digest(path: &Path, name: &str, hint: &str) -> Result<Tarball, SourceError> {
    let (owned, name) = (path.to_path_buf(), name.to_string());
    let result = tokio::task::spawn_blocking(move || Digest::of_file(&owned)).await;
    let result = result.map_err(io::Error::other).and_then(|result| result);
    match result {
        Ok((sha256, size)) => Ok(Tarball { path: path.to_path_buf(), name, sha256, size }),
        Err(source) => Err(SourceError::Missing { path: path.to_path_buf(), hint: hint.to_string(), source }),
    }
}

fn file_name(location: &str) -> String {
    location.split(['?', '#']).next().unwrap_or(location).rsplit('/').next().unwrap_or(location).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(location: Location, sha256: Option<Digest>) -> Source {
        Source { location, sha256, hint: "install it".to_string() }
    }

    #[test]
    fn locations() {
        assert_eq!(Location::parse("https://h/x.tar.xz"), Location::Url("https://h/x.tar.xz".into()));
        assert_eq!(Location::parse("x.tar.xz"), Location::File("x.tar.xz".into()));
        assert_eq!(file_name("https://h/a/x.tar.xz?y=/z"), "x.tar.xz");
    }

    #[tokio::test]
    async fn a_file_is_checked_when_a_digest_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, path) = (Cache::new(dir.path().join("cache")), dir.path().join("x.tar"));
        let missing =
            source(Location::File(path.clone()), None).fetch(&cache, Progress::Silent).await.unwrap_err();
        assert!(missing.to_string().ends_with("x.tar; install it"), "{missing}");
        std::fs::write(&path, "abc").unwrap();
        let right = Digest::of(b"abc");
        for sha256 in [None, Some(right)] {
            let tarball =
                source(Location::File(path.clone()), sha256).fetch(&cache, Progress::Silent).await.unwrap();
            assert_eq!((tarball.sha256, tarball.size, tarball.name.as_str()), (right, 3, "x.tar"));
        }
        let wrong = source(Location::File(path), Some(Digest::of(b"")))
            .fetch(&cache, Progress::Silent)
            .await
            .unwrap_err();
        assert!(wrong.to_string().contains(&right.to_string()), "{wrong}");
    }

    #[tokio::test]
    async fn a_url_needs_a_digest() {
        let cache = Cache::new("/nonexistent".into());
        let error =
            source(Location::parse("https://h/x"), None).fetch(&cache, Progress::Silent).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "https://h/x needs a sha256 beside it: what comes from the network is checked"
        );
    }

    #[tokio::test]
    async fn a_url_is_fetched_once_and_never_kept_when_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("cache"));
        let path = dir.path().join("x.tar");
        std::fs::write(&path, "abc").unwrap();
        let url = Location::Url(format!("file://{}", path.display()));
        let wrong =
            source(url.clone(), Some(Digest::of(b"no"))).fetch(&cache, Progress::Silent).await.unwrap_err();
        assert!(matches!(wrong, SourceError::Mismatch { .. }), "{wrong:?}");
        assert!(cache.entries("source").is_empty());
        let wanted = source(url, Some(Digest::of(b"abc")));
        wanted.fetch(&cache, Progress::Silent).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let tarball = wanted.fetch(&cache, Progress::Silent).await.unwrap();
        assert_eq!(std::fs::read(tarball.path).unwrap(), b"abc");
    }

    #[tokio::test]
    async fn unpacking_strips_the_first_component_and_obeys_patterns() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("src/top/deep")).unwrap();
        for file in ["top/Kconfig", "top/deep/Kconfig.x", "top/deep/code.c"] {
            std::fs::write(dir.path().join("src").join(file), file).unwrap();
        }
        let tar = dir.path().join("x.tar");
        let make = Program::new("tar", "install tar")
            .arg("-cf")
            .arg(&tar)
            .arg("-C")
            .arg(dir.path().join("src"))
            .arg("top");
        make.run(|_| ()).await.unwrap();
        let tarball = Tarball { path: tar, name: "x.tar".into(), sha256: Digest::of(b""), size: 0 };
        for (name, patterns, code) in [("some", &["*/Kconfig*"][..], false), ("all", &[], true)] {
            let out = dir.path().join(name);
            std::fs::create_dir(&out).unwrap();
            tarball.unpack(&out, patterns, Progress::Silent).await.unwrap();
            assert!(out.join("Kconfig").is_file() && out.join("deep/Kconfig.x").is_file());
            assert_eq!(out.join("deep/code.c").is_file(), code);
        }
    }
}
