//! Which of the images in an index is meant, and whether it is an image at all.

use std::path::Path;

use super::ImageError;
use super::blobs::Blobs;
use super::document::{Descriptor, Index, Manifest, Platform};
use super::name::{Choice, fit};
use super::platform::listed as platforms_of;
use store::arch::Arch;
use store::text;

/// Indexes inside indexes.
const MAX_DEPTH: u32 = 4;
/// Names of an image: as the OCI specification has them, and as containerd and docker have them.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
/// What BuildKit says of entries that are about other entries.
const ABOUT: &str = "vnd.docker.reference.type";

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const CONFIGURATIONS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// The layers that are tar archives, without what tells their compression.
const LAYERS: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];

impl Descriptor {
    fn names(&self) -> impl Iterator<Item = &str> {
        NAMES.iter().filter_map(|key| self.annotations.get(*key)).map(String::as_str)
    }

    fn is_index(&self) -> bool {
        INDEXES.contains(&self.media_type.as_str())
    }

    /// Whether it stands in an index for something that is about an image.
    fn is_about_another(&self) -> bool {
        self.annotations.contains_key(ABOUT)
            || self.platform.as_ref().is_some_and(|platform| platform.is_unknown())
    }
}

/// Finds the manifest that is meant: for the architecture that is wanted, or else for the host's before others.
pub(super) fn select(
    path: &Path,
    blobs: &Blobs,
    index: Index,
    choice: Option<&Choice>,
    wanted: Option<Arch>,
) -> Result<Descriptor, ImageError> {
    let mut index = index;
    let mut choice = choice;
    for depth in 0..=MAX_DEPTH {
        let found = candidates(&index, choice, wanted);
        let found = match found.as_slice() {
            [] => return Err(none(path, &index.manifests, choice, wanted)),
            [one] => one,
            // In an index of one image, the first of equals is taken; elsewhere they are different images.
            [first, ..] if depth > 0 => first,
            several => {
                let listed = listed(several);
                return Err(ImageError::source(
                    path,
                    format!("holds several images; append :NAME or @DIGEST, one of {listed}"),
                ));
            }
        };
        if !found.is_index() {
            return Ok(found.clone());
        }
        index = blobs.verified(path, found)?;
        choice = None;
    }
    Err(ImageError::source(path, "the index leads to indexes without end"))
}

/// The entries that are meant, each digest once: those of the best fitting name, and of these the best for the guest.
fn candidates(index: &Index, choice: Option<&Choice>, wanted: Option<Arch>) -> Vec<Descriptor> {
    let fits = |descriptor: &Descriptor| match choice {
        None => Some(0),
        Some(Choice::Digest(digest)) => (descriptor.digest == *digest).then_some(0),
        Some(Choice::Name(name)) => descriptor.names().filter_map(|known| fit(name, known)).max(),
    };
    // What is asked for by its digest is given, whatever it is.
    let is_exact = matches!(choice, Some(Choice::Digest(_)));
    let candidates = index.manifests.iter().filter(|one| is_exact || !one.is_about_another());
    let best = candidates.clone().filter_map(fits).max();
    let mut found: Vec<Descriptor> = Vec::new();
    for one in candidates.filter(|one| fits(one).is_some() && fits(one) == best) {
        if found.iter().all(|known| known.digest != one.digest) {
            found.push(one.clone());
        }
    }
    if found.len() > 1 {
        let is_for =
            |one: &Descriptor, arch| one.platform.as_ref().is_none_or(|platform| platform.is_for(arch));
        let arch =
            Arch::preferred(wanted).into_iter().find(|arch| found.iter().any(|one| is_for(one, *arch)));
        found.retain(|one| arch.is_some_and(|arch| is_for(one, arch)));
        let rank = |one: &Descriptor| one.platform.as_ref().map(Platform::rank).unwrap_or_default();
        if let Some(least) = found.iter().map(rank).min() {
            found.retain(|one| rank(one) == least);
        }
    }
    found
}

