//! Where images come from: OCI layouts, archives of them and of `docker save`, skopeo's `dir:`, runtime bundles, and root file
//! systems as directories and as tar archives.
//!
//! Promises that every blob read is checked against its digest before anything made of it is used. Must never
//! trust a file's name or media type for what is in it: compression is told by the first bytes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fs_image::Tree;

use super::archive::{Archive, decompress};
use super::blobs::{Blobs, Hashing, mismatch};
use super::document::{Configuration, Descriptor, Index, Manifest, SavedImage, parse};
use super::name::{Choice, fit, locate};
use super::platform::listed as platforms_of;
use super::select::{check, select};
use super::spool::Spool;
use super::{Ceiling, ImageConfig, ImageError, bundle, directory, layer};
use store::arch::Arch;
use store::cache::Cache;
use store::digest::Digest;
use store::text;

/// What a reference led to.
pub(super) enum Opened {
    Image(Box<Resolved>),
    /// A root file system, and how it is run, as far as that is known.
    Directory(PathBuf, ImageConfig),
    /// A root file system as a tar archive.
    RootArchive(PathBuf, Archive),
}

impl Opened {
    /// The architecture of its programs, where it says that.
    pub(super) fn arch(&self) -> Option<Arch> {
        match self {
            Self::Image(image) => image.configuration.platform.arch(),
            Self::Directory(..) | Self::RootArchive(..) => None,
        }
    }

    /// What identifies it: the same key has the same content.
    pub(super) fn key(&self) -> Result<Digest, ImageError> {
        match self {
            Self::Image(image) => Ok(image.key),
            Self::Directory(path, config) => {
                let files = directory::key(path)?;
                if *config == ImageConfig::default() {
                    return Ok(files);
                }
                let config = serde_json::to_vec(config).unwrap_or_default();
                Ok(Digest::of_parts([("bundle", files.to_string().as_bytes()), ("config", &config)]))
            }
            Self::RootArchive(path, _) => {
                // As for a directory: what changes whenever the file does, without reading it.
                let file = fs::metadata(path).map_err(|error| ImageError::io("read", path, error))?;
                let numbers = [file.dev(), file.ino(), file.size()].map(u64::to_le_bytes);
                let times =
                    [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()].map(i64::to_le_bytes);
                let name = path.as_os_str().as_encoded_bytes();
                Ok(Digest::of_parts([
                    ("archive", name),
                    ("file", numbers.as_flattened()),
                    ("times", times.as_flattened()),
                ]))
            }
        }
    }

    /// Fills an empty tree, and answers how it is run.
    pub(super) fn fill(&self, tree: &mut Tree, spool: &mut Spool) -> Result<ImageConfig, ImageError> {
        match self {
            Self::Image(image) => {
                image.apply_layers(tree, spool)?;
                let config = ImageConfig::of(&image.configuration);
                config.make_volumes(tree).map_err(|problem| ImageError::source(&image.path, problem))?;
                Ok(config)
            }
            Self::Directory(path, config) => {
                directory::fill(path, tree, spool)?;
                Ok(config.clone())
            }
            Self::RootArchive(path, archive) => {
                let content = archive.whole().map_err(|error| ImageError::io("read", path, error))?;
                layer::apply(tree, spool, content).map_err(|error| ImageError::Layer {
                    path: path.clone(),
                    layer: "of the whole archive".to_owned(),
                    source: Box::new(error),
                })?;
                Ok(ImageConfig::default())
            }
        }
    }
}

/// An image whose documents are read and verified.
pub(super) struct Resolved {
    path: PathBuf,
    blobs: Blobs,
    key: Digest,
    configuration: Configuration,
    layers: Vec<LayerRef>,
}

struct LayerRef {
    /// Name for `Blobs::open`.
    name: String,
    /// Digest of the stored bytes, where the image gives one.
    stored: Option<String>,
}

/// What of all that is at a path is meant.
struct Wish {
    choice: Option<Choice>,
    /// For which architecture; any that guests can have, the host's before others, where this is none.
    arch: Option<Arch>,
}

/// Opens what `reference` names, for an architecture, or for any that guests can have.
pub(super) fn open(
    reference: &str,
    arch: Option<Arch>,
    cache: &Cache,
    ceiling: Ceiling,
) -> Result<Opened, ImageError> {
    let (path, choice) = locate(reference)?;
    let wish = Wish { choice, arch };
    let metadata = fs::metadata(&path).map_err(|error| ImageError::io("read", &path, error))?;
    if metadata.is_dir() { open_directory(path, wish) } else { open_archive(path, wish, cache, ceiling) }
}

