//! `linux.seccomp`, as JSON: whatever it is, a sound program comes of it or a refusal.

#![no_main]

use serde_json::{Value, json};

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let Ok(profile) = serde_json::from_slice::<Value>(text) else { return };
    let config = json!({
        "root": { "path": "/run/c1/rootfs" },
        "process": { "user": {}, "args": ["/bin/true"], "cwd": "/" },
        "linux": { "seccomp": profile },
    });
    rustjail::outcome::judge(config.to_string().as_bytes());
});
