//! Where images come from: OCI layout directories, archives of them, `docker save` archives, plain directories.
//!
//! Promises that every blob read is checked against its digest before anything made of it is used. Must never
//! trust a file's name or media type for what is in it: compression is told by the first bytes.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fs_image::Tree;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::archive::{Archive, decompress};
use super::spool::Spool;
use super::{Ceiling, ImageConfig, ImageError, layer};
use crate::cache::Cache;
use crate::digest::Digest;
use crate::{plain, text};

/// JSON documents larger than this are not an image's.
const MAX_DOCUMENT: u64 = 8 << 20;
/// Indexes inside indexes.
const MAX_DEPTH: u32 = 4;
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What a reference led to.
pub(super) enum Opened {
    Image(Box<Resolved>),
    Directory(PathBuf),
}

/// An image whose documents are read and verified.
pub(super) struct Resolved {
    path: PathBuf,
    blobs: Blobs,
    key: Digest,
    configuration: ImageConfiguration,
    layers: Vec<LayerRef>,
}

struct LayerRef {
    /// Name for `Blobs::open`.
    name: String,
    /// Digest of the stored bytes, where the image gives one.
    stored: Option<String>,
}

/// Opens what `reference` names.
pub(super) fn open(reference: &str, cache: &Cache, ceiling: Ceiling) -> Result<Opened, ImageError> {
    let (path, tag) = locate(reference)?;
    let metadata = fs::metadata(&path).map_err(|error| ImageError::io("read", &path, error))?;
    if metadata.is_dir() {
        if path.join("index.json").is_file() && path.join("blobs").is_dir() {
            return resolve_layout(path.clone(), Blobs::Layout(path), tag).map(Box::new).map(Opened::Image);
        }
        if let Some(tag) = tag {
            return Err(ImageError::source(&path, format!("has no image {tag:?}: it is not an OCI layout")));
        }
        return Ok(Opened::Directory(path));
    }
    let archive = Archive::open(&path, cache, ceiling)?;
    let has = |name: &str| archive.has(name);
    if has("index.json") {
        resolve_layout(path, Blobs::Archive(archive), tag).map(Box::new).map(Opened::Image)
    } else if has("manifest.json") {
        resolve_docker(path, archive, tag).map(Box::new).map(Opened::Image)
    } else {
        Err(ImageError::source(
            &path,
            "neither index.json nor manifest.json is in this archive: not a saved image",
        ))
    }
}

/// Splits off a tag, unless a file has the whole name.
fn locate(reference: &str) -> Result<(PathBuf, Option<String>), ImageError> {
    let whole = Path::new(reference);
    if let Ok(path) = whole.canonicalize() {
        return Ok((path, None));
    }
    if let Some((path, tag)) = reference.rsplit_once(':')
        && let Ok(path) = Path::new(path).canonicalize()
    {
        return Ok((path, Some(tag.to_owned())));
    }
    Err(ImageError::source(
        whole,
        "no such file or directory; an image is an OCI layout directory, an archive made by `docker save` or \
         `skopeo copy`, or a directory with a root file system (registries are not asked)",
    ))
}

fn resolve_layout(path: PathBuf, blobs: Blobs, tag: Option<String>) -> Result<Resolved, ImageError> {
    let index: ImageIndex = parse(&path, "index.json", &blobs.document(&path, "index.json")?)?;
    let descriptor = select(&path, &blobs, &index, tag.as_deref(), 0)?;
    let manifest: ImageManifest = verified_document(&path, &blobs, &descriptor)?;
    let configuration: ImageConfiguration = verified_document(&path, &blobs, manifest.config())?;
    let layers = manifest
        .layers()
        .iter()
        .map(|layer| {
            let digest = layer.digest().to_string();
            Ok(LayerRef { name: blob_name(&path, &digest)?, stored: Some(digest) })
        })
        .collect::<Result<_, ImageError>>()?;
    let key = Digest::of(manifest.config().digest().to_string().as_bytes());
    Ok(Resolved { path, blobs, key, configuration, layers })
}

