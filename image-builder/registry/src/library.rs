//! The container images that were pulled: an OCI layout in the cache.
//!
//! ```text
//! LIBRARY/oci-layout  index.json             the images, by name
//!         blobs/sha256/HEX                   manifests, configurations and layers, each once
//!         blobs/partial/HEX                  a blob that is being fetched
//!         lock                               held by a process that changes any of this
//! ```
//!
//! Promises that `index.json` is always either the old one or the new one. Must never remove a blob during a pull.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize as _, Serialize};
use serde_json::{Value, json};
use store::arch::Arch;
use store::cache::{self, Cache};
use store::digest::Digest;

use crate::error::RegistryError;
use crate::platform::Platform;
use crate::reference::Reference;

/// The directory in the cache.
const KIND: &str = "pulled";
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "index.json";
/// The annotation that has an image's name.
const NAME: &str = "org.opencontainers.image.ref.name";
/// Seconds since 1970 at which it was pulled.
const PULLED: &str = "pith.pulled";
/// Bytes of all its blobs.
const BYTES: &str = "pith.bytes";
/// An `index.json` larger than this is none of ours.
const MAX_INDEX: u64 = 16 << 20;

/// The place of images that were pulled.
#[derive(Debug, Clone)]
pub struct Library {
    root: PathBuf,
}

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its name, complete.
    pub reference: String,
    /// The digest of its manifest, with the algorithm in front.
    pub digest: String,
    /// Bytes of all its blobs.
    pub bytes: u64,
    /// When it was pulled, in seconds since 1970.
    pub pulled: u64,
    /// The architecture of its programs, where the image says that.
    pub arch: Option<Arch>,
}

impl Library {
    /// The one in this cache.
    pub fn new(cache: &Cache) -> Self {
        Self { root: cache.root().join(KIND) }
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What there is, by name.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn list(&self) -> Result<Vec<Kept>, RegistryError> {
        let mut kept: Vec<Kept> = self.entries()?.iter().filter_map(kept).collect();
        kept.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(kept)
    }

    /// The image that `name` means: a name as people type it, a digest, or the beginning of one with at least six digits. Of
    /// several architectures under one name it is the host's, if that is there.
    ///
    /// # Errors
    /// When the index cannot be read, or when several begin like that.
    pub fn find(&self, name: &str) -> Result<Option<Kept>, RegistryError> {
        Ok(self.find_all(name)?.into_iter().next())
    }

    /// As [`Library::find`], for an architecture, if one is given.
    ///
    /// # Errors
    /// As [`Library::find`].
    pub fn find_for(&self, name: &str, arch: Option<Arch>) -> Result<Option<Kept>, RegistryError> {
        let fits = |one: &Kept| arch.is_none() || one.arch.is_none() || one.arch == arch;
        Ok(self.find_all(name)?.into_iter().find(fits))
    }

    /// As [`Library::find`]: all that have the name, the host's architecture first.
    ///
    /// # Errors
    /// As [`Library::find`].
    pub fn find_all(&self, name: &str) -> Result<Vec<Kept>, RegistryError> {
        let mut all = self.list()?;
        all.sort_by_key(|one| one.arch.is_some_and(|arch| arch != Arch::host()));
        if let Ok(reference) = Reference::of_image(name) {
            let whole = reference.to_string();
            // A name by digest also finds what was pulled by a tag.
            let by_digest = reference.digest().map(|digest| format!("sha256:{digest}"));
            let repository = format!("{}/{}", reference.registry(), reference.name());
            let same = |one: &&Kept| {
                one.reference == whole
                    || by_digest.as_ref() == Some(&one.digest) && one.reference.starts_with(&repository)
            };
            let found: Vec<Kept> = all.iter().filter(same).cloned().collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if hex.len() < 6 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        let prefix = format!("sha256:{}", hex.to_ascii_lowercase());
        let found: Vec<&Kept> = all.iter().filter(|one| one.digest.starts_with(&prefix)).collect();
        let digests: BTreeSet<&String> = found.iter().map(|one| &one.digest).collect();
        match digests.len() {
            0 => Ok(Vec::new()),
            1 => Ok(vec![found[0].clone()]),
            _ => Err(RegistryError::NoImage {
                subject: name.to_owned(),
                problem: "is the beginning of several digests; give more of it".to_owned(),
            }),
        }
    }

    /// How the image is named to whoever makes disks of layouts.
    pub fn source(&self, image: &Kept) -> String {
        format!("{}@{}", self.root.display(), image.digest)
    }

    /// Remembers that an image was used just now.
    pub fn touch(&self, image: &Kept) {
        let digest = image.digest.trim_start_matches("sha256:");
        let manifest = self.root.join("blobs/sha256").join(digest);
        // Not worth an error: it only decides what goes first.
        drop(File::open(manifest).and_then(|file| file.set_modified(SystemTime::now())));
    }

    /// When an image was last used.
    pub fn used(&self, image: &Kept) -> SystemTime {
        let digest = image.digest.trim_start_matches("sha256:");
        let manifest = fs::metadata(self.root.join("blobs/sha256").join(digest));
        manifest.and_then(|manifest| manifest.modified()).unwrap_or(UNIX_EPOCH)
    }

    /// Takes the name from an image, and removes what no other image has. Answers how many bytes became free.
    ///
    /// # Errors
    /// When a file cannot be changed.
    pub fn remove(&self, image: &Kept) -> Result<u64, RegistryError> {
        let _held = self.hold()?;
        let mut entries = self.entries()?;
        let is_it = |one: Kept| one.reference == image.reference && one.digest == image.digest;
        entries.retain(|entry| !kept(entry).is_some_and(is_it));
        self.write_index(&entries)?;
        self.sweep(&entries)
    }

    /// Removes blobs that came halfway, or that no image has. Answers how many bytes became free.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn clean(&self) -> Result<u64, RegistryError> {
        if !self.root.exists() {
            return Ok(0);
        }
        let _held = self.hold()?;
        self.sweep(&self.entries()?)
    }

    /// Bytes of all that is there.
    pub fn size(&self) -> u64 {
        files(&self.root.join("blobs/sha256"))
            .chain(files(&self.root.join("blobs/partial")))
            .map(|(_, size)| size)
            .sum()
    }

    /// Keeps others from changing anything, for as long as the answer lives. Waits for those who do.
    pub(crate) fn hold(&self) -> Result<Flock<File>, RegistryError> {
        for directory in ["blobs/sha256", "blobs/partial"] {
            let path = self.root.join(directory);
            fs::create_dir_all(&path).map_err(RegistryError::io("create", &path))?;
        }
        let path = self.root.join("lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(RegistryError::io("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| RegistryError::io("lock", &path)(io::Error::from(errno)))
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.to_string())
    }

