//! Bundles that cannot be run, of which nothing may be left.

use serde_json::json;

use super::{Bundle, bundle};

pub(super) fn all() -> Vec<Bundle> {
    let process = |name: &'static str, patch: serde_json::Value| {
        bundle(name, &["process"]).with(json!({ "process": patch })).refused()
    };
    vec![
        process("missing-program", json!({ "args": ["/no/such/program"] })),
        process("program-that-is-no-program", json!({ "args": ["/etc/passwd"] })),
        process("program-not-in-path", json!({ "args": ["no-such-program"] })),
        process("no-arguments", json!({ "args": [] })),
        process("relative-cwd", json!({ "cwd": "relative" })),
        process("cwd-that-is-a-file", json!({ "cwd": "/etc/passwd" })),
        process(
            "soft-limit-above-hard",
            json!({ "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 9, "hard": 3 }] }),
        ),
        process("oom-score-out-of-range", json!({ "oomScoreAdj": 2000 })),
        bundle("missing-root", &["root.path"]).with(json!({ "root": { "path": "/no/such/root" } })).refused(),
        bundle("missing-source", &["mounts.source"])
            .mount("/x", "bind", "/no/such/source", &["bind"])
            .refused(),
        bundle("unknown-file-system", &["mounts.type"]).mount("/x", "nosuchfs", "x", &[]).refused(),
        bundle("unknown-option", &["mounts.options"])
            .mount("/x", "tmpfs", "x", &["nosuchoption=1"])
            .refused(),
        bundle("namespace-path-missing", &["linux.namespaces.path"])
            .namespace("network", Some("/run/ns/no-such"))
            .refused(),
        bundle("namespace-of-another-kind", &["linux.namespaces.path"])
            .namespace("network", Some("/run/ns/uts"))
            .refused(),
        bundle("namespace-twice", &["linux.namespaces"])
            .push("/linux/namespaces", json!({ "type": "pid" }))
            .refused(),
        bundle("sysctl-of-nobody", &["linux.sysctl"])
            .with(json!({ "linux": { "sysctl": { "vm.swappiness": "1" } } }))
            .refused(),
        bundle("unknown-propagation", &["linux.rootfsPropagation"])
            .with(json!({ "linux": { "rootfsPropagation": "sideways" } }))
            .refused(),
        bundle("time-offset-without-a-namespace", &["linux.timeOffsets"])
            .with(json!({ "linux": { "timeOffsets": { "monotonic": { "secs": 5 } } } }))
            .refused(),
        bundle("apparmor-without-apparmor", &["process.apparmorProfile"])
            .with(json!({ "process": { "apparmorProfile": "strict" } }))
            .refused(),
        bundle("selinux-without-selinux", &["process.selinuxLabel"])
            .with(json!({ "process": { "selinuxLabel": "system_u:system_r:svirt_lxc_net_t:s0" } }))
            .refused(),
        bundle("cache-allocation-without-it", &["linux.intelRdt"])
            .with(json!({ "linux": { "intelRdt": { "closID": "x", "l3CacheSchema": "L3:0=f" } } }))
            .refused(),
        bundle("memory-limit-that-is-none", &["linux.resources.memory.limit"])
            .with(json!({ "linux": { "resources": { "memory": { "limit": -7 } } } }))
            .refused(),
        bundle("cpus-that-are-not-there", &["linux.resources.cpu.cpus"])
            .with(json!({ "linux": { "resources": { "cpu": { "cpus": "99" } } } }))
            .refused(),
        bundle("unified-key-of-nobody", &["linux.resources.unified"])
            .with(json!({ "linux": { "resources": { "unified": { "no.such.key": "1" } } } }))
            .refused(),
    ]
}
