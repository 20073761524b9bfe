//! Specs that real engines wrote: `engine/*.json`, each with the engine's version, its Debian release and the command.
//!
//! `engine/collect.sh` makes them anew, out of Debian's packages. Seccomp profiles are kept once, in `engine/seccomp`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::bundle::Bundle;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The engine and its version.
    engine: String,
    /// Debian's name of the release that it is of.
    system: String,
    /// What was asked of it.
    command: String,
    spec: Value,
}

/// Places that the guest has itself; what else is bound is made for the bundle.
const OF_THE_GUEST: [&str; 3] = ["/sys", "/dev", "/proc"];

/// What the probe looks at beside all that it reports anyway.
const TRIED: [&str; 22] = [
    "--mode",
    "/private",
    "--mode",
    "/fresh",
    "--mode",
    "/data",
    "--read",
    "/proc/sys/net/ipv4/ip_forward",
    "--read",
    "/proc/sys/kernel/shmmax",
    "--call",
    "number:452",
    "--call",
    "number:999",
    "--call",
    "clone3",
    "--create",
    "/made-here",
    "--create",
    "/tmp/made-here",
    "--open",
    "/dev/full",
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/engine")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All of them, by name.
pub(crate) fn all() -> Vec<Bundle> {
    let entries = std::fs::read_dir(directory()).expect("the specs of engines");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    paths.iter().map(|path| bundle(path)).collect()
}

fn bundle(path: &Path) -> Bundle {
    let File { engine, system, command, mut spec } =
        serde_json::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(!engine.is_empty() && !system.is_empty() && !command.is_empty(), "{}", path.display());
    if let Some(name) = spec["linux"]["seccomp"].as_str() {
        let profile = read(&directory().join("seccomp").join(format!("{name}.json")));
        spec["linux"]["seccomp"] = serde_json::from_str(&profile).expect("a profile");
    }
    let mut prepare = "mkdir -p private data var/www; chmod 0700 private; chmod 0755 data\n".to_owned();
    for mount in spec["mounts"].as_array().into_iter().flatten() {
        prepare += &source(mount);
    }
    if let Some(first) = spec["linux"]["uidMappings"][0]["hostID"].as_u64() {
        let group = spec["linux"]["gidMappings"][0]["hostID"].as_u64().unwrap_or(first);
        prepare += &format!("chown -R {first}:{group} .\n");
    }
    // Debian 12's crun runs nothing that says it is of a later version.
    spec["ociVersion"] = json!("1.0.2");
    // Where everything of a run is.
    spec["root"]["path"] = json!("rootfs");
    spec["linux"]["cgroupsPath"] = json!("/oracle/box");
    let args = spec["process"]["args"].as_array_mut().expect("a program");
    args.extend(TRIED.map(|word| json!(word)));
    let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
    Bundle {
        name: name.leak(),
        properties: Vec::new(),
        spec,
        prepare,
        after: String::new(),
        is_refused: false,
    }
}

/// Makes what an engine had on its machine for a mount to bind.
fn source(mount: &Value) -> String {
    let (source, place) = (mount["source"].as_str().unwrap_or_default(), mount["destination"].as_str());
    let is_bind = mount["type"] == "bind"
        || mount["options"].as_array().into_iter().flatten().any(|word| word == "bind" || word == "rbind");
    if !is_bind || OF_THE_GUEST.iter().any(|own| Path::new(source).starts_with(own)) {
        return String::new();
    }
    let place = place.unwrap_or_default();
    if ["/dev/shm", "/run/secrets", "/var/log"].contains(&place) {
        return format!("mkdir -p {source}; chmod 1777 {source}\n");
    }
    let content = match place {
        // An init for one process: it starts what comes behind the dashes.
        "/sbin/docker-init" | "/run/podman-init" | "/dev/init" => {
            "#!/bin/sh\\nwhile [ \"$1\" != -- ]; do shift; done; shift; exec \"$@\"\\n"
        }
        _ => "of the engine\\n",
    };
    format!("mkdir -p {}; printf '{content}' > {source}; chmod 755 {source}\n", parent(source))
}

fn parent(path: &str) -> String {
    Path::new(path).parent().unwrap_or_else(|| Path::new("/")).display().to_string()
}

#[test]
fn there_are_forty_specs_of_four_kinds_of_engines_and_no_profile_too_many() {
    let bundles = all();
    assert!(bundles.len() >= 40, "{}", bundles.len());
    for engine in ["containerd-1.6", "containerd-1.7", "docker", "podman"] {
        assert!(bundles.iter().any(|bundle| bundle.name.starts_with(engine)), "{engine}");
    }
    let text: String = std::fs::read_dir(directory())
        .expect("specs")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .map(|path| read(&path))
        .collect();
    for profile in std::fs::read_dir(directory().join("seccomp")).expect("profiles") {
        let name = profile.expect("a profile").path();
        let name = name.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(text.contains(&format!("\"seccomp\":\"{name}\"")), "nobody uses {name}");
    }
}
