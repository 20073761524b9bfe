//! Namespaces, and what belongs to them.

use serde_json::{Value, json};

use super::{Bundle, bundle};

pub(super) fn all() -> Vec<Bundle> {
    let mut list = kinds();
    list.extend(users());
    list.extend(hooks());
    list
}

fn kinds() -> Vec<Bundle> {
    vec![
        bundle("network-of-the-guest", &["linux.namespaces.network"]).without_namespace("network"),
        bundle("ipc-of-the-guest", &["linux.namespaces.ipc"]).without_namespace("ipc"),
        bundle("pid-of-the-guest", &["linux.namespaces.pid"]).without_namespace("pid"),
        bundle("uts-of-the-guest", &["linux.namespaces.uts"])
            .without_namespace("uts")
            .with(json!({ "hostname": null })),
        bundle("cgroup-of-the-guest", &["linux.namespaces.cgroup"]).without_namespace("cgroup"),
        bundle("namespaces-by-path", &["linux.namespaces.path"])
            .namespace("network", Some("/run/ns/net"))
            .namespace("ipc", Some("/run/ns/ipc"))
            .namespace("uts", Some("/run/ns/uts"))
            .with(json!({ "hostname": null })),
        bundle("sysctls", &["linux.sysctl"])
            .with(json!({ "linux": { "sysctl": {
                "net.ipv4.ip_forward": "1", "kernel.shmmax": "1048576", "fs.mqueue.msg_max": "7",
            } } }))
            .probe(&["--read", "/proc/sys/net/ipv4/ip_forward", "--read", "/proc/sys/kernel/shmmax"])
            .probe(&["--read", "/proc/sys/fs/mqueue/msg_max"]),
        bundle("time", &["linux.namespaces.time", "linux.timeOffsets"]).namespace("time", None).with(
            json!({ "linux": { "timeOffsets": {
                "monotonic": { "secs": 1000 }, "boottime": { "secs": 5000, "nanosecs": 7 },
            } } }),
        ),
    ]
}

fn mappings() -> Value {
    json!({ "linux": {
        "uidMappings": [{ "containerID": 0, "hostID": 100000, "size": 65536 }],
        "gidMappings": [{ "containerID": 0, "hostID": 200000, "size": 65536 }],
    } })
}

fn users() -> Vec<Bundle> {
    let user = |name: &'static str| {
        bundle(name, &["linux.namespaces.user", "linux.uidMappings", "linux.gidMappings"])
            .namespace("user", None)
            .with(mappings())
            .prepare("chown -R 100000:200000 .")
    };
    vec![
        user("user-namespace"),
        user("user-of-it")
            .with(json!({ "process": { "user": { "uid": 33, "gid": 44, "additionalGids": [55] } } })),
        user("user-with-raised-limits").with(json!({ "process": {
            "oomScoreAdj": -10, "rlimits": [{ "type": "RLIMIT_MEMLOCK", "soft": 9000000, "hard": 18446744073709551615u64 }],
        } })),
        user("user-and-bind")
            .mount("/volume", "bind", "/run/volume", &["bind", "ro"])
            .probe(&["--list", "/volume"]),
        user("user-and-network-of-the-guest").without_namespace("network"),
        user("user-and-ipc-of-the-guest").without_namespace("ipc"),
        user("user-and-pid-of-the-guest").without_namespace("pid"),
        user("user-and-namespaces-by-path")
            .namespace("network", Some("/run/ns/net"))
            .namespace("ipc", Some("/run/ns/ipc"))
            .namespace("uts", Some("/run/ns/uts"))
            .with(json!({ "hostname": null })),
        bundle("user-by-path", &["linux.namespaces.user"])
            .namespace("user", Some("/run/ns/user"))
            .prepare("chown -R 100000:200000 ."),
    ]
}

/// A hook that writes down what it is told, without what differs from run to run.
fn hook(point: &str, more: &str) -> Value {
    let script = format!(
        "echo {point} args=$0 env=$NAME >> /run/hooks; sed 's/\"pid\":[0-9]*/\"pid\":0/; s/\"id\":\"[^\"]*\"/\"id\":\"x\"/' \
         >> /run/hooks; echo >> /run/hooks; {more}"
    );
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script, "zero"], "env": ["NAME=value", "PATH=/bin"], "timeout": 20 })
}

/// What hooks were told, by point, with the keys in order: runtimes differ in theirs.
const TOLD: &str = "for word in status bundle; do grep -o \"\\\"$word\\\": *\\\"[^\\\"]*\\\"\" /run/hooks | tr -d ' '; done; \
    grep args= /run/hooks";

fn hooks() -> Vec<Bundle> {
    let with = |name: &'static str, point: &'static str, list: Value| {
        let mut hooks = serde_json::Map::new();
        hooks.insert(point.to_owned(), list);
        bundle(name, &["hooks"]).with(json!({ "hooks": hooks })).after(TOLD)
    };
    vec![
        with("hook-prestart", "prestart", json!([hook("prestart", ""), hook("again", "")])),
        with("hook-create-runtime", "createRuntime", json!([hook("createRuntime", "test -d /oracle")])),
        with("hook-create-container", "createContainer", json!([hook("createContainer", "test -d /oracle")])),
        with("hook-start-container", "startContainer", json!([{
            "path": "/bin/busybox", "args": ["sh", "-c", "test ! -d /oracle && cat > /told; echo $NAME >> /told"],
            "env": ["NAME=value"],
        }]))
        .after("sed 's/\"pid\":[0-9]*/\"pid\":0/; s/\"id\":\"[^\"]*\"//' rootfs/told | grep -o -e '\"status\": *\"[a-z]*\"' -e '^value'"),
        with("hook-poststart", "poststart", json!([hook("poststart", "")])),
        with("hook-poststop", "poststop", json!([hook("poststop", "")])),
        with("hook-poststop-that-fails", "poststop", json!([hook("poststop", "exit 3")])),
        with("hook-prestart-that-fails", "prestart", json!([hook("prestart", "exit 3")])).refused(),
        with("hook-create-runtime-that-fails", "createRuntime", json!([hook("createRuntime", "exit 3")])).refused(),
        with("hook-create-container-that-fails", "createContainer", json!([hook("createContainer", "exit 3")])).refused(),
        with("hook-start-container-that-fails", "startContainer", json!([{ "path": "/bin/false" }])).refused(),
        with("hook-that-is-missing", "createRuntime", json!([{ "path": "/no/such/hook" }])).refused(),
        with("hook-that-takes-too-long", "createRuntime", json!([{
            "path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1,
        }]))
        .refused(),
    ]
}
