#!/usr/bin/env bash
# oci-spec 0.10.0 (the Rust crate with the types of the OCI specifications, feature runtime)
#
# One would guess that a config.json from a newer world is read as far as it is known, since the crate skips properties that it
# does not know. For capabilities it is the other way round: they are an enumeration, and one name that is not in it makes the
# whole document unreadable. The runtime specification says that a capability that cannot be granted should not fail the
# container, and asks for a warning in the log.
#
# It matters to runtimes, shims and hooks that parse config.json with this crate: a new capability of the kernel, which an
# engine adds to privileged containers by itself, stops all of them, also those that never look at capabilities. The spec has to
# be parsed as plain JSON first.
#
# Output seen:
#   plain: read
#   unknown property: read
#   unknown capability: no variant for CAP_FROM_THE_FUTURE (converted to FROM_THE_FUTURE)
#
# Needs a Rust toolchain (seen with 1.95). Exit status 1 if this changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src

cat >Cargo.toml <<'TOML'
[package]
name = "capability"
version = "0.1.0"
edition = "2021"

[dependencies]
oci-spec = { version = "=0.10.0", default-features = false, features = ["runtime"] }
serde_json = "=1.0.154"

[workspace]
TOML
cat >src/main.rs <<'RUST'
use oci_spec::runtime::Spec;
use serde_json::json;

fn main() {
    let plain = json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "cwd": "/",
            "args": ["/bin/true"],
            "capabilities": { "bounding": ["CAP_KILL"] },
        },
    });
    let mut property = plain.clone();
    property["process"]["fromTheFuture"] = json!(true);
    let mut capability = plain.clone();
    capability["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_FROM_THE_FUTURE"]);
    for (name, spec) in [("plain", plain), ("unknown property", property), ("unknown capability", capability)] {
        match serde_json::from_value::<Spec>(spec) {
            Ok(_) => println!("{name}: read"),
            Err(error) => println!("{name}: {error}"),
        }
    }
}
RUST
CARGO_TARGET_DIR=$folder/target cargo build --quiet
target/debug/capability | tee seen
diff - seen <<'SEEN'
plain: read
unknown property: read
unknown capability: no variant for CAP_FROM_THE_FUTURE (converted to FROM_THE_FUTURE)
SEEN
