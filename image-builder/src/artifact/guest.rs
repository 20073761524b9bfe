//! The guest as an OCI artifact: a manifest with one layer per product, and the layout directory made of it.
//!
//! Promises the same bytes for the same products: sorted layers, no dates. Must never pack a file that is not what
//! `manifest.json` says.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::image::{
    Descriptor, ImageIndex, ImageIndexBuilder, ImageManifest, ImageManifestBuilder, MediaType,
};
use serde::ser::Error as _;

use super::ArtifactError;
use products::manifest::{Manifest, Product};
use store::cache::write_atomically;
use store::digest::Digest;
use store::layout::Layout;

/// The type of the whole.
pub const ARTIFACT_TYPE: &str = "application/vnd.pith.guest.v1";
/// The type of each file.
pub const FILE_TYPE: &str = "application/vnd.pith.guest.file.v1";
/// The annotation of a layer that has the file's name.
pub const TITLE: &str = "org.opencontainers.image.title";
/// The configuration, which OCI prescribes for artifacts that need none.
pub(super) const EMPTY: &[u8] = b"{}";

/// A guest that is packed: its manifest, and the files that the manifest speaks of.
#[derive(Debug, Clone)]
pub struct Guest {
    manifest: Vec<u8>,
    files: Vec<PackedFile>,
}

/// A file of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedFile {
    /// Its name, which is safe in any directory.
    pub title: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl Guest {
    /// Packs every product that the manifest of `layout` names, and that manifest.
    ///
    /// # Errors
    /// When there is none, or when a file is missing or is not what the manifest says.
    pub fn pack(layout: &Layout) -> Result<Self, ArtifactError> {
        let path = layout.manifest();
        let products = Manifest::read(layout).products;
        if products.is_empty() {
            return Err(ArtifactError::NoProducts(path));
        }
        let mut files = Vec::new();
        for (title, Product { size, sha256 }) in products {
            let path = checked(&layout.out().join(&title), &title)?;
            let found = Digest::of_file(&path).map_err(ArtifactError::io("read", &path))?;
            if found != (sha256, size) {
                return Err(ArtifactError::Stale(path));
            }
            files.push(PackedFile { title, digest: sha256, size });
        }
        let (digest, size) = Digest::of_file(&path).map_err(ArtifactError::io("read", &path))?;
        files.push(PackedFile { title: "manifest.json".into(), digest, size });
        let manifest = encode(&files).map_err(ArtifactError::json(path.display()))?;
        Ok(Self { manifest, files })
    }

    /// Understands the manifest that came from `subject`.
    ///
    /// # Errors
    /// When it is not one of a guest, or has a file whose name leads elsewhere.
    pub fn parse(manifest: Vec<u8>, subject: &str) -> Result<Self, ArtifactError> {
        let parsed: ImageManifest =
            serde_json::from_slice(&manifest).map_err(ArtifactError::json(subject))?;
        let kind = parsed.artifact_type().as_ref().map(ToString::to_string).unwrap_or_default();
        if kind != ARTIFACT_TYPE {
            return Err(ArtifactError::foreign(
                subject,
                format!("its type is {kind:?}, not {ARTIFACT_TYPE}"),
            ));
        }
        let config = parsed.config();
        if digest_of(config, subject)? != Digest::of(EMPTY) || config.size() != EMPTY.len() as u64 {
            return Err(ArtifactError::foreign(subject, "its configuration is not the empty one"));
        }
        let mut titles = BTreeSet::new();
        let mut files = Vec::new();
        for layer in parsed.layers() {
            let title = layer.annotations().as_ref().and_then(|all| all.get(TITLE)).cloned();
            let title = title.unwrap_or_default();
            if layer.media_type().to_string() != FILE_TYPE {
                let problem = format!("{title:?} has type {}, not {FILE_TYPE}", layer.media_type());
                return Err(ArtifactError::foreign(subject, problem));
            }
            if !is_title(&title) {
                return Err(ArtifactError::foreign(subject, format!("{title:?} is no plain file name")));
            }
            if !titles.insert(title.clone()) {
                return Err(ArtifactError::foreign(subject, format!("it has {title:?} twice")));
            }
            files.push(PackedFile { title, digest: digest_of(layer, subject)?, size: layer.size() });
        }
        if files.is_empty() {
            return Err(ArtifactError::foreign(subject, "it has no files"));
        }
        Ok(Self { manifest, files })
    }

    /// The manifest's bytes.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// The manifest's digest, by which the guest is pulled.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The files, in the order of the manifest.
    pub fn files(&self) -> &[PackedFile] {
        &self.files
    }

    /// Writes an OCI image layout with the files of `layout` into the empty or absent directory `dir`.
    ///
    /// # Errors
    /// When `dir` has anything in it, or when it cannot be written.
    pub fn write_layout(&self, layout: &Layout, dir: &Path) -> Result<(), ArtifactError> {
        let blobs = dir.join("blobs/sha256");
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(ArtifactError::NotEmpty(dir.to_path_buf()));
        }
        fs::create_dir_all(&blobs).map_err(ArtifactError::io("create", &blobs))?;
        for file in &self.files {
            let (from, to) = (layout.out().join(&file.title), blobs.join(file.digest.to_string()));
            let bytes = fs::read(&from).map_err(ArtifactError::io("read", &from))?;
            if Digest::of(&bytes) != file.digest {
                return Err(ArtifactError::Stale(from));
            }
            write_atomically(&to, &bytes)?;
        }
        write_atomically(&blobs.join(Digest::of(EMPTY).to_string()), EMPTY)?;
        write_atomically(&blobs.join(self.digest().to_string()), &self.manifest)?;
        write_atomically(&dir.join("oci-layout"), b"{\"imageLayoutVersion\":\"1.0.0\"}")?;
        let mut index = self.index().map_err(ArtifactError::json("the layout's index"))?;
        index.push(b'\n');
        // Last: a layout without its index is none.
        Ok(write_atomically(&dir.join("index.json"), &index)?)
    }

    fn index(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut manifest = described(MediaType::ImageManifest, self.digest(), self.manifest.len() as u64)?;
        manifest.set_artifact_type(Some(ARTIFACT_TYPE.into()));
        let index: ImageIndex = ImageIndexBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![manifest])
            .build()
            .map_err(serde_json::Error::custom)?;
        serde_json::to_vec(&index)
    }
}

