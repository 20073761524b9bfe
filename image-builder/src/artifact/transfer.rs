//! Moving a guest: to a registry, and from one into a directory.
//!
//! ```text
//! push: each blob ─ HEAD: there? ─ POST, PUT ─┐                pull: manifest ─ digest? ─ names? ─ each blob into a
//!                                             └ PUT manifest         hidden directory ─ digest, size? ─ all renamed
//! ```
//!
//! Promises that a manifest appears after its blobs, and that files appear after all are verified, `manifest.json`
//! last. Must never leave its hidden directory behind, whether it fails or is dropped.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::ArtifactError;
use super::guest::{EMPTY, Guest};
use registry::{Reference, RegistryError, Repository, Watch, on_thread};
use store::cache::{self, Workspace};
use store::digest::Digest;
use store::layout::Layout;

/// The type of a guest's manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// The reference by digest, which pulls exactly this.
    pub reference: String,
    /// Blobs that the registry did not have.
    pub uploaded: usize,
    /// Blobs that it had.
    pub present: usize,
}

/// Packs the products of `layout` and uploads them under the tag of `reference`.
///
/// # Errors
/// When the products are not whole, or when the registry cannot be reached or refuses.
pub async fn push(layout: &Layout, reference: &Reference, plain_http: bool) -> Result<Pushed, ArtifactError> {
    let Some(tag) = reference.tag().map(str::to_string) else {
        let problem = "a push needs a tag: host/path:tag";
        return Err(RegistryError::Reference { text: reference.to_string(), problem }.into());
    };
    let (layout, to) = (layout.clone(), reference.clone());
    let watch = Watch::default();
    let watched = watch.clone();
    on_thread(reference, Limits::default().patience, watch, move || {
        let guest = Guest::pack(&layout)?;
        if to.digest().is_some_and(|digest| digest != guest.digest()) {
            return Err(mismatch(&to.to_string(), guest.digest(), to.digest()));
        }
        let mut repository = Repository::new(&to, plain_http, watched);
        let (mut uploaded, mut present) = (0, 0);
        for file in guest.files() {
            if repository.has(file.digest)? {
                present += 1;
            } else {
                repository.upload_file(&layout.out().join(&file.title), file.digest, file.size)?;
                uploaded += 1;
            }
        }
        if repository.has(Digest::of(EMPTY))? {
            present += 1;
        } else {
            repository.upload_bytes(EMPTY)?;
            uploaded += 1;
        }
        repository.put_manifest(&tag, guest.manifest())?;
        Ok(Pushed { reference: to.at(guest.digest()).to_string(), uploaded, present })
    })
    .await
}

/// What a transfer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files of a guest together.
    pub bytes: u64,
    /// How long content may be on its way without progress.
    pub patience: Duration,
}

impl Default for Limits {
    /// 16 GiB, one minute.
    fn default() -> Self {
        Self { bytes: 16 << 30, patience: Duration::from_secs(60) }
    }
}

/// Fetches the guest that `reference` names into `dir`, and says what it is.
///
/// # Errors
/// When the registry cannot be reached or refuses, makes no progress, has more than the limits allow, or when anything is not what its digest says; then the files in
/// `dir` are as they were.
pub async fn pull(
    reference: &Reference,
    dir: &Path,
    plain_http: bool,
    limits: Limits,
) -> Result<Guest, ArtifactError> {
    // Here and not on the thread: it goes when this future is dropped.
    let staging = Workspace::new_in(dir, ".pull-")?;
    let (from, into) = (reference.clone(), staging.path().to_path_buf());
    let watch = Watch::default();
    let watched = watch.clone();
    let guest = on_thread(reference, limits.patience, watch, move || {
        let mut repository = Repository::new(&from, plain_http, watched);
        let guest = fetch_manifest(&mut repository, &from)?;
        let size = guest.files().iter().map(|file| file.size).fold(0, u64::saturating_add);
        if size > limits.bytes {
            return Err(ArtifactError::TooLarge { subject: from.to_string(), size, most: limits.bytes });
        }
        for file in guest.files() {
            let path = into.join(&file.title);
            let url = repository.blob_url(file.digest);
            repository.download(file.digest, file.size, &path)?;
            let (found, size) = Digest::of_file(&path).map_err(ArtifactError::io("read", &path))?;
            if size != file.size {
                return Err(RegistryError::Size { subject: url, expected: file.size }.into());
            }
            if found != file.digest {
                return Err(mismatch(&url, found, Some(file.digest)));
            }
        }
        Ok(guest)
    })
    .await?;
    let (manifest, products): (Vec<_>, Vec<_>) =
        guest.files().iter().partition(|file| file.title == "manifest.json");
    for file in products.into_iter().chain(manifest) {
        let to = dir.join(&file.title);
        fs::rename(staging.path().join(&file.title), &to).map_err(ArtifactError::io("replace", &to))?;
        // The manifest must not come to the disk before what it names.
        cache::sync_dir(dir)?;
    }
    Ok(guest)
}

