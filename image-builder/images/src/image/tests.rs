//! Whole images, from files to disk.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A tar of files with the given contents.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The files of an OCI layout with a gzip layer and a zstd layer.
fn layout() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut blob = |bytes: Vec<u8>| {
        let digest = Digest::of(&bytes);
        let size = bytes.len();
        files.insert(format!("blobs/sha256/{digest}"), bytes);
        (format!("sha256:{digest}"), size)
    };
    let lower = tar(&[("etc/passwd", "web:x:7:8::/srv:/bin/sh\n"), ("gone", "x")]);
    let upper = tar(&[("new", "content"), (".wh.gone", "")]);
    let diff_ids = [&lower, &upper].map(|layer| format!("sha256:{}", Digest::of(layer)));
    let layers = [blob(gzip(&lower)), blob(zstd::encode_all(&upper[..], 1).unwrap())];
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["/new"], "Cmd": ["arg"], "User": "web", "WorkingDir": "/srv", "StopSignal": "SIGQUIT"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = blob(config.to_string().into_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1},
        "layers": layers.map(|(digest, size)| serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size,
        })),
    });
    let manifest = blob(manifest.to_string().into_bytes());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest.0, "size": manifest.1,
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }]});
    files.insert("index.json".into(), index.to_string().into_bytes());
    files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    files
}

struct Place {
    dir: tempfile::TempDir,
    cache: Cache,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("cache"));
        Self { dir, cache }
    }

    fn write(&self, files: &BTreeMap<String, Vec<u8>>) -> String {
        let image = self.dir.path().join("image");
        for (name, bytes) in files {
            let path = image.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        image.display().to_string()
    }

    fn write_archive(&self, files: &BTreeMap<String, Vec<u8>>, compress: bool) -> String {
        let mut builder = ::tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = ::tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let path = self.dir.path().join("image.tar");
        fs::write(&path, if compress { gzip(&bytes) } else { bytes }).unwrap();
        path.display().to_string()
    }
}

fn check(image: &Image) {
    assert_eq!(image.config.entrypoint, ["/new"]);
    assert_eq!(
        (image.config.cmd.as_slice(), image.config.working_dir.as_str()),
        (&["arg".to_owned()][..], "/srv")
    );
    assert_eq!(image.config.stop_signal, "SIGQUIT");
    let account = image.config.account(&image.config.user).unwrap();
    assert_eq!((account.uid, account.gid, account.home.as_deref()), (7, 8, Some("/srv")));
    let disk = fs::read(&image.disk).unwrap();
    assert_eq!(disk.len() as u64, image.size);
    let has = |text: &[u8]| disk.windows(text.len()).any(|window| window == text);
    assert!(has(b"content") && !has(b"gone"));
}

#[test]
fn a_layout_becomes_a_disk_once() {
    let place = Place::new();
    let reference = place.write(&layout());
    let first = prepare(&reference, &place.cache).unwrap();
    check(&first);
    assert!(!first.cached);
    let second = prepare(&format!("{reference}:latest"), &place.cache).unwrap();
    assert!(second.cached);
    assert_eq!((first.disk, first.config), (second.disk, second.config));
    assert_eq!(fs::read_dir(place.cache.root().join("work")).unwrap().count(), 0);
}

#[test]
fn a_recipe_gets_the_files_of_an_image() {
    let place = Place::new();
    let reference = place.write(&layout());
    let tree = contents(&format!("{reference}:latest"), Arch::host()).unwrap();
    let names: Vec<_> = tree.walk().into_iter().map(|(path, _)| String::from_utf8(path).unwrap()).collect();
    assert_eq!(names, ["/etc", "/etc/passwd", "/new"]);
    assert_eq!(tree.get("/new").unwrap().mode(), 0o100_644);
    assert_eq!(&*tree.file(b"new").unwrap().bytes().unwrap(), b"content");
    let error = contents("/nonexistent/image", Arch::host()).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/image"), "{error}");
}