fn encode(files: &[PackedFile]) -> Result<Vec<u8>, serde_json::Error> {
    let mut layers = Vec::new();
    for file in files {
        let mut layer = described(FILE_TYPE.into(), file.digest, file.size)?;
        layer.set_annotations(Some(HashMap::from([(TITLE.to_string(), file.title.clone())])));
        layers.push(layer);
    }
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .artifact_type(ARTIFACT_TYPE)
        .config(described(MediaType::EmptyJSON, Digest::of(EMPTY), EMPTY.len() as u64)?)
        .layers(layers)
        .build()
        .map_err(serde_json::Error::custom)?;
    serde_json::to_vec(&manifest)
}

fn described(kind: MediaType, digest: Digest, size: u64) -> Result<Descriptor, serde_json::Error> {
    let digest: oci_spec::image::Digest =
        format!("sha256:{digest}").parse().map_err(serde_json::Error::custom)?;
    Ok(Descriptor::new(kind, size, digest))
}

fn digest_of(descriptor: &Descriptor, subject: &str) -> Result<Digest, ArtifactError> {
    let text = descriptor.digest().to_string();
    let digest = text.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
    digest.ok_or_else(|| ArtifactError::foreign(subject, format!("{text} is no sha256 digest")))
}

fn checked(path: &Path, title: &str) -> Result<PathBuf, ArtifactError> {
    match is_title(title) && title != "manifest.json" {
        true => Ok(path.to_path_buf()),
        false => Err(ArtifactError::foreign("manifest.json", format!("{title:?} is no name of a product"))),
    }
}