fn open_directory(path: PathBuf, wish: Wish) -> Result<Opened, ImageError> {
    let has = |name: &str| path.join(name).is_file();
    if has("index.json") && (has("oci-layout") || path.join("blobs").is_dir()) {
        return layout(path.clone(), Blobs::Layout(path), wish);
    }
    if has("manifest.json") && has("version") {
        return flat(path, wish);
    }
    if has("manifest.json")
        && let Ok(images) = saved_images(&path, &Blobs::Layout(path.clone()))
    {
        return docker(path.clone(), Blobs::Layout(path), images, &wish);
    }
    if let Some(choice) = wish.choice {
        return Err(ImageError::source(
            &path,
            format!("has no image {:?}: it holds no images", choice.to_string()),
        ));
    }
    if let Some((rootfs, config)) = bundle::open(&path)? {
        return Ok(Opened::Directory(rootfs, config));
    }
    Ok(Opened::Directory(path, ImageConfig::default()))
}

fn open_archive(path: PathBuf, wish: Wish, cache: &Cache, ceiling: Ceiling) -> Result<Opened, ImageError> {
    let archive = Archive::open(&path, cache, ceiling)?;
    if archive.has("index.json") && (archive.has("oci-layout") || !archive.has("manifest.json")) {
        return layout(path, Blobs::Archive(archive), wish);
    }
    if archive.has("manifest.json") {
        let blobs = Blobs::Archive(archive);
        let images = saved_images(&path, &blobs)?;
        return docker(path, blobs, images, &wish);
    }
    if archive.has("repositories") {
        return Err(ImageError::source(
            &path,
            "is an archive of docker before version 1.10, without manifest.json; load and save it with a later one",
        ));
    }
    if archive.names().any(|name| name.matches('/').count() == 1 && name.ends_with("/Chart.yaml")) {
        return Err(ImageError::source(&path, "is no image but a Helm chart"));
    }
    if archive.names().next().is_none() {
        return Err(ImageError::source(
            &path,
            "is neither an image nor a root file system: there are no files in it",
        ));
    }
    if let Some(directory) = of_a_directory(&archive) {
        return Err(ImageError::source(
            &path,
            format!(
                "is an archive of the directory {directory:?} with an image in it; unpack it and give the directory, or archive \
                 what is in the directory"
            ),
        ));
    }
    match wish.choice {
        None => Ok(Opened::RootArchive(path, archive)),
        Some(choice) => Err(ImageError::source(
            &path,
            format!(
                "has no image {:?}: neither index.json nor manifest.json is in this archive, so it is taken for a root \
                 file system",
                choice.to_string()
            ),
        )),
    }
}

/// The one directory that all members of an archive are in, where it holds an image as tools save it.
fn of_a_directory(archive: &Archive) -> Option<&str> {
    let (directory, _) = archive.names().next()?.split_once('/')?;
    let within = |name: &str| archive.has(&format!("{directory}/{name}"));
    let is_image =
        within("oci-layout") || within("manifest.json") && (within("repositories") || within("version"));
    let is_only = || archive.names().all(|name| name.split('/').next() == Some(directory));
    (is_image && is_only()).then_some(directory)
}

/// An OCI layout.
fn layout(path: PathBuf, blobs: Blobs, wish: Wish) -> Result<Opened, ImageError> {
    let index: Index = parse(&path, "index.json", &blobs.document(&path, "index.json")?)?;
    let chosen = select(&path, &blobs, index, wish.choice.as_ref(), wish.arch)?;
    let manifest: Manifest = blobs.verified(&path, &chosen)?;
    resolve(path, blobs, &manifest, wish.arch)
}

/// A directory as skopeo's transport `dir:` and `podman save --format docker-dir` write it: a manifest, and blobs beside it.
fn flat(path: PathBuf, wish: Wish) -> Result<Opened, ImageError> {
    let blobs = Blobs::Flat(path.clone());
    let document = blobs.document(&path, "manifest.json")?;
    let manifest: Manifest = parse(&path, "manifest.json", &document)?;
    if let Some(manifests) = manifest.manifests {
        let chosen = select(&path, &blobs, Index { manifests }, wish.choice.as_ref(), wish.arch)?;
        let manifest: Manifest = blobs.verified(&path, &chosen)?;
        return resolve(path, blobs, &manifest, wish.arch);
    }
    // It has no name; a digest can be asked for.
    let digest = format!("sha256:{}", Digest::of(&document));
    match wish.choice {
        Some(choice) if choice != Choice::Digest(digest.clone()) => Err(ImageError::source(
            &path,
            format!("holds no image {:?}; it has one without a name, @{digest}", choice.to_string()),
        )),
        _ => resolve(path, blobs, &manifest, wish.arch),
    }
}

/// Reads what a manifest names.
fn resolve(
    path: PathBuf,
    blobs: Blobs,
    manifest: &Manifest,
    arch: Option<Arch>,
) -> Result<Opened, ImageError> {
    let config = check(&path, manifest)?;
    let configuration: Configuration = blobs.verified(&path, config)?;
    let layers =
        manifest.layers.iter().map(|layer| stored_layer(&path, &blobs, layer)).collect::<Result<_, _>>()?;
    let key = Digest::of(config.digest.as_bytes());
    runs_in_a_guest(&path, &configuration, arch)?;
    let _number =
        ImageConfig::of(&configuration).stop_signal().map_err(|error| ImageError::source(&path, error))?;
    Ok(Opened::Image(Box::new(Resolved { path, blobs, key, configuration, layers })))
}

