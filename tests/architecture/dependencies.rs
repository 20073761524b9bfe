//! Which crate may use which, by `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::source::workspace;

/// What each crate of ours may use of ours. Everything not listed is forbidden.
const OURS: [(&str, &[&str]); 19] = [
    ("agent", &["init", "mountinfo", "parcel", "pith-protocols", "rustjail", "sandbox-api"]),
    ("jail", &["mountinfo", "rustjail"]),
    ("fs-image", &[]),
    ("image-builder", &["fs-image", "pith", "pods", "products", "registry", "machine", "store"]),
    ("images", &["fs-image", "store"]),
    ("init", &["mountinfo"]),
    ("machine", &["pith-protocols", "store"]),
    ("mountinfo", &[]),
    ("parcel", &[]),
    ("pith", &["images", "machine", "parcel", "pods", "pith-protocols", "registry", "store"]),
    ("pods", &["fs-image", "images", "machine", "pith-protocols", "store"]),
    ("probe", &[]),
    ("products", &["fs-image", "images", "machine", "store"]),
    ("pith-protocols", &[]),
    ("registry", &["store"]),
    ("rustjail", &["mountinfo"]),
    ("sandbox-api", &[]),
    ("store", &[]),
    ("tests", &["fs-image", "images", "machine", "products", "pith-protocols", "store"]),
];

/// What must not be anywhere below a crate: it would drag a runtime or a wire format to where none belongs.
const NEVER_BELOW: [(&str, &[&str]); 5] = [
    ("rustjail", &["tokio", "ttrpc", "protobuf", "async-trait", "futures-util", "tracing"]),
    ("init", &["tokio", "ttrpc", "protobuf", "serde", "oci-spec"]),
    ("agent", &["clap", "openssl-sys", "prost", "zbus"]),
    ("pods", &["ureq", "rustls"]),
    ("tests", &["ureq", "rustls"]),
];

/// All that `init` may use directly: it runs before anything else does.
const INIT: [&str; 3] = ["mountinfo", "nix", "thiserror"];

/// Crates of the closure on the guest's platform. Dependencies for tests alone are left out.
struct Graph {
    names: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<String>>,
    members: BTreeMap<String, String>,
}

impl Graph {
    fn read() -> Self {
        let metadata = Command::new(env!("CARGO"))
            .current_dir(workspace())
            .args(["metadata", "--format-version", "1", "--locked", "--offline"])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .output()
            .unwrap();
        assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
        Self::from_metadata(&serde_json::from_slice(&metadata.stdout).unwrap())
    }

    fn from_metadata(metadata: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let names: BTreeMap<String, String> =
            list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
        let is_dev =
            |dependency: &Value| list(&dependency["dep_kinds"]).iter().all(|kind| kind["kind"] == "dev");
        let edges = list(&metadata["resolve"]["nodes"]).into_iter().map(|node| {
            let uses = list(&node["deps"]).into_iter().filter(|dependency| !is_dev(dependency));
            (text(&node["id"]), uses.map(|dependency| text(&dependency["pkg"])).collect())
        });
        let edges = edges.collect();
        let members = list(&metadata["workspace_members"])
            .iter()
            .map(|id| (names[&text(id)].clone(), text(id)))
            .collect();
        Self { names, edges, members }
    }

    /// The names of what `member` uses directly.
    fn direct(&self, member: &str) -> BTreeSet<&str> {
        self.edges[&self.members[member]].iter().map(|id| self.names[id].as_str()).collect()
    }

    /// The names of all that `member` is built of.
    fn closure(&self, member: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut next = vec![&self.members[member]];
        while let Some(id) = next.pop() {
            if seen.insert(id) {
                next.extend(&self.edges[id]);
            }
        }
        seen.into_iter().map(|id| self.names[id].as_str()).collect()
    }
}

#[test]
fn our_crates_depend_in_one_direction() {
    let graph = Graph::read();
    let members: BTreeSet<&str> = graph.members.keys().map(String::as_str).collect();
    assert_eq!(members, OURS.map(|(name, _)| name).into(), "a new crate needs a line in OURS");
    for (member, allowed) in OURS {
        let ours: BTreeSet<&str> = graph.direct(member).intersection(&members).copied().collect();
        let forbidden: Vec<_> = ours.iter().filter(|name| !allowed.contains(name)).collect();
        assert!(forbidden.is_empty(), "{member} may use {allowed:?} of ours, and uses {forbidden:?} as well");
    }
}

#[test]
fn heavy_crates_stay_where_they_belong() {
    let graph = Graph::read();
    for (member, never) in NEVER_BELOW {
        let closure = graph.closure(member);
        let found: Vec<_> = never.iter().filter(|name| closure.contains(*name)).collect();
        assert!(found.is_empty(), "{member} is built of {found:?}, directly or not");
    }
}

/// The lines of comment right above the line that begins with `name`.
fn reason<'a>(manifest: &'a str, name: &str) -> Vec<&'a str> {
    let lines: Vec<&str> = manifest.lines().collect();
    let Some(at) = lines.iter().position(|line| line.starts_with(name)) else { return Vec::new() };
    lines[..at].iter().rev().take_while(|line| line.starts_with('#')).copied().collect()
}

#[test]
fn nix_and_rustix_stand_in_one_crate_only_for_a_reason() {
    let graph = Graph::read();
    let mut both = Vec::new();
    for (member, id) in &graph.members {
        let direct = graph.direct(member);
        if direct.contains("nix") && direct.contains("rustix") {
            // An id is a URL with a fragment: `path+file:///…/agent/jail#jail@0.2.0`.
            let path = id.trim_start_matches("path+file://").split('#').next().unwrap();
            let manifest = std::fs::read_to_string(format!("{path}/Cargo.toml")).unwrap();
            let is_reason = |line: &&str| line.starts_with("# nix besides rustix: ");
            assert!(
                reason(&manifest, "nix").iter().any(is_reason),
                "{path}/Cargo.toml says not why it has both"
            );
            both.push(member.as_str());
        }
    }
    assert_eq!(both, ["agent", "images", "jail", "pods", "tests"], "use the one that the crate has already");
    let manifest = "[dependencies]\na = 1\n# nix besides rustix: x\n# y\nnix = 1\nrustix = 1\n";
    assert_eq!(reason(manifest, "nix"), ["# y", "# nix besides rustix: x"]);
    assert!(reason(manifest, "rustix").is_empty());
}

#[test]
fn init_stays_small() {
    let graph = Graph::read();
    let extra: Vec<&str> = graph.direct("init").into_iter().filter(|name| !INIT.contains(name)).collect();
    assert!(extra.is_empty(), "init may use {INIT:?}, and uses {extra:?} as well");
}
