//! Several words, limits or rules in one bundle each, where every one has a place of its own in the report.

use serde_json::{Value, json};

use super::{Bundle, bundle};

/// A volume of the guest, with a file and a mount below.
const VOLUME: &str = "/run/volume";

pub(super) fn all() -> Vec<Bundle> {
    let mut list = words();
    list.extend(places());
    list.extend(rules());
    list.extend(limits());
    list.extend(filters());
    list.push(hooks());
    list
}

/// A bundle with one mount per word, below `/words`.
fn each(name: &'static str, kind: &str, source: &str, base: &[&str], words: &[&str]) -> Bundle {
    let all = bundle(name, &["mounts.options"]);
    words.iter().fold(all, |bundle, word| {
        let options: Vec<&str> = base.iter().copied().chain(word.split('+')).collect();
        bundle.mount(&format!("/words/{word}"), kind, source, &options)
    })
}

fn words() -> Vec<Bundle> {
    vec![
        each(
            "words-of-a-tmpfs",
            "tmpfs",
            "tmpfs",
            &["size=64k"],
            &[
                "ro",
                "rw",
                "suid",
                "dev",
                "exec",
                "sync",
                "async",
                "dirsync",
                "atime",
                "noatime",
                "relatime",
                "norelatime",
                "strictatime",
                "nostrictatime",
                "nodiratime+noatime",
                "lazytime",
                "nolazytime",
                "ro+rw",
                "nosuid+suid",
                "mode=0",
                "nr_inodes=9",
                "uid=3+gid=4+mode=640",
            ],
        ),
        each(
            "words-of-a-bind",
            "bind",
            VOLUME,
            &["bind"],
            &[
                "ro",
                "rw",
                "nosuid",
                "nodev",
                "noexec",
                "noatime",
                "strictatime",
                "relatime",
                "ro+rw",
                "noexec+exec",
            ],
        ),
        each(
            "words-of-propagation",
            "bind",
            VOLUME,
            &["rbind"],
            &["slave", "shared", "rprivate", "rslave", "runbindable"],
        ),
    ]
}

fn places() -> Vec<Bundle> {
    vec![
        bundle("readonly-root-gets-its-places", &["root.readonly", "mounts.destination"])
            .with(json!({ "root": { "readonly": true } }))
            .mount("/made/here", "tmpfs", "tmpfs", &["size=64k"])
            .mount("/made/file", "bind", "/run/volume/file", &["bind", "ro"])
            .probe(&["--create", "/made/here/x", "--create", "/made/x", "--write", "/made/file"])
            .after("find rootfs/made | sort; stat -c '%a %u %g %F' rootfs/made/here rootfs/made/file"),
        bundle("file-through-a-link", &["mounts.destination"])
            .prepare("ln -s ../outside etc/resolv.conf")
            .mount("/etc/resolv.conf", "bind", "/run/volume/file", &["bind", "ro"])
            .probe(&["--read", "/etc/resolv.conf", "--list", "/etc"])
            .after("ls -d rootfs/outside; readlink rootfs/etc/resolv.conf; ls -d outside"),
        bundle("masks-and-mounts", &["linux.maskedPaths", "linux.readonlyPaths"])
            .mount("/a", "tmpfs", "tmpfs", &["size=64k"])
            .mount("/a/below", "bind", VOLUME, &["rbind"])
            .with(json!({ "linux": { "readonlyPaths": ["/a"], "maskedPaths": ["/a/below/file"] } }))
            .probe(&["--create", "/a/x", "--create", "/a/below/x", "--create", "/a/below/below/x"])
            .probe(&["--read", "/a/below/file"]),
        bundle("mask-through-a-link", &["linux.maskedPaths", "linux.readonlyPaths"])
            .prepare("mkdir -p secret kept; echo x > secret/file; ln -s secret/file link; ln -s /kept away")
            .with(json!({ "linux": { "maskedPaths": ["/link"], "readonlyPaths": ["/away"] } }))
            .probe(&["--read", "/secret/file", "--create", "/kept/new"]),
    ]
}

