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

use serde::Serialize;

use super::guest::{EMPTY, Guest};
use super::registry::Repository;
use super::{ArtifactError, Reference};
use crate::digest::Digest;
use crate::layout::Layout;

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
        return Err(ArtifactError::Reference { text: reference.to_string(), problem });
    };
    let (layout, to) = (layout.clone(), reference.clone());
    on_thread(reference, move || {
        let guest = Guest::pack(&layout)?;
        if to.digest().is_some_and(|digest| digest != guest.digest()) {
            return Err(mismatch(&to.to_string(), guest.digest(), to.digest()));
        }
        let mut repository = Repository::new(&to, plain_http);
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

/// Fetches the guest that `reference` names into `dir`, and says what it is.
///
/// # Errors
/// When the registry cannot be reached or refuses, or when anything is not what its digest says; then the files in
/// `dir` are as they were.
pub async fn pull(reference: &Reference, dir: &Path, plain_http: bool) -> Result<Guest, ArtifactError> {
    fs::create_dir_all(dir).map_err(ArtifactError::io("create", dir))?;
    // Here and not on the thread: it goes when this future is dropped.
    let staging = tempfile::Builder::new()
        .prefix(".pull-")
        .tempdir_in(dir)
        .map_err(ArtifactError::io("create a directory in", dir))?;
    let (from, into) = (reference.clone(), staging.path().to_path_buf());
    let guest = on_thread(reference, move || {
        let mut repository = Repository::new(&from, plain_http);
        let guest = fetch_manifest(&mut repository, &from)?;
        for file in guest.files() {
            let path = into.join(&file.title);
            let url = repository.blob_url(file.digest);
            repository.download(file.digest, file.size, &path)?;
            let (found, size) = Digest::of_file(&path).map_err(ArtifactError::io("read", &path))?;
            if size != file.size {
                return Err(ArtifactError::Size { subject: url, expected: file.size });
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
    }
    Ok(guest)
}

fn fetch_manifest(repository: &mut Repository, from: &Reference) -> Result<Guest, ArtifactError> {
    let version = match (from.digest(), from.tag()) {
        (Some(digest), _) => format!("sha256:{digest}"),
        (None, tag) => tag.unwrap_or_default().to_string(),
    };
    let manifest = repository.manifest(&version)?;
    let (url, found) = (repository.manifest_url(&version), Digest::of(&manifest));
    if from.digest().is_some_and(|digest| digest != found) {
        return Err(mismatch(&url, found, from.digest()));
    }
    Guest::parse(manifest, &url)
}

fn mismatch(subject: &str, found: Digest, expected: Option<Digest>) -> ArtifactError {
    let expected = expected.map(|digest| format!("sha256:{digest}")).unwrap_or_default();
    ArtifactError::Digest { subject: subject.into(), found: found.to_string(), expected }
}

/// Runs blocking `work` on a thread that nobody waits for at the end: a program that is told to stop stops at once.
async fn on_thread<T: Send + 'static>(
    reference: &Reference,
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || drop(done.send(work())));
    result.await.unwrap_or_else(|_| Err(ArtifactError::Lost(reference.to_string())))
}
