//! The words of a mount's options, one a line; the first line is the type, the second the source.

#![no_main]

use serde_json::json;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let [typ, source] = [(); 2].map(|()| lines.next());
    let mount = json!({
        "destination": "/mnt",
        "type": typ,
        "source": source,
        "options": lines.collect::<Vec<_>>(),
    });
    let config = json!({
        "root": { "path": "/run/c1/rootfs" },
        "process": { "user": {}, "args": ["/bin/true"], "cwd": "/" },
        "mounts": [mount],
    });
    rustjail::outcome::judge(config.to_string().as_bytes());
});
