//! How much memory an image takes that is packed: that of its entries, and nothing for their content.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use store::cache::Cache;
use store::digest::Digest;

const MIB: u64 = 1 << 20;
/// What an image of 2 GiB may take. It has the same entries as the one here, and eight times its content.
const MOST: u64 = 64 * MIB;
/// Files of a kilobyte in each image, about as many as a distribution with compilers has.
const SMALL: u32 = 20_000;

/// Writes an OCI layout with one layer, which has `large` bytes in four files. They are holes.
fn layout(directory: &Path, large: u64) {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let layer = directory.join("layer");
    let mut file = File::create(&layer).unwrap();
    let mut end = 0;
    for number in 0..4 {
        let mut header = ::tar::Header::new_gnu();
        header.set_path(format!("large/{number}")).unwrap();
        header.set_mode(0o644);
        header.set_size(large / 4);
        header.set_cksum();
        file.write_all(header.as_bytes()).unwrap();
        end += 512 + large / 4;
        file.set_len(end).unwrap();
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
    }
    let mut archive = ::tar::Builder::new(std::io::BufWriter::new(file));
    for number in 0..SMALL {
        let mut header = ::tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(1000);
        archive.append_data(&mut header, format!("small/{}/{number}", number % 100), &[7; 1000][..]).unwrap();
    }
    archive.into_inner().unwrap().flush().unwrap();
    let blob = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.to_string()), bytes).unwrap();
        json!({"mediaType": "application/octet-stream", "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let (digest, size) = Digest::of_file(&layer).unwrap();
    std::fs::rename(&layer, blobs.join(digest.to_string())).unwrap();
    let digest = format!("sha256:{digest}");
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    });
    let mut config = blob(config.to_string().as_bytes());
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let layer =
        json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size});
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let mut manifest = blob(manifest.to_string().as_bytes());
    manifest["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// The most bytes that a process had which packed such an image.
fn most(large: u64) -> u64 {
    let work = tempfile::tempdir().unwrap();
    layout(&work.path().join("image"), large);
    let this = "image::memory::packs_for_the_test_that_measures";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this, "--ignored", "--nocapture", "--test-threads=1"])
        .env("PACK_IN", work.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    let line =
        said.lines().find(|line| line.contains("VmHWM:")).unwrap_or_else(|| panic!("no figure in {said}"));
    let kib: u64 = line.split_whitespace().rev().nth(1).unwrap().parse().unwrap();
    kib << 10
}

#[test]
#[ignore = "the test below runs it, in a process of its own"]
fn packs_for_the_test_that_measures() {
    let work = std::env::var_os("PACK_IN").expect("PACK_IN names a directory with an image");
    let work = Path::new(&work);
    let image = work.join("image").display().to_string();
    super::pack(&image, &work.join("disk"), &Cache::new(work.join("cache"))).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("\n{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap());
}

#[test]
fn content_takes_no_memory() {
    let (little, much) = (most(16 * MIB), most(256 * MIB));
    println!("at the most {} KiB with 16 MiB of content, {} KiB with 256 MiB", little >> 10, much >> 10);
    assert!(much < MOST / 2, "{much} bytes");
    // Nothing grows with it: eight times the content would take as little.
    assert!(much < little + 4 * MIB, "{little} bytes, then {much}");
}
