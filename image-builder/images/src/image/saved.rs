//! Images as the tools of the world save them (`image-builder/images/corpus/images.sh`), and what is no image.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::source::{self, Opened};
use super::spool::Spool;
use super::*;
use fs_image::Tree;

/// A saved image in a directory of its own.
struct Saved {
    _dir: tempfile::TempDir,
    cache: Cache,
    path: PathBuf,
}

impl Saved {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("cache"));
        let path = dir.path().join("image");
        Self { _dir: dir, cache, path }
    }

    /// One of the corpus.
    fn corpus(name: &str) -> Self {
        let mut saved = Self::new();
        let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("corpus/images/{name}.tar.zst"));
        let unpacked = zstd::decode_all(fs::File::open(packed).unwrap()).unwrap();
        if name.ends_with("-archive") {
            saved.path = saved.path.with_extension("tar");
            fs::write(&saved.path, unpacked).unwrap();
        } else {
            let mut archive = ::tar::Archive::new(&unpacked[..]);
            archive.set_preserve_ownerships(false);
            archive.unpack(saved.path.parent().unwrap()).unwrap();
        }
        saved
    }

    /// An OCI layout with this index, and these blobs.
    fn layout(index: &Value, blobs: &[Vec<u8>]) -> Self {
        let saved = Self::new();
        let dir = saved.path.join("blobs/sha256");
        fs::create_dir_all(&dir).unwrap();
        for blob in blobs {
            fs::write(dir.join(Digest::of(blob).to_string()), blob).unwrap();
        }
        fs::write(saved.path.join("index.json"), index.to_string()).unwrap();
        saved
    }

    fn open(&self, name: &str) -> Result<Opened, ImageError> {
        self.open_for(name, Some(Arch::host()))
    }

    fn open_for(&self, name: &str, arch: Option<Arch>) -> Result<Opened, ImageError> {
        source::open(&format!("{}{name}", self.path.display()), arch, &self.cache, Ceiling::default())
    }

    /// What a name leads to: the content of two files, whether a third was taken away, and how it is run.
    fn content(&self, name: &str) -> Result<(String, String, bool, ImageConfig), ImageError> {
        let (mut tree, mut spool) =
            (Tree::new(), Spool::new(&std::env::temp_dir(), Ceiling::default()).unwrap());
        let opened = self.open(name)?;
        let config = opened.fill(&mut tree, &mut spool)?;
        let text = |path: &str| {
            let content = tree.file(path.as_bytes()).map(|content| content.bytes().unwrap().into_owned());
            String::from_utf8(content.unwrap_or_default()).unwrap()
        };
        let is_gone = tree.find(b"gone").unwrap().is_none();
        let has_volume = config.volumes.iter().all(|volume| tree.find(volume.as_bytes()).unwrap().is_some());
        assert!(has_volume, "{:?}", config.volumes);
        assert_eq!(text("bin/hello"), "#!/bin/hello\n");
        Ok((text("etc/passwd"), text("new-dir/new"), is_gone, config))
    }

    fn refusal(&self, name: &str) -> String {
        match self.open(name) {
            Ok(_) => panic!("{name:?} was opened"),
            Err(error) => format!("{:?}", anyhow::Error::from(error)),
        }
    }
}

/// The image of the corpus, whatever it was saved with; `second` is the one with all layers.
#[track_caller]
fn check(saved: &Saved, name: &str, second: bool) {
    let (passwd, new, is_gone, config) = saved.content(name).unwrap();
    assert!(passwd.contains("web:x:7:8"), "{passwd}");
    assert_eq!((new.as_str(), is_gone), if second { ("new\n", true) } else { ("", false) }, "{name:?}");
    let found = (config.working_dir.as_str(), config.user.as_str(), config.stop_signal().unwrap());
    assert_eq!((found, config.volumes.concat().as_str()), (("/srv", "web", 37), "/data"), "{name:?}");
}