/// An entry of a docker archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn resolve_docker(path: PathBuf, archive: Archive, tag: Option<String>) -> Result<Resolved, ImageError> {
    let blobs = Blobs::Archive(archive);
    let mut images: Vec<SavedImage> =
        parse(&path, "manifest.json", &blobs.document(&path, "manifest.json")?)?;
    let tags = |image: &SavedImage| image.repo_tags.clone().unwrap_or_default();
    if let Some(tag) = &tag {
        images.retain(|image| {
            tags(image)
                .iter()
                .any(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, last)| last == tag))
        });
    }
    let image = match (images.pop(), images.is_empty()) {
        (Some(image), true) => image,
        (None, _) => {
            return Err(ImageError::source(&path, format!("holds no image {:?}", tag.unwrap_or_default())));
        }
        (Some(image), false) => {
            images.push(image);
            let names = listed(images.iter().flat_map(tags));
            return Err(ImageError::source(&path, format!("holds several images; name one of {names}")));
        }
    };
    let document = blobs.document(&path, &image.config)?;
    let found = Digest::of(&document);
    // The configuration is named after its digest: `<hex>.json` or `blobs/sha256/<hex>`.
    let named = Path::new(&image.config).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if let Ok(expected) = named.parse::<Digest>()
        && expected != found
    {
        return Err(mismatch(&path, "the configuration", &expected.to_string(), &found.to_string()));
    }
    let configuration = parse(&path, &image.config, &document)?;
    let key = Digest::of(format!("sha256:{found}").as_bytes());
    let layers = image.layers.into_iter().map(|name| LayerRef { name, stored: None }).collect();
    Ok(Resolved { path, blobs, key, configuration, layers })
}

/// Finds the manifest for this machine's architecture, with the given tag.
fn select(
    path: &Path,
    blobs: &Blobs,
    index: &ImageIndex,
    tag: Option<&str>,
    depth: u32,
) -> Result<Descriptor, ImageError> {
    let name = |descriptor: &Descriptor| {
        descriptor.annotations().as_ref().and_then(|all| all.get(REF_NAME).cloned())
    };
    let mut found: Vec<&Descriptor> = index.manifests().iter().collect();
    if let Some(tag) = tag {
        found.retain(|descriptor| name(descriptor).as_deref() == Some(tag));
    }
    if found.len() > 1 {
        found.retain(|descriptor| descriptor.platform().as_ref().is_none_or(is_ours));
    }
    match found.as_slice() {
        [one] if is_index(one) => {
            if depth == MAX_DEPTH {
                return Err(ImageError::source(path, "the index leads to indexes without end"));
            }
            let inner: ImageIndex = verified_document(path, blobs, one)?;
            select(path, blobs, &inner, None, depth + 1)
        }
        [one] => Ok((*one).clone()),
        [] => Err(ImageError::source(
            path,
            match tag {
                Some(tag) => format!(
                    "holds no image {tag:?}; it has {}",
                    listed(index.manifests().iter().filter_map(name))
                ),
                None => format!("holds no image for linux/{}", architecture()),
            },
        )),
        several => {
            let names = listed(several.iter().filter_map(|descriptor| name(descriptor)));
            Err(ImageError::source(path, format!("holds several images; append :TAG, one of {names}")))
        }
    }
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.map(|name| text::printable(&name).into_owned()).collect();
    if names.is_empty() { "none with a name".to_owned() } else { names.join(", ") }
}

fn is_index(descriptor: &Descriptor) -> bool {
    match descriptor.media_type() {
        MediaType::ImageIndex => true,
        MediaType::Other(name) => name == "application/vnd.docker.distribution.manifest.list.v2+json",
        _ => false,
    }
}

fn is_ours(platform: &oci_spec::image::Platform) -> bool {
    platform.os().to_string() == "linux" && platform.architecture().to_string() == architecture()
}

/// The OCI name of the architecture we run on.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Where a layout keeps a blob.
fn blob_name(path: &Path, digest: &str) -> Result<String, ImageError> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| hex.parse::<Digest>().is_ok());
    hex.map(|hex| format!("blobs/sha256/{hex}"))
        .ok_or_else(|| ImageError::source(path, format!("digest {digest:?}: only sha256 is supported")))
}

fn verified_document<T: serde::de::DeserializeOwned>(
    path: &Path,
    blobs: &Blobs,
    descriptor: &Descriptor,
) -> Result<T, ImageError> {
    let digest = descriptor.digest().to_string();
    let name = blob_name(path, &digest)?;
    let document = blobs.document(path, &name)?;
    let found = format!("sha256:{}", Digest::of(&document));
    if found != digest {
        return Err(mismatch(path, &name, &digest, &found));
    }
    parse(path, &name, &document)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, name: &str, document: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(document).map_err(|source| ImageError::Json { path: path.join(name), source })
}

