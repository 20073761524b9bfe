//! What is mounted where, and how.

use serde_json::json;

use super::{Bundle, bundle};

const ADMIN: [&str; 3] = ["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_DAC_OVERRIDE"];

pub(super) fn all() -> Vec<Bundle> {
    let mut list = binds();
    list.extend(file_systems());
    list.extend(propagation());
    list.extend(devices());
    list
}

/// A volume of the guest at /run/volume, with a file and a mount below.
const VOLUME: &str = "/run/volume";

fn binds() -> Vec<Bundle> {
    let bind = |name: &'static str, options: &[&str]| {
        bundle(name, &["mounts.options", "mounts.source", "mounts.destination"])
            .mount("/volume", "bind", VOLUME, options)
            .probe(&["--write", "/volume/file", "--create", "/volume/below/new", "--list", "/volume"])
            .probe(&["--read", "/volume/file"])
    };
    vec![
        bind("bind", &["bind"]),
        bind("bind-readonly", &["bind", "ro"]),
        bind("bind-recursive", &["rbind", "nosuid", "nodev", "noexec"]),
        bind("bind-readonly-only-on-top", &["rbind", "ro"]),
        bind("bind-recursive-attributes", &["rbind", "rro", "rnosuid", "rnodev", "rnoexec", "rnoatime"]),
        bind("bind-access-times", &["bind", "noatime", "nodiratime"]),
        bind("bind-type-none", &["rbind", "ro"]).with(json!({})),
        bundle("bind-file", &["mounts.type"])
            .mount("/etc/config/deep/file", "bind", "/run/volume/file", &["bind", "ro"])
            .probe(&["--read", "/etc/config/deep/file", "--write", "/etc/config/deep/file"]),
        bundle("bind-over-a-file-keeps-it", &["mounts"])
            .prepare("echo original > etc/covered")
            .mount("/etc/covered", "bind", "/run/volume/file", &["bind"])
            .probe(&["--read", "/etc/covered"])
            .after("cat rootfs/etc/covered"),
        bundle("destination-through-a-link", &["mounts.destination"])
            .prepare("mkdir -p real; ln -s /real link; ln -s ../../../../etc up")
            .mount("/link/below", "tmpfs", "tmpfs", &["size=64k"])
            .mount("/up/there", "tmpfs", "tmpfs", &["size=64k"])
            .probe(&["--create", "/real/below/x", "--create", "/etc/there/x"]),
        bundle("relative-source", &["mounts.source"])
            .prepare("mkdir -p ../beside; echo beside > ../beside/file")
            .mount("/beside", "bind", "beside", &["bind"])
            .probe(&["--read", "/beside/file"]),
        bundle("idmap", &["mounts.uidMappings", "mounts.gidMappings"])
            .push(
                "/mounts",
                json!({
                    "destination": "/volume", "type": "bind", "source": VOLUME, "options": ["bind", "idmap"],
                    "uidMappings": [{ "containerID": 0, "hostID": 1000, "size": 100 }],
                    "gidMappings": [{ "containerID": 0, "hostID": 2000, "size": 100 }],
                }),
            )
            .with(json!({ "process": { "args": ["/bin/busybox", "stat", "-c", "%u:%g", "/volume/file"] } })),
    ]
}