#[test]
fn every_form_is_read_and_every_name_found() {
    for (form, second, first) in [
        ("umoci-layout", &[":second"][..], &[":first"][..]),
        ("skopeo-oci", &[":name:1"], &[":other:1"]),
        ("skopeo-oci-archive", &["", ":name:1", ":1"], &[]),
        ("skopeo-docker-archive", &["", ":zz:latest", ":dk", ":latest", ":docker.io/library/zz:latest"], &[]),
        ("skopeo-dir", &[""], &[]),
        ("podman-docker-archive", &["", ":zz:latest", ":latest", ":localhost/dk:latest"], &[]),
        ("podman-multi-archive", &[":zz:latest", ":zz"], &[":bb:1", ":1"]),
        ("podman-oci-archive", &["", ":zz:latest", ":localhost/zz:latest"], &[]),
        ("podman-oci-dir", &["", ":zz"], &[]),
        ("podman-docker-dir", &[""], &[]),
        ("buildah-oci-archive", &["", ":zz:latest"], &[]),
        ("containerd-archive", &["", ":zz", ":dk:latest", ":docker.io/library/dk:latest"], &[]),
        ("containerd17-archive", &["", ":zz", ":dk:latest", ":docker.io/library/dk:latest"], &[]),
        ("containerd2-archive", &["", ":zz", ":dk:latest", ":docker.io/library/dk:latest"], &[]),
        ("estargz-archive", &["", ":zz:esgz", ":docker.io/library/zz:esgz"], &[]),
        ("skopeo-zstd-chunked", &["", ":name:1"], &[]),
        ("docker20-archive", &["", ":zz:latest", ":dk:latest", ":latest"], &[]),
        ("docker26-archive", &["", ":zz:latest", ":dk:latest", ":latest"], &[]),
        ("docker28-archive", &["", ":zz:latest", ":dk:latest", ":latest"], &[]),
        ("docker26-multi-archive", &[":zz:latest", ":latest"], &[":bb:1", ":yy:1", ":1"]),
    ] {
        let saved = Saved::corpus(form);
        println!("{form}");
        second.iter().for_each(|name| check(&saved, name, true));
        first.iter().for_each(|name| check(&saved, name, false));
        let error = saved.refusal(":absent:9");
        assert!(error.contains("absent:9"), "{form}: {error}");
    }
}