/// Why nothing was found.
fn none(path: &Path, all: &[Descriptor], choice: Option<&Choice>, wanted: Option<Arch>) -> ImageError {
    if all.is_empty() {
        return ImageError::source(path, "is empty: its index names no image");
    }
    if let Some(choice) = choice {
        let listed = listed(all);
        return ImageError::source(path, format!("holds no image {:?}; it has {listed}", choice.to_string()));
    }
    if all.iter().all(Descriptor::is_about_another) {
        return ImageError::source(path, "holds attestations alone, and not the image that they are about");
    }
    let platforms = all.iter().filter(|one| !one.is_about_another()).filter_map(|one| one.platform.as_ref());
    let mut platforms: Vec<String> =
        platforms.map(|platform| text::printable(&platform.to_string()).into_owned()).collect();
    platforms.dedup();
    let platforms =
        if platforms.is_empty() { String::new() } else { format!(", only for {}", platforms.join(", ")) };
    ImageError::source(path, format!("holds no image for {}{platforms}", platforms_of(wanted)))
}

/// The names of images; the digest for one that has none.
fn listed(all: &[Descriptor]) -> String {
    let name =
        |one: &Descriptor| one.names().next().map_or_else(|| format!("@{}", one.digest), str::to_owned);
    let mut names: Vec<String> = all.iter().map(|one| text::printable(&name(one)).into_owned()).collect();
    names.dedup();
    if names.is_empty() { "none with a name".to_owned() } else { names.join(", ") }
}

/// Refuses what is no image, by what it is; answers the descriptor of its configuration.
pub(super) fn check<'a>(path: &Path, manifest: &'a Manifest) -> Result<&'a Descriptor, ImageError> {
    let is_no_image = |what: &str| Err(ImageError::source(path, format!("is no image but {what}")));
    if manifest.schema_version == Some(1) || manifest.media_type.contains("distribution.manifest.v1+") {
        return is_no_image(
            "a manifest of schema 1, which docker wrote until 2016; pull it with a registry client that converts it",
        );
    }
    if manifest.manifests.is_some() && manifest.config.is_some() {
        return is_no_image("a document that is a manifest and an index at once");
    }
    if !manifest.media_type.is_empty() && !MANIFESTS.contains(&manifest.media_type.as_str()) {
        return is_no_image(&format!("{:?}", manifest.media_type));
    }
    let Some(config) = &manifest.config else {
        return is_no_image("something without a configuration");
    };
    let layer_types = || manifest.layers.iter().map(|layer| layer.media_type.as_str());
    let has_layer = |part: &str| layer_types().any(|media_type| media_type.contains(part));
    if has_layer("in-toto") {
        return is_no_image("an attestation about one");
    }
    if has_layer("cosign") || has_layer("simplesigning") {
        return is_no_image("a signature of one");
    }
    if config.media_type.contains("helm") || has_layer("helm.chart") {
        return is_no_image("a Helm chart");
    }
    if has_layer("+encrypted") {
        return Err(ImageError::source(
            path,
            "its layers are encrypted; decrypt it with skopeo or imgcrypt first",
        ));
    }
    if !config.media_type.is_empty() && !CONFIGURATIONS.contains(&config.media_type.as_str()) {
        let kind =
            if manifest.artifact_type.is_empty() { &config.media_type } else { &manifest.artifact_type };
        return is_no_image(&format!("an artifact of type {kind:?}"));
    }
    for media_type in layer_types().filter(|media_type| !media_type.is_empty()) {
        let plain = media_type.split_once('+').map_or(media_type, |(front, _)| front);
        let plain = plain.strip_suffix(".gzip").or_else(|| plain.strip_suffix(".zstd")).unwrap_or(plain);
        if !LAYERS.contains(&plain) {
            let problem = format!("has a layer of type {media_type:?}, which is not read");
            return Err(ImageError::source(path, problem));
        }
    }
    Ok(config)
}
