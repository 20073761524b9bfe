//! Fetches a container image into a [`Library`].
//!
//! ```text
//! manifest or index ─ digest? ─► the manifest for this machine ─ digest? ─► each blob that is not there yet, into
//!     blobs/partial ─ size, digest? ─► blobs/sha256 ─► the manifest ─► index.json
//! ```
//!
//! Promises that a blob that is there is not fetched again, that one that came halfway is continued by the next call, and
//! that the library names an image only when all of it is there and verified. Must never write outside the library.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use store::arch::Arch;
use store::digest::Digest;
use store::text;

use crate::error::RegistryError;
use crate::library::Library;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::repository::Repository;
use crate::watch::{Watch, on_thread};

/// What a registry may answer with.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// No image has more layers: overlay file systems and runtimes end far below.
const MAX_LAYERS: usize = 512;
/// How often a transfer that broke off is continued.
const TRIES: u32 = 4;

/// What a pull may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all blobs of an image together.
    pub bytes: u64,
    /// How long content may be on its way without progress.
    pub patience: Duration,
}

impl Default for Limits {
    /// 64 GiB, one minute.
    fn default() -> Self {
        Self { bytes: 64 << 30, patience: Duration::from_secs(60) }
    }
}

/// How far a pull has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Bytes that have come by now.
    pub bytes: u64,
}

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pulled {
    /// The name, complete.
    pub reference: String,
    /// The digest of the image's manifest, with the algorithm in front.
    pub digest: String,
    /// Bytes of all its blobs.
    pub bytes: u64,
    /// Bytes of those that had to be fetched.
    pub fetched: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    media_type: String,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    platform: Platform,
}

/// A blob to have.
struct Blob {
    digest: Digest,
    size: u64,
}

/// Fetches the image that `reference` names into `library`: the one for the architecture `wanted`, or else for any that guests
/// can have, the host's own before others. `tell` hears of progress.
///
/// # Errors
/// When the registry cannot be reached or refuses, makes no progress, has more than the limits allow or no image for that
/// architecture, or when anything is not what its digest says. What came whole until then stays, for the next call.
pub async fn pull(
    reference: &Reference,
    library: &Library,
    wanted: Option<Arch>,
    plain_http: bool,
    limits: Limits,
    mut tell: impl FnMut(Moved),
) -> Result<Pulled, RegistryError> {
    let watch = Watch::default();
    let (from, into, watched) = (reference.clone(), library.clone(), watch.clone());
    let work = on_thread(reference, limits.patience, watch.clone(), move || {
        let mut repository = Repository::new(&from, plain_http, watched);
        fetch(&mut repository, &from, &into, wanted, limits)
    });
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => return result,
            () = tokio::time::sleep(Duration::from_millis(200)) => tell(Moved { bytes: watch.moved() }),
        }
    }
}

fn fetch(
    repository: &mut Repository,
    from: &Reference,
    library: &Library,
    wanted: Option<Arch>,
    limits: Limits,
) -> Result<Pulled, RegistryError> {
    let no_image = |problem: String| RegistryError::NoImage { subject: from.to_string(), problem };
    let version = match (from.digest(), from.tag()) {
        (Some(digest), _) => format!("sha256:{digest}"),
        (None, tag) => tag.unwrap_or_default().to_owned(),
    };
    let mut bytes = repository.manifest(&version, ACCEPT)?;
    verify(&repository.manifest_url(&version), &bytes, from.digest())?;
    let mut document = parse(from, &bytes)?;
    if let Some(manifests) = document.manifests.take() {
        let chosen = choose(&manifests, wanted).ok_or_else(|| no_image(foreign(&manifests, wanted)))?;
        let digest = digest_of(&chosen.digest).ok_or_else(|| no_image(odd_digest(&chosen.digest)))?;
        let version = format!("sha256:{digest}");
        bytes = repository.manifest(&version, ACCEPT)?;
        verify(&repository.manifest_url(&version), &bytes, Some(digest))?;
        document = parse(from, &bytes)?;
    }
    let Some(config) = &document.config else {
        return Err(no_image(format!(
            "is no image but {:?}",
            text::printable(&document.media_type).into_owned()
        )));
    };
    if document.layers.len() > MAX_LAYERS {
        return Err(no_image(format!(
            "has {} layers; at most {MAX_LAYERS} are taken",
            document.layers.len()
        )));
    }
    let blobs = [config].into_iter().chain(&document.layers).map(|one| {
        let digest = digest_of(&one.digest).ok_or_else(|| no_image(odd_digest(&one.digest)))?;
        Ok(Blob { digest, size: one.size })
    });
    let blobs: Vec<Blob> = blobs.collect::<Result<_, RegistryError>>()?;
    let size = blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
    if size > limits.bytes {
        return Err(RegistryError::TooLarge { subject: from.to_string(), size, most: limits.bytes });
    }
    let _held = library.hold()?;
    let mut fetched = 0;
    let mut arch = None;
    // The first is the configuration, which says what it is for: known before the layers are fetched.
    for (number, blob) in blobs.iter().enumerate() {
        if !library.has(blob.digest, blob.size) {
            fetch_blob(repository, library, blob)?;
            fetched += blob.size;
        }
        if number == 0 {
            let platform = library.platform(blob.digest);
            arch = platform.arch();
            if let (Some(wanted), Some(found)) = (wanted, arch)
                && wanted != found
            {
                return Err(no_image(format!(
                    "has no image for linux/{}; it is for {platform}",
                    wanted.debian()
                )));
            }
        }
    }
    let manifest = Digest::of(&bytes);
    library.put(manifest, &bytes)?;
    library.name(from, manifest, &bytes, size, arch)?;
    Ok(Pulled { reference: from.to_string(), digest: format!("sha256:{manifest}"), bytes: size, fetched })
}