fn file_systems() -> Vec<Bundle> {
    vec![
        bundle("tmpfs-keeps-the-mode", &["mounts.type", "mounts.options"])
            .prepare("mkdir -m 0700 private; mkdir -m 2750 group; mkdir -m 0700 said; chown 33:33 private")
            .mount("/private", "tmpfs", "tmpfs", &["nosuid"])
            .mount("/group", "tmpfs", "tmpfs", &["ro"])
            .mount("/said", "tmpfs", "tmpfs", &["mode=1755"])
            .probe(&["--mode", "/private", "--mode", "/group", "--mode", "/said"]),
        bundle("tmpfs-on-nothing", &["mounts.type"])
            .mount("/fresh/deep", "tmpfs", "tmpfs", &["nosuid"])
            .probe(&["--mode", "/fresh/deep", "--mode", "/fresh"]),
        bundle("tmpfs-through-a-link", &["mounts.type", "mounts.destination"])
            .prepare("mkdir -m 0700 private; ln -s private link")
            .mount("/link", "tmpfs", "tmpfs", &["nosuid"])
            .probe(&["--mode", "/private"]),

        bundle("tmpfs-options", &["mounts.options"])
            .mount("/scratch", "tmpfs", "scratch", &["size=1m", "mode=1770", "uid=5", "gid=6", "noexec", "nosuid"]),
        bundle("tmpcopyup", &["mounts.options"])
            .prepare("mkdir -p full/sub; echo kept > full/sub/file; chmod 600 full/sub/file; ln -s sub/file full/link")
            .mount("/full", "tmpfs", "tmpfs", &["tmpcopyup", "size=1m"])
            .probe(&["--list", "/full", "--read", "/full/link", "--create", "/full/new"])
            .after("ls rootfs/full"),
        bundle("proc-options", &["mounts.options"])
            .with(json!({ "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc", "options": ["hidepid=2", "nosuid", "nodev"] },
                {
                    "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
                },
            ] })),
        bundle("overlay", &["mounts.type"])
            .prepare("mkdir -p ../lower ../upper ../work; echo lower > ../lower/file")
            .mount("/layers", "overlay", "overlay", &["lowerdir=/run/b/lower,upperdir=/run/b/upper,workdir=/run/b/work"])
            .with(json!({}))
            .probe(&["--read", "/layers/file", "--create", "/layers/new"])
            .refused(),
        bundle("overlay-options", &["mounts.options"])
            .prepare("mkdir -p ../lower ../upper ../work; echo lower > ../lower/file")
            .mount(
                "/layers",
                "overlay",
                "overlay",
                &["lowerdir=/run/b/lower", "upperdir=/run/b/upper", "workdir=/run/b/work"],
            )
            .probe(&["--read", "/layers/file", "--create", "/layers/new"])
            .after("ls upper"),
        bundle("no-mounts", &["mounts"]).with(json!({ "mounts": [], "linux": {
            "maskedPaths": null, "readonlyPaths": null,
        }, "process": { "args": ["/bin/busybox", "ls", "-l", "/"] } }))
        .with(json!({ "process": { "args": ["/bin/busybox", "ls", "/dev"] } })),
        bundle("masked-files-and-directories", &["linux.maskedPaths"])
            .prepare("mkdir -p secret/dir; echo x > secret/dir/file; echo y > secret/file; ln -s secret link")
            .with(json!({ "linux": { "maskedPaths": ["/secret/dir", "/secret/file", "/link/none", "/proc/acpi"] } }))
            .probe(&["--list", "/secret/dir", "--read", "/secret/file", "--create", "/secret/dir/x"]),
        bundle("readonly-paths", &["linux.readonlyPaths"])
            .prepare("mkdir -p kept/dir; echo x > kept/file")
            .with(json!({ "linux": { "readonlyPaths": ["/kept/dir", "/kept/file"] } }))
            .probe(&["--create", "/kept/dir/new", "--write", "/kept/file", "--create", "/kept/beside"]),
        bundle("writable-cgroup", &["mounts.options"])
            .with(json!({ "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                {
                    "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
                },
                { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw", "nosuid"] },
            ] }))
            .probe(&["--write", "/sys/fs/cgroup/cgroup.max.depth", "--list", "/sys/fs/cgroup"]),
    ]
}

fn propagation() -> Vec<Bundle> {
    let root = |name: &'static str, word: &str| {
        bundle(name, &["linux.rootfsPropagation"]).with(json!({ "linux": { "rootfsPropagation": word } }))
    };
    let volume = |name: &'static str, word: &str| {
        bundle(name, &["mounts.options"]).mount("/volume", "bind", VOLUME, &["rbind", word])
    };
    vec![
        root("root-private", "private"),
        root("root-rprivate", "rprivate"),
        root("root-slave", "slave"),
        root("root-rslave", "rslave"),
        root("root-shared", "shared"),
        root("root-rshared", "rshared"),
        root("root-unbindable", "unbindable"),
        root("root-runbindable", "runbindable"),
        volume("volume-private", "private"),
        volume("volume-rslave", "rslave"),
        volume("volume-rshared", "rshared"),
        volume("volume-unbindable", "unbindable"),
    ]
}

fn devices() -> Vec<Bundle> {
    vec![
        bundle("devices", &["linux.devices"])
            .with(json!({ "linux": { "devices": [
                { "path": "/dev/own/char", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4 },
                { "path": "/dev/block", "type": "b", "major": 7, "minor": 7, "fileMode": 0o600 },
                { "path": "/dev/pipe", "type": "p", "fileMode": 0o622, "uid": 1, "gid": 2 },
                { "path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 5 },
            ] } }))
            .probe(&["--list", "/dev/own", "--open", "/dev/own/char", "--open", "/dev/unbuffered"]),
        bundle("device-rules", &["linux.resources.devices"])
            .with(json!({
                "process": { "capabilities": { "bounding": ADMIN, "effective": ADMIN, "permitted": ADMIN } },
                "linux": {
                    "devices": [{ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 }],
                    "resources": { "devices": [
                        { "allow": false, "access": "rwm" },
                        { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" },
                        { "allow": false, "type": "c", "major": 1, "minor": 9, "access": "r" },
                    ] },
                },
            }))
            .probe(&["--open", "/dev/kmsg", "--write", "/dev/kmsg", "--open", "/dev/null", "--open", "/dev/urandom"])
            .probe(&["--call", "mknodat:1793"]),
        bundle("device-in-place-of-a-default", &["linux.devices"])
            .with(json!({ "linux": { "devices": [
                { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o444 },
            ] } })),
    ]
}
