//! Who the process is and how it runs.

use serde_json::json;

use super::{Bundle, bundle};

pub(super) fn all() -> Vec<Bundle> {
    let mut list = basics();
    list.extend(identity());
    list.extend(attributes());
    list.extend(seccomp());
    list
}

fn basics() -> Vec<Bundle> {
    vec![
        bundle(
            "ordinary",
            &[
                "ociVersion", "root.path", "hostname", "process.args", "process.env", "process.terminal",
                "linux.cgroupsPath", "linux.maskedPaths", "linux.readonlyPaths", "linux.namespaces", "mounts",
            ],
        )
        .probe(&["--write", "/proc/sysrq-trigger", "--write", "/proc/sys/kernel/msgmax", "--read", "/proc/kcore"])
        .probe(&["--list", "/sys/firmware", "--open", "/dev/full", "--open", "/dev/kmsg", "--read", "/proc/keys"]),
        bundle("exit-status", &["process.args"]).probe(&["--exit", "7"]),
        bundle("arguments", &["process.args"]).probe(&["", "two words", "ünïcode", "a=b", "--", "\t"]),
        bundle("search-path", &["process.args", "process.env"])
            .with(json!({ "process": { "args": ["probe"], "env": ["PATH=/nowhere:/bin", "A= b ", "E=", "A=twice"] } })),
        bundle("no-env", &["process.env"]).with(json!({ "process": { "env": null } })),
        bundle("working-directory", &["process.cwd"]).with(json!({ "process": { "cwd": "/var/./made/here" } })),
        bundle("home-of-a-user", &["process.env", "process.user.uid"])
            .with(json!({ "process": { "user": { "uid": 33, "gid": 33 } } })),
        bundle("readonly-root", &["root.readonly"]).with(json!({ "root": { "readonly": true } })),
        bundle("annotations", &["annotations"]).with(json!({ "annotations": { "org.example.key": "value" } })),
        bundle("names", &["hostname", "domainname"])
            .with(json!({ "hostname": "a-name.example", "domainname": "example.org" })),
    ]
}

fn identity() -> Vec<Bundle> {
    let caps = ["CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_ADMIN"];
    vec![
        bundle("user", &["process.user.uid", "process.user.gid", "process.user.additionalGids"])
            .with(json!({ "process": { "user": { "uid": 1000, "gid": 100, "additionalGids": [10, 5, 65533] } } })),
        bundle("umask", &["process.user.umask"]).with(json!({ "process": { "user": { "umask": 0o077 } } })),
        bundle(
            "capabilities",
            &[
                "process.capabilities.bounding", "process.capabilities.effective", "process.capabilities.permitted",
                "process.capabilities.inheritable", "process.capabilities.ambient",
            ],
        )
        .with(json!({ "process": { "capabilities": {
            "bounding": caps, "effective": ["CAP_CHOWN"], "permitted": caps, "inheritable": caps,
            "ambient": ["CAP_NET_RAW"],
        } } })),
        bundle("capabilities-of-a-user", &["process.capabilities.ambient"]).with(json!({ "process": {
            "user": { "uid": 7, "gid": 7 },
            "capabilities": {
                "bounding": caps, "effective": caps, "permitted": caps, "inheritable": caps, "ambient": ["CAP_CHOWN"],
            },
        } })),
        bundle("no-capabilities", &["process.capabilities"]).with(json!({ "process": { "capabilities": null } })),
        bundle("new-privileges", &["process.noNewPrivileges"]).with(json!({ "process": { "noNewPrivileges": false } })),
        bundle("rlimits", &["process.rlimits"]).with(json!({ "process": { "rlimits": [
            { "type": "RLIMIT_NOFILE", "soft": 64, "hard": 2048 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_NPROC", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_MEMLOCK", "soft": 65536, "hard": 18446744073709551615u64 },
        ] } })),
        bundle("oom-score", &["process.oomScoreAdj"]).with(json!({ "process": { "oomScoreAdj": 321 } })),
        bundle("oom-score-below", &["process.oomScoreAdj"]).with(json!({ "process": { "oomScoreAdj": -500 } })),
    ]
}

fn attributes() -> Vec<Bundle> {
    vec![
        bundle("personality", &["linux.personality.domain"])
            .with(json!({ "linux": { "personality": { "domain": "LINUX32" } } })),
        bundle("scheduler-batch", &["process.scheduler.policy", "process.scheduler.nice"])
            .with(json!({ "process": { "scheduler": { "policy": "SCHED_BATCH", "nice": 5 } } })),
        bundle("scheduler-fifo", &["process.scheduler.policy", "process.scheduler.priority"])
            .with(json!({ "process": { "scheduler": { "policy": "SCHED_FIFO", "priority": 3 } } })),
        bundle(
            "scheduler-deadline",
            &["process.scheduler.runtime", "process.scheduler.deadline", "process.scheduler.period"],
        )
        .with(json!({ "process": { "scheduler": {
            "policy": "SCHED_DEADLINE", "runtime": 1000000, "deadline": 10000000, "period": 20000000,
        } } })),
        bundle("io-priority", &["process.ioPriority.class", "process.ioPriority.priority"])
            .with(json!({ "process": { "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 2 } } })),
    ]
}

fn seccomp() -> Vec<Bundle> {
    let profile = |default: &str, rules: serde_json::Value| {
        json!({ "linux": { "seccomp": {
            "defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules,
        } } })
    };
    let tried =
        ["--call", "fchmodat:0", "--call", "mkdirat:0", "--call", "personality:8", "--call", "socket:16"];
    vec![
        bundle("seccomp-errno", &["linux.seccomp.defaultAction", "linux.seccomp.syscalls.errnoRet"])
            .with(profile(
                "SCMP_ACT_ALLOW",
                json!([
                    { "names": ["fchmodat", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 75 },
                    { "names": ["no_such_call"], "action": "SCMP_ACT_ERRNO" },
                ]),
            ))
            .probe(&tried),
        bundle("seccomp-arguments", &["linux.seccomp.syscalls.args", "linux.seccomp.syscalls.args.op"])
            .with(profile(
                "SCMP_ACT_ALLOW",
                json!([
                    { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97, "args": [
                        { "index": 0, "value": 16, "op": "SCMP_CMP_EQ" },
                    ] },
                    { "names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71, "args": [
                        { "index": 1, "value": 0xff00, "valueTwo": 0x1200, "op": "SCMP_CMP_MASKED_EQ" },
                    ] },
                ]),
            ))
            .probe(&tried)
            .probe(&["--call", "socket:1", "--call", "lseek:4660", "--call", "lseek:8756"]),
        bundle("seccomp-with-privileges", &["linux.seccomp", "process.noNewPrivileges"])
            .with(profile("SCMP_ACT_ALLOW", json!([{ "names": ["mkdirat"], "action": "SCMP_ACT_ERRNO" }])))
            .with(json!({ "process": { "noNewPrivileges": false } }))
            .probe(&tried),
        bundle("seccomp-kill", &["linux.seccomp.defaultAction"])
            .with(profile(
                "SCMP_ACT_ALLOW",
                json!([{ "names": ["socket"], "action": "SCMP_ACT_KILL_PROCESS" }]),
            ))
            .probe(&tried),
        bundle("seccomp-flags", &["linux.seccomp.flags", "linux.seccomp.architectures"])
            .with(profile("SCMP_ACT_ALLOW", json!([{ "names": ["mkdirat"], "action": "SCMP_ACT_LOG" }])))
            .with(json!({ "linux": { "seccomp": {
                "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            } } }))
            .probe(&tried),
    ]
}