fn fetch_manifest(repository: &mut Repository, from: &Reference) -> Result<Guest, ArtifactError> {
    let version = match (from.digest(), from.tag()) {
        (Some(digest), _) => format!("sha256:{digest}"),
        (None, tag) => tag.unwrap_or_default().to_string(),
    };
    let manifest = repository.manifest(&version, MANIFEST)?;
    let (url, found) = (repository.manifest_url(&version), Digest::of(&manifest));
    if from.digest().is_some_and(|digest| digest != found) {
        return Err(mismatch(&url, found, from.digest()));
    }
    Guest::parse(manifest, &url)
}

fn mismatch(subject: &str, found: Digest, expected: Option<Digest>) -> ArtifactError {
    let expected = expected.map(|digest| format!("sha256:{digest}")).unwrap_or_default();
    RegistryError::Digest { subject: subject.into(), found: found.to_string(), expected }.into()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A registry that answers each request with what `answer` writes, given the path.
    fn registry(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> Reference {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                answer(head.split(' ').nth(1).unwrap_or_default(), &mut stream);
            }
        });
        format!("{address}/guest:1").parse().unwrap()
    }

    /// A guest of one file that is said to have this size.
    fn manifest(size: u64) -> String {
        let blob = |kind: &str, digest: Digest, size: u64| {
            serde_json::json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size,
                "annotations": {"org.opencontainers.image.title": "vmlinux"}})
        };
        serde_json::json!({
            "schemaVersion": 2,
            "artifactType": super::super::guest::ARTIFACT_TYPE,
            "config": blob("application/vnd.oci.empty.v1+json", Digest::of(EMPTY), EMPTY.len() as u64),
            "layers": [blob(super::super::guest::FILE_TYPE, Digest::of(b"x"), size)],
        })
        .to_string()
    }

    async fn pulled(reference: &Reference, limits: Limits) -> String {
        let dir = tempfile::tempdir().unwrap();
        let error = pull(reference, dir.path(), false, limits).await.unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
        error.to_string()
    }

    #[tokio::test]
    async fn a_registry_that_sends_a_byte_now_and_then_is_given_up() {
        let limits = Limits { patience: Duration::from_millis(400), ..Limits::default() };
        let drip = |stream: &mut TcpStream| {
            for _ in 0..200 {
                std::thread::sleep(Duration::from_millis(50));
                if stream.write_all(b" ").is_err() {
                    return;
                }
            }
        };
        let slow_manifest = registry(move |_, stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").unwrap();
            drip(stream);
        });
        let text = pulled(&slow_manifest, limits).await;
        assert!(text.contains("no progress"), "{text}");
        let slow_blob = registry(move |path, stream| {
            if path.contains("/manifests/") {
                let body = manifest(1 << 20);
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
            } else {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n").unwrap();
                drip(stream);
            }
        });
        let text = pulled(&slow_blob, limits).await;
        assert!(text.contains("no progress"), "{text}");
    }

    #[tokio::test]
    async fn a_guest_that_is_too_large_is_refused_before_it_is_fetched() {
        for size in [2 << 20, u64::MAX >> 1] {
            let reference = registry(move |path, stream| {
                assert!(path.contains("/manifests/"), "{path} was asked for");
                let body = manifest(size);
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
            });
            let text = pulled(&reference, Limits { bytes: 1 << 20, ..Limits::default() }).await;
            assert!(text.contains(&size.to_string()) && text.contains("--max-size"), "{text}");
        }
    }
}
