//! Bundles: an ordinary container, changed in one or a few properties each.

mod more;
mod mount;
mod namespace;
mod process;
mod refused;
mod resource;

use serde_json::{Value, json};

/// A bundle and what is to be looked at.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    /// Name of its directory.
    pub(crate) name: &'static str,
    /// Which properties of config.json it is about: for the table of docs/oci.md.
    #[allow(dead_code, reason = "the oracle itself has no use for it")]
    pub(crate) properties: Vec<&'static str>,
    /// Its config.json.
    pub(crate) spec: Value,
    /// Shell script that runs in the new root's directory before.
    pub(crate) prepare: String,
    /// Shell script that runs in the bundle's directory after; what it prints is compared.
    pub(crate) after: String,
    /// Whether no runtime may run it.
    pub(crate) is_refused: bool,
}

/// All bundles.
pub(crate) fn all() -> Vec<Bundle> {
    let parts =
        [process::all(), mount::all(), namespace::all(), resource::all(), refused::all(), more::all()];
    parts.into_iter().flatten().collect()
}

/// An ordinary container that is about these properties.
fn bundle(name: &'static str, properties: &[&'static str]) -> Bundle {
    Bundle {
        name,
        properties: properties.to_vec(),
        spec: ordinary(),
        prepare: String::new(),
        after: String::new(),
        is_refused: false,
    }
}

impl Bundle {
    /// Changes the spec by a merge patch (RFC 7396).
    fn with(mut self, patch: Value) -> Bundle {
        merge(&mut self.spec, patch);
        self
    }

    fn push(mut self, place: &str, value: Value) -> Bundle {
        let list = self.spec.pointer_mut(place).and_then(Value::as_array_mut);
        list.unwrap_or_else(|| panic!("no list at {place}")).push(value);
        self
    }

    /// Adds a mount.
    fn mount(self, destination: &str, kind: &str, source: &str, options: &[&str]) -> Bundle {
        let mount = json!({ "destination": destination, "type": kind, "source": source, "options": options });
        self.push("/mounts", mount)
    }

    /// Has the probe try things.
    fn probe(self, args: &[&str]) -> Bundle {
        args.iter().fold(self, |bundle, arg| bundle.push("/process/args", json!(arg)))
    }

    /// With a namespace, in the place of what is there of its kind.
    fn namespace(self, kind: &str, path: Option<&str>) -> Bundle {
        let entry = match path {
            Some(path) => json!({ "type": kind, "path": path }),
            None => json!({ "type": kind }),
        };
        self.without_namespace(kind).push("/linux/namespaces", entry)
    }

    fn without_namespace(mut self, kind: &str) -> Bundle {
        if let Some(list) = self.spec["linux"]["namespaces"].as_array_mut() {
            list.retain(|entry| entry["type"] != kind);
        }
        self
    }

    /// Runs a script in the new root before.
    fn prepare(mut self, script: &str) -> Bundle {
        self.prepare = script.to_owned();
        self
    }

    /// Runs a script in the bundle's directory after.
    fn after(mut self, script: &str) -> Bundle {
        self.after = script.to_owned();
        self
    }

    /// No runtime may run it.
    fn refused(mut self) -> Bundle {
        self.is_refused = true;
        self
    }
}

fn merge(target: &mut Value, patch: Value) {
    match patch {
        Value::Object(patch) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (key, value) in patch {
                if value.is_null() {
                    target.as_object_mut().map(|object| object.remove(&key));
                } else {
                    merge(&mut target[key], value);
                }
            }
        }
        other => *target = other,
    }
}

fn ordinary() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_CHOWN", "CAP_SETUID"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/probe"],
            "env": ["PATH=/usr/bin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                "inheritable": [], "ambient": [],
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "oracle",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            {
                "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {
                "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            },
            {
                "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"],
            },
            {
                "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            },
            {
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            },
        ],
        "linux": {
            "cgroupsPath": "/oracle/box",
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "cgroup" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/no/such/path"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