#[test]
fn archives_give_the_same_disk() {
    let place = Place::new();
    let layout = layout();
    let from_layout = prepare(&place.write(&layout), &place.cache).unwrap();
    for compress in [false, true] {
        let image = prepare(&place.write_archive(&layout, compress), &place.cache).unwrap();
        check(&image);
        assert_eq!(image.disk, from_layout.disk);
    }
}

#[test]
fn docker_archives_are_understood() {
    let place = Place::new();
    let layer = tar(&[("etc/passwd", "web:x:7:8::/srv:/bin/sh\n"), ("new", "content")]);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["/new"], "Cmd": ["arg"], "User": "web", "WorkingDir": "/srv", "StopSignal": "SIGQUIT"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", Digest::of(&layer))]},
    });
    let config = config.to_string().into_bytes();
    let config_name = format!("{}.json", Digest::of(&config));
    let manifest =
        serde_json::json!([{"Config": config_name, "RepoTags": ["web:1"], "Layers": ["abc/layer.tar"]}]);
    let mut files = BTreeMap::from([
        ("manifest.json".to_owned(), manifest.to_string().into_bytes()),
        (config_name.clone(), config),
        ("abc/layer.tar".to_owned(), layer),
    ]);
    let reference = place.write_archive(&files, false);
    check(&prepare(&reference, &place.cache).unwrap());
    check(
        &prepare(&format!("{reference}:web:1"), &place.cache)
            .unwrap_or_else(|_| prepare(&format!("{reference}:1"), &place.cache).unwrap()),
    );
    // As containerify writes it.
    let lower = manifest.to_string().replace("Config", "config").replace("RepoTags", "repoTags");
    files.insert("manifest.json".into(), lower.replace("Layers", "layers").into_bytes());
    check(&prepare(&place.write_archive(&files, false), &place.cache).unwrap());
    files.insert(config_name, b"{}".to_vec());
    let error = prepare(&place.write_archive(&files, false), &place.cache).unwrap_err();
    assert!(matches!(error, ImageError::Digest { .. }), "{error}");
}

#[test]
fn damage_is_noticed() {
    for name in layout().keys().filter(|name| name.starts_with("blobs/")) {
        let place = Place::new();
        let mut files = layout();
        // A change that keeps JSON valid and compressed streams broken or different.
        let bytes = files.get_mut(name).unwrap();
        let last = bytes.len() - 1;
        if bytes[last] == b'}' {
            bytes.push(b' ')
        } else {
            bytes[last] ^= 1
        };
        let error = prepare(&place.write(&files), &place.cache).unwrap_err();
        assert!(matches!(error, ImageError::Digest { .. } | ImageError::Layer { .. }), "{name}: {error}");
        assert!(place.cache.entries(KIND).is_empty());
    }
}

#[test]
fn an_unknown_tag_lists_the_known_ones() {
    let place = Place::new();
    let reference = place.write(&layout());
    let error = prepare(&format!("{reference}:v9"), &place.cache).unwrap_err().to_string();
    assert!(error.contains("v9") && error.contains("latest"), "{error}");
}

#[test]
fn a_plain_directory_becomes_a_disk_and_changes_are_noticed() {
    let place = Place::new();
    let root = place.dir.path().join("rootfs");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(root.join("bin/tool"), "tool").unwrap();
    fs::set_permissions(root.join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(root.join("bin/tool"), root.join("bin/also")).unwrap();
    symlink("/etc/hostname", root.join("link")).unwrap();
    let reference = root.display().to_string();
    let first = prepare(&reference, &place.cache).unwrap();
    assert_eq!(prepare(&reference, &place.cache).unwrap().disk, first.disk);
    fs::write(root.join("bin/tool"), "other").unwrap();
    assert_ne!(prepare(&reference, &place.cache).unwrap().disk, first.disk);
}

#[test]
fn a_file_that_is_no_archive_is_named() {
    let place = Place::new();
    let path = place.dir.path().join("notes.txt");
    fs::write(&path, "hello".repeat(400)).unwrap();
    let error = prepare(&path.display().to_string(), &place.cache).unwrap_err().to_string();
    assert!(error.contains("notes.txt"), "{error}");
}
