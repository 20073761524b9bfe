//! A layer, a tar archive: whatever it is, a disk is made of it or it is refused.

#![no_main]

use fuzz::{Parts, prepare};

const CONFIGURATION: &[u8] =
    br#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:@0"]}}"#;
const MANIFEST: &[u8] = br#"{"schemaVersion": 2,
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:@1", "size": 1},
    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:@0", "size": 1}]}"#;
const INDEX: &[u8] = br#"{"schemaVersion": 2, "manifests": [
    {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:@2", "size": 1}]}"#;

libfuzzer_sys::fuzz_target!(|layer: &[u8]| {
    prepare(|directory| Parts::new(&[layer, CONFIGURATION, MANIFEST, INDEX]).layout(directory));
});
