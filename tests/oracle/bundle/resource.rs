//! Resources of the control group.

use serde_json::{Value, json};

use super::{Bundle, bundle};

pub(super) fn all() -> Vec<Bundle> {
    let with = |name: &'static str, properties: &[&'static str], resources: Value| {
        bundle(name, properties).with(json!({ "linux": { "resources": resources } }))
    };
    vec![
        with("cpu-shares", &["linux.resources.cpu.shares"], json!({ "cpu": { "shares": 512 } })),
        with(
            "cpu-quota",
            &["linux.resources.cpu.quota", "linux.resources.cpu.period"],
            json!({ "cpu": { "quota": 50000, "period": 200000 } }),
        ),
        with(
            "cpu-burst",
            &["linux.resources.cpu.burst"],
            json!({ "cpu": { "quota": 50000, "burst": 20000 } }),
        ),
        with("cpu-idle", &["linux.resources.cpu.idle"], json!({ "cpu": { "idle": 1 } })),
        with(
            "cpuset",
            &["linux.resources.cpu.cpus", "linux.resources.cpu.mems"],
            json!({ "cpu": { "cpus": "1", "mems": "0" } }),
        ),
        with(
            "memory",
            &[
                "linux.resources.memory.limit",
                "linux.resources.memory.reservation",
                "linux.resources.memory.swap",
            ],
            json!({ "memory": { "limit": 67108864, "reservation": 33554432, "swap": 100663296 } }),
        ),
        with(
            "memory-unlimited-swap",
            &["linux.resources.memory.swap"],
            json!({ "memory": { "limit": 67108864, "swap": -1 } }),
        ),
        with(
            "memory-checked",
            &["linux.resources.memory.checkBeforeUpdate"],
            json!({ "memory": { "limit": 67108864, "checkBeforeUpdate": true } }),
        ),
        with("pids", &["linux.resources.pids.limit"], json!({ "pids": { "limit": 33 } })),
        with("pids-unlimited", &["linux.resources.pids.limit"], json!({ "pids": { "limit": -1 } })),
        with(
            "hugepages",
            &["linux.resources.hugepageLimits"],
            json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4194304 }] }),
        ),
        with(
            "throttle",
            &[
                "linux.resources.blockIO.throttleReadBpsDevice",
                "linux.resources.blockIO.throttleWriteBpsDevice",
                "linux.resources.blockIO.throttleReadIOPSDevice",
                "linux.resources.blockIO.throttleWriteIOPSDevice",
            ],
            json!({ "blockIO": {
                "throttleReadBpsDevice": [{ "major": 254, "minor": 0, "rate": 1048576 }],
                "throttleWriteBpsDevice": [{ "major": 254, "minor": 0, "rate": 524288 }],
                "throttleReadIOPSDevice": [{ "major": 254, "minor": 0, "rate": 100 }],
                "throttleWriteIOPSDevice": [{ "major": 254, "minor": 0, "rate": 50 }],
            } }),
        ),
        with("io-weight", &["linux.resources.blockIO.weight"], json!({ "blockIO": { "weight": 500 } })),
        with(
            "unified",
            &["linux.resources.unified"],
            json!({ "unified": { "memory.high": "41943040", "pids.max": "44", "cgroup.max.depth": "3" } }),
        ),
        bundle("cgroup-path-relative", &["linux.cgroupsPath"])
            .with(json!({ "linux": { "cgroupsPath": "oracle/relative" } })),
        bundle("cgroup-path-deep", &["linux.cgroupsPath"])
            .with(json!({ "linux": { "cgroupsPath": "/oracle/a/b/c" } })),
    ]
}