    /// Whether a blob is there. It was verified when it came; whoever reads it does so again.
    pub(crate) fn has(&self, digest: Digest, size: u64) -> bool {
        fs::metadata(self.blob(digest)).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
    }

    /// Where a blob is fetched to.
    pub(crate) fn partial(&self, digest: Digest) -> Result<PathBuf, RegistryError> {
        Ok(self.root.join("blobs/partial").join(digest.to_string()))
    }

    /// Makes a file the blob that it was verified to be.
    pub(crate) fn take(&self, file: &Path, digest: Digest) -> Result<(), RegistryError> {
        let to = self.blob(digest);
        fs::rename(file, &to).map_err(RegistryError::io("replace", &to))
    }

    /// Stores a small blob.
    pub(crate) fn put(&self, digest: Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        write(&self.blob(digest), bytes)
    }

    /// What the image with this configuration is for. Nothing where it does not say, or is not there.
    pub(crate) fn platform(&self, config: Digest) -> Platform {
        let read = || -> Option<Platform> {
            let path = self.blob(config);
            (fs::metadata(&path).ok()?.len() <= MAX_INDEX).then_some(())?;
            serde_json::from_slice(&fs::read(&path).ok()?).ok()
        };
        read().unwrap_or_default()
    }

    /// Gives an image its name, which another one of its architecture may have had.
    pub(crate) fn name(
        &self,
        reference: &Reference,
        digest: Digest,
        manifest: &[u8],
        bytes: u64,
        arch: Option<Arch>,
    ) -> Result<(), RegistryError> {
        let document: Value = serde_json::from_slice(manifest)
            .map_err(RegistryError::json(format!("the manifest of {reference}")))?;
        let media_type =
            document["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let name = reference.to_string();
        let mut entries = self.entries()?;
        let had_it =
            |one: Kept| one.reference == name && (one.arch.is_none() || arch.is_none() || one.arch == arch);
        entries.retain(|entry| !kept(entry).is_some_and(had_it));
        let mut entry = json!({
            "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": manifest.len(),
            "annotations": {NAME: name, PULLED: now.to_string(), BYTES: bytes.to_string()},
        });
        if let Some(arch) = arch {
            entry["platform"] = json!({"os": "linux", "architecture": arch.debian()});
        }
        entries.push(entry);
        self.write_index(&entries)
    }

    fn entries(&self) -> Result<Vec<Value>, RegistryError> {
        let path = self.root.join(INDEX);
        let read = || -> io::Result<Vec<u8>> {
            if fs::metadata(&path)?.len() > MAX_INDEX {
                return Err(io::Error::other("it is too large"));
            }
            fs::read(&path)
        };
        let bytes = match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(RegistryError::io("read", &path))?,
        };
        let mut index: Value = serde_json::from_slice(&bytes).map_err(RegistryError::json(path.display()))?;
        match index["manifests"].take() {
            Value::Array(entries) => Ok(entries),
            _ => Ok(Vec::new()),
        }
    }