fn mismatch(path: &Path, what: &str, expected: &str, found: &str) -> ImageError {
    ImageError::Digest {
        path: path.to_path_buf(),
        what: what.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

impl Resolved {
    /// What identifies the image: the digest of its configuration, which names every layer's content.
    pub(super) fn key(&self) -> Digest {
        self.key
    }

    pub(super) fn config(&self) -> ImageConfig {
        ImageConfig::from_oci(&self.configuration)
    }

    /// Applies all layers, the lowest first, checking stored and unpacked digests.
    pub(super) fn apply_layers(&self, tree: &mut Tree, spool: &mut Spool) -> Result<(), ImageError> {
        let contents = self.configuration.rootfs().diff_ids();
        if contents.len() != self.layers.len() {
            return Err(ImageError::source(
                &self.path,
                format!("has {} layers, but its configuration names {}", self.layers.len(), contents.len()),
            ));
        }
        for (layer, content) in self.layers.iter().zip(contents) {
            let failed = |source: Box<dyn std::error::Error + Send + Sync>| ImageError::Layer {
                path: self.path.clone(),
                layer: text::printable(&layer.name).into_owned(),
                source,
            };
            let mut stored = Hashing::new(self.blobs.open(&self.path, &layer.name)?);
            let unpacked = {
                let mut unpacked =
                    Hashing::new(decompress(&mut stored).map_err(|error| failed(Box::new(error)))?);
                layer::apply(tree, spool, &mut unpacked).map_err(|error| failed(Box::new(error)))?;
                unpacked.finish().map_err(|error| failed(Box::new(error)))?
            };
            let stored = stored.finish().map_err(|error| failed(Box::new(error)))?;
            if let Some(expected) = layer.stored.as_ref().filter(|expected| **expected != stored) {
                return Err(mismatch(&self.path, &layer.name, expected, &stored));
            }
            if *content != unpacked {
                return Err(mismatch(
                    &self.path,
                    &format!("the content of {}", layer.name),
                    content,
                    &unpacked,
                ));
            }
        }
        Ok(())
    }
}

/// Computes a digest of what passes through.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// Reads what is left (padding after an archive's end) and answers the digest of all.
    fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        let hex: String = self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("sha256:{hex}"))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// The files of an image.
enum Blobs {
    Layout(PathBuf),
    Archive(Archive),
}

impl Blobs {
    fn open(&self, path: &Path, name: &str) -> Result<Box<dyn Read>, ImageError> {
        match self {
            Self::Layout(dir) => {
                let file = dir.join(name);
                Ok(Box::new(plain::open(&file).map_err(|error| ImageError::io("open", file, error))?))
            }
            Self::Archive(archive) => match archive.member(name) {
                Some(member) => Ok(Box::new(member)),
                None => Err(ImageError::source(path, format!("{name:?} is missing in this archive"))),
            },
        }
    }

    fn document(&self, path: &Path, name: &str) -> Result<Vec<u8>, ImageError> {
        let mut document = Vec::new();
        let mut stream = self.open(path, name)?.take(MAX_DOCUMENT + 1);
        stream.read_to_end(&mut document).map_err(|error| ImageError::io("read", path.join(name), error))?;
        if document.len() as u64 > MAX_DOCUMENT {
            return Err(ImageError::source(path, format!("{name:?} is too large to be a document")));
        }
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sha256_names_become_paths() {
        let hex = "0".repeat(64);
        assert_eq!(
            blob_name(Path::new("i"), &format!("sha256:{hex}")).unwrap(),
            format!("blobs/sha256/{hex}")
        );
        for bad in ["sha256:../../etc/passwd", "sha512:00", "nothing"] {
            assert!(blob_name(Path::new("i"), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_image_says_what_an_image_is() {
        let cache = Cache::new(std::env::temp_dir());
        let Err(error) = open("/nonexistent/image:tag", &cache, Ceiling::default()) else { panic!("opened") };
        assert!(error.to_string().contains("OCI layout directory"), "{error}");
    }
}