/// What makes these layers more than gzip and zstd is there: the end that leads to a table of contents, and frames that readers
/// skip.
#[test]
fn layers_that_can_be_pulled_in_pieces_are_what_they_say() {
    let archive = fs::read(&Saved::corpus("estargz-archive").path).unwrap();
    assert_eq!(archive.windows(6).filter(|bytes| *bytes == b"STARGZ").count(), 3);
    let layout = Saved::corpus("skopeo-zstd-chunked");
    let blobs = fs::read_dir(layout.path.join("blobs/sha256")).unwrap();
    let blobs = blobs.map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let is_skipped = |bytes: &[u8]| bytes[0] & 0xf0 == 0x50 && bytes[1..] == [0x2a, 0x4d, 0x18];
    let layers = blobs.filter(|blob| blob.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
    assert_eq!(layers.filter(|layer| layer.windows(4).any(is_skipped)).count(), 3);
}

#[test]
fn an_image_of_buildkit_is_found_among_its_attestations() {
    let saved = Saved::corpus("buildkit-archive");
    for name in ["", ":a:1", ":b:1", ":1"] {
        let (passwd, _, _, config) = saved.content(name).unwrap();
        assert!(passwd.contains("web") && config.cmd == ["/bin/hello"], "{name:?}");
    }
}

#[test]
fn root_file_systems_are_read_from_archives_and_from_bundles() {
    for form in ["docker20-export-archive", "podman-export-archive"] {
        let saved = Saved::corpus(form);
        let (passwd, new, is_gone, config) = saved.content("").unwrap();
        assert!(passwd.contains("web") && new == "new\n" && is_gone && config == ImageConfig::default());
        assert!(saved.refusal(":latest").contains("root file system"));
        // Also compressed, and packed into a disk once.
        let packed = zstd::encode_all(&fs::read(&saved.path).unwrap()[..], 3).unwrap();
        fs::write(&saved.path, packed).unwrap();
        let reference = saved.path.display().to_string();
        let (first, again) =
            (prepare(&reference, &saved.cache).unwrap(), prepare(&reference, &saved.cache).unwrap());
        assert!(!first.cached && again.cached && first.disk == again.disk);
    }
    let saved = Saved::corpus("umoci-bundle");
    let (passwd, new, is_gone, config) = saved.content("").unwrap();
    assert!(passwd.contains("web") && new == "new\n" && is_gone);
    assert_eq!((config.entrypoint.join(" ").as_str(), config.user.as_str()), ("/bin/hello", "7:8"));
    assert!(saved.open("").unwrap().key().unwrap() != saved.open("/rootfs").unwrap().key().unwrap());
    fs::rename(saved.path.join("rootfs"), saved.path.join("elsewhere")).unwrap();
    assert!(saved.refusal("").contains("runtime bundle whose root"));
    std::os::unix::fs::symlink("/etc", saved.path.join("rootfs")).unwrap();
    assert!(saved.refusal("").contains("runtime bundle whose root"));
}

#[test]
fn several_images_are_named_in_full() {
    let error = Saved::corpus("podman-multi-archive").refusal("");
    assert!(error.contains("localhost/zz:latest") && error.contains("localhost/bb:1"), "{error}");
    let error = Saved::corpus("docker26-multi-archive").refusal("");
    assert!(
        error.contains("docker.io/library/zz:latest") && error.contains("docker.io/library/bb:1"),
        "{error}"
    );
    let error = Saved::corpus("umoci-layout").refusal("");
    assert!(error.contains("first, second"), "{error}");
    // An image without a name has a digest.
    let saved = Saved::corpus("umoci-layout");
    let index: Value = serde_json::from_slice(&fs::read(saved.path.join("index.json")).unwrap()).unwrap();
    let digests = index["manifests"].as_array().unwrap().iter().map(|one| one["digest"].as_str().unwrap());
    for digest in digests {
        assert!(saved.content(&format!("@{digest}")).is_ok(), "{digest}");
    }
}

/// A layout's blobs and index, of images that differ in their platform and their entry point.
struct Images {
    blobs: Vec<Vec<u8>>,
    manifests: Vec<Value>,
}

impl Images {
    fn put(&mut self, document: &Value, media_type: &str) -> Value {
        let bytes = document.to_string().into_bytes();
        let digest = format!("sha256:{}", Digest::of(&bytes));
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.blobs.push(bytes);
        descriptor
    }

    fn add(&mut self, entry_point: &str, platform: Value) {
        let mut config = platform.clone();
        config["config"] = json!({"Entrypoint": [entry_point]});
        config["rootfs"] = json!({"type": "layers", "diff_ids": []});
        let config = self.put(&config, "application/vnd.oci.image.config.v1+json");
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": []});
        let mut manifest = self.put(&manifest, media_type);
        manifest["platform"] = platform;
        self.manifests.push(manifest);
    }

    fn of(platforms: &[(&str, &str, &str)]) -> Self {
        let mut images = Self { blobs: Vec::new(), manifests: Vec::new() };
        for (os, architecture, variant) in platforms {
            let mut platform = json!({"os": os, "architecture": architecture});
            if !variant.is_empty() {
                platform["variant"] = json!(variant);
            }
            images.add(&format!("{os}/{architecture}/{variant}"), platform);
        }
        images
    }

    /// The layout with an index of one image inside its own.
    fn saved(mut self) -> Saved {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": self.manifests});
        let index = self.put(&index, media_type);
        Saved::layout(&json!({"schemaVersion": 2, "manifests": [index]}), &self.blobs)
    }

    fn chosen(self) -> Result<String, String> {
        self.chosen_for(Some(Arch::host()))
    }

    fn chosen_for(self, arch: Option<Arch>) -> Result<String, String> {
        let saved = self.saved();
        let opened = saved.open_for("", arch).map_err(|error| error.to_string())?;
        let config = opened
            .fill(&mut Tree::new(), &mut Spool::new(&std::env::temp_dir(), Ceiling::default()).unwrap())
            .map_err(|error| error.to_string())?;
        Ok(config.entrypoint.concat())
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_platform_is_chosen_as_containerd_chooses_it() {
    let chosen = |platforms: &[(&str, &str, &str)]| Images::of(platforms).chosen();
    let (none, v1) = (("linux", "amd64", ""), ("linux", "amd64", "v1"));
    let (v2, v3) = (("linux", "amd64", "v2"), ("linux", "amd64", "v3"));
    let arm = ("linux", "arm64", "v8");
    assert_eq!(chosen(&[v3, arm, v2, none]).unwrap(), "linux/amd64/");
    assert_eq!(chosen(&[v3, v1, v2]).unwrap(), "linux/amd64/v1");
    assert_eq!(chosen(&[v3, v2, arm]).unwrap(), "linux/amd64/v2");
    assert_eq!(chosen(&[arm, ("linux", "x86_64", "")]).unwrap(), "linux/x86_64/");
    // Of equals the first.
    assert_eq!(chosen(&[v1, none]).unwrap(), "linux/amd64/v1");
    let error = chosen(&[arm, ("windows", "amd64", ""), ("unknown", "unknown", "")]).unwrap_err();
    assert!(error.contains("linux/amd64, only for linux/arm64, windows/amd64"), "{error}");
    // One alone is opened for what it says itself.
    let error = chosen(&[arm]).unwrap_err();
    assert!(
        error.contains("an image for linux/arm64, and not for linux/amd64, which was asked for"),
        "{error}"
    );
    assert!(chosen(&[("windows", "amd64", "")]).unwrap_err().contains("windows/amd64"));
    assert!(chosen(&[("linux", "386", "")]).unwrap_err().contains("linux/386"));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn an_image_for_another_architecture_is_taken_where_there_is_no_other() {
    let of = |platforms: &[(&str, &str, &str)], arch| Images::of(platforms).chosen_for(arch);
    let (amd, arm) = (("linux", "amd64", ""), ("linux", "arm64", "v8"));
    let (i386, v9) = (("linux", "386", ""), ("linux", "arm64", "v9"));
    // Whatever is wanted: the host's own first.
    assert_eq!(of(&[arm, amd], None).unwrap(), "linux/amd64/");
    assert_eq!(of(&[i386, arm, v9], None).unwrap(), "linux/arm64/v8");
    assert_eq!(of(&[arm], None).unwrap(), "linux/arm64/v8");
    // What is asked for, and nothing else.
    assert_eq!(of(&[amd, v9, arm], Some(Arch::Aarch64)).unwrap(), "linux/arm64/v8");
    let error = of(&[amd, i386], Some(Arch::Aarch64)).unwrap_err();
    assert!(error.contains("holds no image for linux/arm64, only for linux/amd64, linux/386"), "{error}");
    let error = of(&[i386, ("windows", "arm64", "")], None).unwrap_err();
    assert!(error.contains("for linux/amd64 or linux/arm64, only for linux/386, windows/arm64"), "{error}");
    let error = of(&[i386], None).unwrap_err();
    assert!(
        error.contains("for linux/386, which no guest can run; take the one for linux/amd64 or"),
        "{error}"
    );
    let saved = Images::of(&[amd, arm]).saved();
    for (wanted, found) in [(None, Arch::X86_64), (Some(Arch::Aarch64), Arch::Aarch64)] {
        let reference = saved.path.display().to_string();
        assert_eq!(arch_of(&reference, wanted, &saved.cache, Ceiling::default()).unwrap(), Some(found));
        let image = prepare_for(&reference, wanted, &saved.cache, Ceiling::default()).unwrap();
        assert_eq!((image.arch, image.cached), (Some(found), false));
    }
    let blank = Images::of(&[("linux", "", "")]).saved();
    let reference = blank.path.display().to_string();
    assert_eq!(arch_of(&reference, Some(Arch::Aarch64), &blank.cache, Ceiling::default()).unwrap(), None);
}

#[test]
fn what_is_no_image_is_told_as_what_it_is() {
    let refusal = |manifest: Value, media_type: &str| {
        let bytes = manifest.to_string().into_bytes();
        let digest = format!("sha256:{}", Digest::of(&bytes));
        let index = json!({"manifests": [{"mediaType": media_type, "digest": digest}]});
        Saved::layout(&index, &[bytes]).refusal("")
    };
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let config = "application/vnd.oci.image.config.v1+json";
    let manifest = |config: &str, layer: &str| {
        let digest = format!("sha256:{}", "0".repeat(64));
        json!({"schemaVersion": 2, "mediaType": oci, "config": {"mediaType": config, "digest": digest},
            "layers": [{"mediaType": layer, "digest": digest}]})
    };
    let mut artifact = manifest("application/vnd.oci.empty.v1+json", "text/plain");
    artifact["artifactType"] = json!("application/vnd.example.model");
    let signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    for (document, media_type, words) in [
        (artifact, oci, "application/vnd.example.model"),
        (
            manifest(
                "application/vnd.cncf.helm.config.v1+json",
                "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
            ),
            oci,
            "Helm chart",
        ),
        (
            manifest("application/vnd.wasm.config.v0+json", "application/wasm"),
            oci,
            "application/vnd.wasm.config",
        ),
        (manifest(config, "application/vnd.in-toto+json"), oci, "attestation"),
        (manifest(config, "application/vnd.dev.cosign.simplesigning.v1+json"), oci, "signature"),
        (manifest(config, &format!("{gzip}+encrypted")), oci, "encrypted"),
        (manifest(config, "application/vnd.example.layer"), oci, "application/vnd.example.layer"),
        (
            json!({"schemaVersion": 1, "fsLayers": [{"blobSum": "sha256:0"}], "signatures": []}),
            signed,
            "schema 1",
        ),
        (
            json!({"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": []}),
            oci,
            "artifact.manifest",
        ),
        (json!({"schemaVersion": 2, "config": {}, "layers": [], "manifests": []}), oci, "at once"),
        (json!({"schemaVersion": 2}), oci, "without a configuration"),
    ] {
        let error = refusal(document, media_type);
        assert!(error.contains(words), "{words}: {error}");
    }
    let about = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let index = json!({"manifests": [{"mediaType": oci, "digest": "sha256:0", "annotations": about}]});
    assert!(Saved::layout(&index, &[]).refusal("").contains("attestations alone"));
    assert!(Saved::layout(&json!({"manifests": null}), &[]).refusal("").contains("is empty"));
    let foreign = json!({"schemaVersion": 2, "mediaType": oci, "config": {"mediaType": config, "digest": "sha256:0"}, "layers": []});
    assert!(refusal(foreign, oci).contains("only sha256"));
}

#[test]
fn what_is_no_image_is_told_by_its_archive() {
    let archive = |files: &[&str]| {
        let mut saved = Saved::new();
        saved.path = saved.path.with_extension("tgz");
        let mut builder = ::tar::Builder::new(Vec::new());
        for name in files {
            let mut header = ::tar::Header::new_ustar();
            header.set_size(0);
            builder.append_data(&mut header, name, &b""[..]).unwrap();
        }
        fs::write(&saved.path, zstd::encode_all(&builder.into_inner().unwrap()[..], 1).unwrap()).unwrap();
        saved.refusal("")
    };
    assert!(archive(&["app/Chart.yaml", "app/templates/pod.yaml"]).contains("Helm chart"));
    assert!(archive(&["repositories", "abc/layer.tar"]).contains("docker before version 1.10"));
    // `tar -czf layout.tgz layout`: it would be run as a root file system without a program.
    for files in [
        &["a/oci-layout", "a/index.json", "a/blobs/sha256/0"][..],
        &["a/manifest.json", "a/repositories", "a/0.tar"],
        &["a/manifest.json", "a/version"],
    ] {
        assert!(
            archive(files).contains("an archive of the directory \"a\" with an image in it"),
            "{files:?}"
        );
    }
    let mut saved = Saved::new();
    saved.path = saved.path.with_extension("tbz");
    for (content, words) in [
        (&b"BZh91AY&SY"[..], "bzip2"),
        (b"", "no files in it"),
        (&[0; 4096], "no files in it"),
        (b"text", "tar archive"),
        (b"hsqs", "is a squashfs"),
        (b"070701", "is a cpio archive"),
        (b"PK\x03\x04", "is a zip archive"),
        (&[&[0; 1080][..], b"\x53\xef"].concat(), "is an ext4 file system"),
        (&[&[0; 32_769][..], b"CD001"].concat(), "is an ISO image"),
    ] {
        fs::write(&saved.path, content).unwrap();
        assert!(saved.refusal("").contains(words), "{words}");
    }
}

#[test]
fn a_stop_signal_that_is_none_is_refused_before_anything_is_packed() {
    let mut images = Images::of(&[]);
    images.add("x", json!({"os": "linux"}));
    let text = String::from_utf8(images.blobs[0].clone()).unwrap().replace("Entrypoint", "StopSignal");
    let document: Value = serde_json::from_str(&text.replace(r#"["x"]"#, r#""SIGRTMIN+99""#)).unwrap();
    let mut images = Images::of(&[]);
    let config = images.put(&document, "application/vnd.oci.image.config.v1+json");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = images.put(&json!({"schemaVersion": 2, "config": config, "layers": []}), media_type);
    images.manifests.push(manifest);
    assert!(images.chosen().unwrap_err().contains("SIGRTMIN+99"));
}