fn stored_layer(path: &Path, blobs: &Blobs, layer: &Descriptor) -> Result<LayerRef, ImageError> {
    let name = blobs.name(path, &layer.digest)?;
    if let (false, Some(url)) = (blobs.has(&name), layer.urls.first()) {
        return Err(ImageError::source(
            path,
            format!("a layer is not in the image but at {url:?}; put it there as {name}"),
        ));
    }
    Ok(LayerRef { name, stored: Some(layer.digest.clone()) })
}

fn saved_images(path: &Path, blobs: &Blobs) -> Result<Vec<SavedImage>, ImageError> {
    parse(path, "manifest.json", &blobs.document(path, "manifest.json")?)
}

/// An archive of `docker save`.
fn docker(path: PathBuf, blobs: Blobs, images: Vec<SavedImage>, wish: &Wish) -> Result<Opened, ImageError> {
    let image = one_of(&path, images, wish.choice.as_ref())?;
    let document = blobs.document(&path, &image.config)?;
    let found = Digest::of(&document);
    // The configuration is named after its digest: `<hex>.json` or `blobs/sha256/<hex>`.
    let named = Path::new(&image.config).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if let Ok(expected) = named.parse::<Digest>()
        && expected != found
    {
        return Err(mismatch(&path, "the configuration", &expected.to_string(), &found.to_string()));
    }
    let configuration: Configuration = parse(&path, &image.config, &document)?;
    let key = Digest::of(format!("sha256:{found}").as_bytes());
    let layers = image.layers.into_iter().map(|name| LayerRef { name, stored: None }).collect();
    runs_in_a_guest(&path, &configuration, wish.arch)?;
    let _number =
        ImageConfig::of(&configuration).stop_signal().map_err(|error| ImageError::source(&path, error))?;
    Ok(Opened::Image(Box::new(Resolved { path, blobs, key, configuration, layers })))
}

/// The image that is meant. Entries of one configuration are one image.
fn one_of(path: &Path, images: Vec<SavedImage>, choice: Option<&Choice>) -> Result<SavedImage, ImageError> {
    let fits = |image: &SavedImage| match choice {
        None => Some(0),
        Some(Choice::Digest(digest)) => {
            let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
            (!hex.is_empty() && image.config.contains(hex)).then_some(0)
        }
        Some(Choice::Name(name)) => image.repo_tags.iter().filter_map(|known| fit(name, known)).max(),
    };
    let best = images.iter().filter_map(fits).max();
    let mut found: Vec<SavedImage> = Vec::new();
    for image in images.iter().filter(|image| fits(image).is_some() && fits(image) == best) {
        if found.iter().all(|known| known.config != image.config) {
            found.push(image.clone());
        }
    }
    let listed = |images: &[SavedImage]| {
        let name = |image: &SavedImage| match image.repo_tags.as_slice() {
            [] => format!("@{}", image.config.trim_start_matches("blobs/sha256/").trim_end_matches(".json")),
            names => names.join(", "),
        };
        let names: Vec<String> =
            images.iter().map(|image| text::printable(&name(image)).into_owned()).collect();
        names.join(", ")
    };
    match (found.pop(), found.is_empty()) {
        (Some(image), true) => Ok(image),
        (None, _) if images.is_empty() => {
            Err(ImageError::source(path, "is empty: its manifest.json names no image"))
        }
        (None, _) => {
            let choice = choice.map(Choice::to_string).unwrap_or_default();
            Err(ImageError::source(path, format!("holds no image {choice:?}; it has {}", listed(&images))))
        }
        (Some(image), false) => {
            found.push(image);
            let listed = listed(&found);
            Err(ImageError::source(
                path,
                format!("holds several images; append :NAME or @DIGEST, one of {listed}"),
            ))
        }
    }
}

/// Refuses an image whose programs the guest cannot run.
fn runs_in_a_guest(
    path: &Path,
    configuration: &Configuration,
    wanted: Option<Arch>,
) -> Result<(), ImageError> {
    let platform = &configuration.platform;
    if platform.is_blank() || Arch::preferred(wanted).into_iter().any(|arch| platform.is_for(arch)) {
        return Ok(());
    }
    let found = platform.to_string();
    let found = text::printable(&found);
    let problem = match (platform.arch(), wanted) {
        (Some(_), Some(wanted)) => {
            format!("is an image for {found}, and not for {}, which was asked for", wanted.platform())
        }
        _ => {
            format!(
                "is an image for {found}, which no guest can run; take the one for {}",
                platforms_of(wanted)
            )
        }
    };
    Err(ImageError::source(path, problem))
}

impl Resolved {
    /// Applies all layers, the lowest first, checking stored and unpacked digests.
    fn apply_layers(&self, tree: &mut Tree, spool: &mut Spool) -> Result<(), ImageError> {
        let contents = &self.configuration.rootfs.diff_ids;
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