    fn write_index(&self, entries: &[Value]) -> Result<(), RegistryError> {
        write(&self.root.join("oci-layout"), LAYOUT.as_bytes())?;
        let index = json!({"schemaVersion": 2, "manifests": entries});
        write(&self.root.join(INDEX), index.to_string().as_bytes())
    }

    /// Removes blobs that none of these entries leads to.
    fn sweep(&self, entries: &[Value]) -> Result<u64, RegistryError> {
        let mut used = BTreeSet::new();
        for digest in entries.iter().filter_map(|entry| entry["digest"].as_str()?.strip_prefix("sha256:")) {
            used.insert(digest.to_owned());
            let Ok(manifest) = fs::read(self.root.join("blobs/sha256").join(digest)) else { continue };
            let Ok(manifest) = serde_json::from_slice::<Value>(&manifest) else { continue };
            let layers = manifest["layers"].as_array().into_iter().flatten();
            let named =
                layers.chain(std::iter::once(&manifest["config"])).filter_map(|one| one["digest"].as_str());
            used.extend(named.filter_map(|digest| Some(digest.strip_prefix("sha256:")?.to_owned())));
        }
        let mut freed = 0;
        let whole = files(&self.root.join("blobs/sha256"));
        let unused = whole.filter(|(path, _)| {
            path.file_name().and_then(|name| name.to_str()).is_none_or(|name| !used.contains(name))
        });
        for (path, size) in unused.chain(files(&self.root.join("blobs/partial"))) {
            fs::remove_file(&path).map_err(RegistryError::io("remove", &path))?;
            freed += size;
        }
        Ok(freed)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RegistryError> {
    Ok(cache::write_atomically(path, bytes)?)
}

/// The files in a directory, and their sizes.
fn files(directory: &Path) -> impl Iterator<Item = (PathBuf, u64)> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())))
}