/// Fetches a blob to the file where it is continued from, and puts it into its place when it is whole.
fn fetch_blob(repository: &mut Repository, library: &Library, blob: &Blob) -> Result<(), RegistryError> {
    let partial = library.partial(blob.digest)?;
    let url = repository.blob_url(blob.digest);
    let mut tries = 0;
    loop {
        tries += 1;
        match repository.download(blob.digest, blob.size, &partial) {
            Ok(()) => break,
            // Broken off, not refused: what has come is kept, and the rest asked for.
            Err(RegistryError::Fetch { .. }) if tries < TRIES => {}
            Err(error) => return Err(error),
        }
    }
    let (found, size) = Digest::of_file(&partial).map_err(RegistryError::io("read", &partial))?;
    if size == blob.size && found == blob.digest {
        return library.take(&partial, blob.digest);
    }
    // The next call begins anew.
    fs::remove_file(&partial).map_err(RegistryError::io("remove", &partial))?;
    if size != blob.size {
        return Err(RegistryError::Size { subject: url, expected: blob.size });
    }
    let (found, expected) = (found.to_string(), format!("sha256:{}", blob.digest));
    Err(RegistryError::Digest { subject: url, found, expected })
}

fn parse(from: &Reference, bytes: &[u8]) -> Result<Document, RegistryError> {
    serde_json::from_slice(bytes).map_err(RegistryError::json(format!("the manifest of {from}")))
}

fn verify(url: &str, bytes: &[u8], expected: Option<Digest>) -> Result<(), RegistryError> {
    let found = Digest::of(bytes);
    match expected {
        Some(digest) if digest != found => Err(RegistryError::Digest {
            subject: url.to_owned(),
            found: found.to_string(),
            expected: format!("sha256:{digest}"),
        }),
        _ => Ok(()),
    }
}

fn digest_of(text: &str) -> Option<Digest> {
    text.strip_prefix("sha256:")?.parse().ok()
}

fn odd_digest(text: &str) -> String {
    format!("names something by {:?}; only sha256 digests are known", text::printable(text))
}

/// The manifest for the guest; of several, the one that asks the least of the processor.
fn choose(manifests: &[Descriptor], wanted: Option<Arch>) -> Option<&Descriptor> {
    let of = |arch| manifests.iter().filter(move |one| one.platform.arch() == Some(arch));
    let arch = Arch::preferred(wanted).into_iter().find(|arch| of(*arch).next().is_some())?;
    of(arch).min_by_key(|one| match one.platform.variant.as_str() {
        "v1" | "v8" => String::new(),
        variant => variant.to_owned(),
    })
}

fn foreign(manifests: &[Descriptor], wanted: Option<Arch>) -> String {
    let known = manifests.iter().map(|one| &one.platform).filter(|platform| platform.os != "unknown");
    let mut others: Vec<String> = known.take(20).map(Platform::to_string).collect();
    others.dedup();
    let wanted: Vec<String> = Arch::preferred(wanted).into_iter().map(|arch| arch.platform()).collect();
    format!("has no image for {}; it has {}", wanted.join(" or "), others.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(os: &str, architecture: &str, variant: &str) -> Descriptor {
        let platform = Platform { os: os.into(), architecture: architecture.into(), variant: variant.into() };
        Descriptor { digest: format!("{os}-{architecture}-{variant}"), platform, ..Descriptor::default() }
    }

    #[test]
    fn the_manifest_for_the_guest_is_chosen() {
        let [here, other] =
            Arch::preferred(None).try_into().map(|both: [Arch; 2]| both.map(Arch::debian)).unwrap();
        let index = [
            descriptor("unknown", "unknown", ""),
            descriptor("windows", here, ""),
            descriptor("linux", "s390x", ""),
            descriptor("linux", here, "v3"),
            descriptor("linux", here, ""),
        ];
        assert_eq!(choose(&index, None).unwrap().digest, format!("linux-{here}-"));
        assert_eq!(choose(&index[..4], None).unwrap().digest, format!("linux-{here}-v3"));
        assert!(choose(&index[..3], None).is_none());
        let mut both = index.clone();
        both[2] = descriptor("linux", other, "");
        assert_eq!(
            choose(&both, None).unwrap().digest,
            format!("linux-{here}-"),
            "the host's own comes first"
        );
        assert_eq!(choose(&both[..3], None).unwrap().digest, format!("linux-{other}-"));
        let arch = both[2].platform.arch();
        assert_eq!(choose(&both, arch).unwrap().digest, format!("linux-{other}-"));
        assert!(choose(&index, arch).is_none());
        let text = foreign(&index[..3], None);
        assert!(
            text.contains("linux/s390x") && text.contains("windows/") && !text.contains("unknown"),
            "{text}"
        );
    }
}