/// Tries a node that only the rules can open, one of a block device, default ones, and to make nodes.
fn ruled(name: &'static str, rules: Value) -> Bundle {
    let caps = ["CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYSLOG"];
    bundle(name, &["linux.resources.devices"])
        .with(json!({
            "process": { "capabilities": { "bounding": caps, "effective": caps, "permitted": caps } },
            "linux": {
                "devices": [
                    { "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 },
                    { "path": "/dev/loop7", "type": "b", "major": 7, "minor": 7, "fileMode": 0o666 },
                ],
                "resources": { "devices": rules },
            },
        }))
        .probe(&[
            "--open",
            "/dev/kmsg",
            "--write",
            "/dev/kmsg",
            "--open",
            "/dev/loop7",
            "--open",
            "/dev/zero",
        ])
        // 1:11, 1:1 and 10:237.
        .probe(&["--call", "mknodat:267", "--call", "mknodat:257", "--call", "mknodat:2797"])
}

fn rules() -> Vec<Bundle> {
    let kmsg = |allow: bool, access: &str| json!({ "allow": allow, "type": "c", "major": 1, "minor": 11, "access": access });
    vec![
        ruled(
            "device-rule-with-wildcards",
            json!([
                { "allow": false, "type": "a", "access": "rwm" },
                { "allow": true, "type": "c", "major": -1, "minor": -1, "access": "m" },
                { "allow": true, "type": "b", "major": 7, "minor": -1, "access": "r" },
            ]),
        ),
        ruled(
            "device-rule-that-takes-back",
            json!([{ "allow": false, "access": "rwm" }, kmsg(true, "rwm"), kmsg(false, "w")]),
        ),
        ruled("device-rule-for-all-but-one", json!([{ "allow": true, "access": "rwm" }, kmsg(false, "rw")])),
    ]
}

fn limits() -> Vec<Bundle> {
    let with = |name: &'static str, properties: &[&'static str], resources: Value| {
        bundle(name, properties).with(json!({ "linux": { "resources": resources } }))
    };
    vec![
        bundle("rlimits-of-every-kind", &["process.rlimits"]).with(json!({ "process": { "rlimits": [
            { "type": "RLIMIT_CPU", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_FSIZE", "soft": 1_000_000, "hard": 2_000_000 },
            { "type": "RLIMIT_DATA", "soft": 100_000_000, "hard": 200_000_000 },
            { "type": "RLIMIT_STACK", "soft": 4_194_304, "hard": 8_388_608 },
            { "type": "RLIMIT_RSS", "soft": 5, "hard": 6 },
            { "type": "RLIMIT_LOCKS", "soft": 7, "hard": 8 },
            { "type": "RLIMIT_SIGPENDING", "soft": 90, "hard": 91 },
            { "type": "RLIMIT_MSGQUEUE", "soft": 0, "hard": 4096 },
            { "type": "RLIMIT_NICE", "soft": 1, "hard": 2 },
            { "type": "RLIMIT_RTPRIO", "soft": 3, "hard": 4 },
            { "type": "RLIMIT_RTTIME", "soft": 50_000, "hard": 60_000 },
            { "type": "RLIMIT_NOFILE", "soft": 1000, "hard": 1000 },
        ] } })),
        with(
            "resources-together",
            &[
                "linux.resources.cpu.shares",
                "linux.resources.cpu.quota",
                "linux.resources.cpu.period",
                "linux.resources.memory.limit",
                "linux.resources.memory.swap",
                "linux.resources.pids.limit",
            ],
            json!({
                "cpu": { "shares": 262_144, "quota": 150_000, "period": 50_000, "cpus": "0-1", "mems": "0" },
                "memory": { "limit": 134_217_729, "swap": 134_217_729, "reservation": 67_108_865 },
                "pids": { "limit": 64 },
                "unified": { "memory.oom.group": "1", "pids.max": "48" },
            }),
        ),
        with(
            "resources-at-their-least",
            &["linux.resources.cpu.shares", "linux.resources.memory.limit"],
            json!({ "cpu": { "shares": 2, "quota": -1 }, "memory": { "limit": -1 } }),
        ),
        with(
            "io-weight-of-a-device",
            &["linux.resources.blockIO.weightDevice"],
            json!({ "blockIO": { "weightDevice": [{ "major": 254, "minor": 0, "weight": 300 }] } }),
        )
        // A virtio disk has no scheduler that weighs.
        .refused(),
        with(
            "swap-below-the-limit",
            &["linux.resources.memory.swap"],
            json!({ "memory": { "limit": 67_108_864, "swap": 33_554_432 } }),
        )
        .refused(),
    ]
}

fn filters() -> Vec<Bundle> {
    let filtered = |name: &'static str, rules: Value| {
        bundle(name, &["linux.seccomp.syscalls.action"])
            .with(json!({ "linux": { "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules,
            } } }))
            .probe(&["--call", "mount", "--call", "lseek:5", "--call", "lseek:20", "--call", "lseek:100"])
            .probe(&["--call", "lseek:3000", "--call", "lseek:3001", "--call", "lseek:4000"])
    };
    let mount = |action: &str| json!([{ "names": ["mount"], "action": action }]);
    let operators = [("LT", 10, 61), ("EQ", 20, 62), ("GT", 3000, 63)].map(|(op, value, errno)| {
        json!({
            "names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
            "args": [{ "index": 1, "value": value, "op": format!("SCMP_CMP_{op}") }],
        })
    });
    vec![
        filtered("seccomp-operators", json!(operators)),
        filtered("seccomp-kills-a-thread", mount("SCMP_ACT_KILL_THREAD")),
        filtered("seccomp-signals", mount("SCMP_ACT_TRAP")),
        filtered("seccomp-asks-a-tracer", mount("SCMP_ACT_TRACE")),
    ]
}

/// In the order in which the runtime spec has them run, where they run, and what they are told.
fn hooks() -> Bundle {
    let hook = |point: &str| {
        let script = format!(
            "busybox mkdir -p /run; told=$(busybox tr -d ' ' | busybox grep -o -E '\"(id|org.example.key)\":\"[^\"]*\"' | busybox sort); \
             echo {point} $told $(busybox hostname) $(test -d /oracle && echo outside || echo inside) >> /run/hooks"
        );
        json!([{ "path": "/bin/busybox", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": 30 }])
    };
    let points = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let all: serde_json::Map<String, Value> =
        points.iter().map(|point| ((*point).to_owned(), hook(point))).collect();
    bundle(
        "hooks-in-their-order",
        &[
            "hooks.prestart",
            "hooks.createRuntime",
            "hooks.createContainer",
            "hooks.startContainer",
            "hooks.poststart",
            "hooks.poststop",
        ],
    )
    .with(json!({ "hooks": all, "annotations": { "org.example.key": "value" } }))
    // That of startContainer writes inside of the root.
    .after("cat /run/hooks; echo; cat rootfs/run/hooks")
}