/// Whether a file of this name stays in its directory.
fn is_title(title: &str) -> bool {
    !title.is_empty() && title != "." && !title.contains("..") && !title.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn products(dir: &Path) -> Layout {
        let layout = Layout::new(dir.into(), None);
        write_atomically(&layout.vmlinuz(), b"kernel").unwrap();
        write_atomically(&layout.initrd(), b"initrd").unwrap();
        Manifest::update(&layout, |manifest| {
            manifest.add_product(&layout, "vmlinuz")?;
            manifest.add_product(&layout, "initrd.img")
        })
        .unwrap();
        layout
    }

    #[test]
    fn a_packed_guest_is_understood_and_the_same_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let layout = products(dir.path());
        let guest = Guest::pack(&layout).unwrap();
        assert_eq!(guest.manifest(), Guest::pack(&layout).unwrap().manifest());
        let titles: Vec<&str> = guest.files().iter().map(|file| file.title.as_str()).collect();
        assert_eq!(titles, ["initrd.img", "vmlinuz", "manifest.json"]);
        let again = Guest::parse(guest.manifest().to_vec(), "here").unwrap();
        assert_eq!((again.files(), again.digest()), (guest.files(), guest.digest()));
        let text = String::from_utf8(guest.manifest().to_vec()).unwrap();
        assert!(text.contains("\"mediaType\":\"application/vnd.oci.empty.v1+json\""), "{text}");
        assert!(text.contains(&format!("\"artifactType\":\"{ARTIFACT_TYPE}\"")), "{text}");
    }

    #[test]
    fn a_layout_has_every_blob_by_its_digest_and_nothing_else_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let layout = products(dir.path());
        let guest = Guest::pack(&layout).unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        guest.write_layout(&layout, &one).unwrap();
        guest.write_layout(&layout, &two).unwrap();
        let mut blobs = 0;
        for entry in fs::read_dir(one.join("blobs/sha256")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            assert_eq!(Digest::of_file(&path).unwrap().0.to_string(), name);
            blobs += 1;
        }
        assert_eq!(blobs, 5);
        let index = fs::read(one.join("index.json")).unwrap();
        assert_eq!(index, fs::read(two.join("index.json")).unwrap());
        let index: ImageIndex = serde_json::from_slice(&index).unwrap();
        assert_eq!(digest_of(&index.manifests()[0], "").unwrap(), guest.digest());
        assert!(
            matches!(guest.write_layout(&layout, &one), Err(ArtifactError::NotEmpty(path)) if path == one)
        );
    }

    #[test]
    fn what_was_changed_or_never_built_is_not_packed() {
        let dir = tempfile::tempdir().unwrap();
        let nothing = Layout::new(dir.path().join("none"), None);
        assert!(matches!(Guest::pack(&nothing), Err(ArtifactError::NoProducts(_))));
        let layout = products(dir.path());
        fs::write(layout.vmlinuz(), "kernal").unwrap();
        assert!(matches!(Guest::pack(&layout), Err(ArtifactError::Stale(path)) if path == layout.vmlinuz()));
    }

    #[test]
    fn manifests_with_bad_names_types_or_digests_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let guest = Guest::pack(&products(dir.path())).unwrap();
        let text = String::from_utf8(guest.manifest().to_vec()).unwrap();
        for (from, to, named) in [
            ("\"vmlinuz\"", "\"../vmlinuz\"", "plain file name"),
            ("\"vmlinuz\"", "\"a/b\"", "plain file name"),
            ("\"vmlinuz\"", "\"..\"", "plain file name"),
            ("\"vmlinuz\"", "\"\"", "plain file name"),
            ("\"vmlinuz\"", "\"initrd.img\"", "twice"),
            (FILE_TYPE, "application/octet-stream", "has type"),
            (ARTIFACT_TYPE, "application/x", "its type"),
            (&Digest::of(EMPTY).to_string(), &Digest::of(b"").to_string(), "configuration"),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            let error = Guest::parse(changed.into(), "here").unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("here"), "{to}: {error}");
        }
        assert!(matches!(Guest::parse(b"{".to_vec(), "here"), Err(ArtifactError::Json { .. })));
    }
}