fn kept(entry: &Value) -> Option<Kept> {
    let number = |name: &str| entry["annotations"][name].as_str()?.parse().ok();
    Some(Kept {
        reference: entry["annotations"][NAME].as_str()?.to_owned(),
        digest: entry["digest"].as_str()?.to_owned(),
        bytes: number(BYTES).unwrap_or_default(),
        pulled: number(PULLED).unwrap_or_default(),
        arch: Platform::deserialize(&entry["platform"]).unwrap_or_default().arch(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library with images of these names, each of one layer; equal layers are shared.
    fn library(images: &[(&str, &[u8])]) -> (tempfile::TempDir, Library) {
        let dir = tempfile::tempdir().unwrap();
        let library = Library::new(&Cache::new(dir.path().into()));
        for (name, layer) in images {
            let _held = library.hold().unwrap();
            let blob = Digest::of(layer);
            library.put(blob, layer).unwrap();
            let manifest = json!({"config": {"digest": format!("sha256:{}", Digest::of(name.as_bytes()))},
                "layers": [{"digest": format!("sha256:{blob}")}]});
            let manifest = manifest.to_string().into_bytes();
            library.put(Digest::of(name.as_bytes()), name.as_bytes()).unwrap();
            library.put(Digest::of(&manifest), &manifest).unwrap();
            let reference = Reference::of_image(name).unwrap();
            library.name(&reference, Digest::of(&manifest), &manifest, layer.len() as u64, None).unwrap();
        }
        (dir, library)
    }

    #[test]
    fn images_are_found_by_every_name_they_have() {
        let (_dir, library) = library(&[("nginx", b"one"), ("q.io/a:1", b"two")]);
        let nginx = library.find("nginx").unwrap().unwrap();
        assert_eq!(nginx.reference, "docker.io/library/nginx:latest");
        let digest = nginx.digest.clone();
        for name in [
            "docker.io/library/nginx:latest",
            "nginx:latest",
            &digest,
            &digest[7..15],
            &format!("nginx@{digest}"),
        ] {
            assert_eq!(library.find(name).unwrap().as_ref(), Some(&nginx), "{name}");
        }
        for name in ["nginx:1", "q.io/a", "abcd", &format!("q.io/a@{digest}")] {
            assert_eq!(library.find(name).unwrap(), None, "{name}");
        }
        assert_eq!(library.list().unwrap().len(), 2);
    }

    #[test]
    fn what_is_removed_takes_along_only_what_nobody_else_has() {
        let (_dir, library) = library(&[("a", b"shared"), ("b", b"shared"), ("c", b"its own")]);
        let before = library.size();
        let c = library.find("c").unwrap().unwrap();
        assert!(library.remove(&c).unwrap() > 0 && library.size() < before);
        let a = library.find("a").unwrap().unwrap();
        library.remove(&a).unwrap();
        assert!(library.has(Digest::of(b"shared"), 6), "b has it, too");
        let b = library.find("b").unwrap().unwrap();
        library.remove(&b).unwrap();
        assert_eq!((library.size(), library.list().unwrap().len()), (0, 0));
    }

    #[test]
    fn a_name_leads_to_the_last_image_that_got_it() {
        let (_dir, library) = library(&[("a", b"old"), ("a", b"new")]);
        assert_eq!(library.list().unwrap().len(), 1);
        library.clean().unwrap();
        assert!(library.has(Digest::of(b"new"), 3) && !library.has(Digest::of(b"old"), 3));
    }

    #[test]
    fn one_name_has_an_image_for_each_architecture() {
        let (_dir, library) = library(&[]);
        let add = |layer: &[u8], arch: Option<Arch>| {
            let _held = library.hold().unwrap();
            let blob = Digest::of(layer);
            library.put(blob, layer).unwrap();
            let manifest = json!({"layers": [{"digest": format!("sha256:{blob}")}]}).to_string().into_bytes();
            library.put(Digest::of(&manifest), &manifest).unwrap();
            let reference = Reference::of_image("a").unwrap();
            library.name(&reference, Digest::of(&manifest), &manifest, 1, arch).unwrap();
            format!("sha256:{}", Digest::of(&manifest))
        };
        let [other, own] = [Arch::ALL.into_iter().find(|arch| *arch != Arch::host()), Some(Arch::host())];
        let foreign = add(b"foreign", other);
        assert_eq!(library.find("a").unwrap().unwrap().digest, foreign, "it is the only one");
        assert_eq!(library.find_for("a", own).unwrap(), None);
        let ours = add(b"ours", own);
        assert_eq!(library.list().unwrap().len(), 2);
        assert_eq!(library.find("a").unwrap().unwrap().digest, ours);
        assert_eq!(library.find_for("a", other).unwrap().unwrap().digest, foreign);
        library.remove(&library.find("a").unwrap().unwrap()).unwrap();
        assert!(library.has(Digest::of(b"foreign"), 7) && !library.has(Digest::of(b"ours"), 4));
        // What does not say takes the place of all.
        let blank = add(b"blank", None);
        let all = library.find_all("a").unwrap();
        assert_eq!(all.iter().map(|one| &one.digest).collect::<Vec<_>>(), [&blank]);
        assert_eq!(library.find_for("a", other).unwrap().unwrap().digest, blank);
    }

    #[test]
    fn an_index_that_is_broken_or_huge_is_named() {
        let (_dir, library) = library(&[("a", b"x")]);
        fs::write(library.root().join(INDEX), "{").unwrap();
        assert!(library.list().unwrap_err().to_string().contains(INDEX));
        fs::write(library.root().join(INDEX), vec![b' '; 17 << 20]).unwrap();
        assert!(library.list().unwrap_err().to_string().contains(INDEX));
    }
}
