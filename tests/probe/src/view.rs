//! What the process sees of the system.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use serde_json::{Map, Value, json};

/// Control files that a limit can be read from.
const CONTROLS: [&str; 22] = [
    "cpu.max",
    "cpu.max.burst",
    "cpu.weight",
    "cpu.idle",
    "cpuset.cpus",
    "cpuset.mems",
    "memory.max",
    "memory.high",
    "memory.low",
    "memory.min",
    "memory.swap.max",
    "memory.oom.group",
    "pids.max",
    "io.weight",
    "io.bfq.weight",
    "io.max",
    "hugetlb.2MB.max",
    "hugetlb.2MB.rsvd.max",
    "rdma.max",
    "misc.max",
    "cgroup.max.depth",
    "cgroup.max.descendants",
];

fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

/// Named parts of the report.
pub(crate) fn sections() -> Vec<(&'static str, Value)> {
    let controls: Map<String, Value> = CONTROLS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), json!(text(Path::new("/sys/fs/cgroup").join(name))?))))
        .collect();
    let mut namespaces: Map<String, Value> = Map::new();
    for kind in ["user", "net", "ipc", "uts", "pid", "cgroup", "time", "mnt"] {
        let link = fs::read_link(format!("/proc/self/ns/{kind}"));
        namespaces
            .insert(kind.into(), json!(link.map(|link| link.display().to_string()).unwrap_or_default()));
    }
    vec![
        ("hostname", json!(text("/proc/sys/kernel/hostname"))),
        ("domainname", json!(text("/proc/sys/kernel/domainname"))),
        ("cgroup", json!(text("/proc/self/cgroup"))),
        ("controls", Value::Object(controls)),
        ("namespaces", Value::Object(namespaces)),
        ("uid_map", json!(map("/proc/self/uid_map"))),
        ("gid_map", json!(map("/proc/self/gid_map"))),
        ("clocks", json!(map("/proc/self/timens_offsets"))),
        ("mounts", json!(mounts())),
        ("root", json!(directory("/"))),
        ("devices", json!(directory("/dev"))),
        ("root_writable", json!(writable("/"))),
    ]
}

fn map(path: &str) -> Vec<String> {
    let table = text(path).unwrap_or_default();
    table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Place, what part of the file system, options, propagation, type, options of the file system.
fn mounts() -> Vec<Value> {
    let table = text("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let fields: Vec<&str> = mount.split(' ').collect();
            let (root, place, options) = (*fields.get(3)?, *fields.get(4)?, *fields.get(5)?);
            // shared:7 and the like: with whom is a number of the kernel's.
            let propagation: Vec<&str> =
                fields[6..].iter().map(|field| field.split(':').next().unwrap_or_default()).collect();
            let (kind, rest) = system.split_once(' ')?;
            let mut own: Vec<&str> = rest.split_once(' ')?.1.split(',').collect();
            // Paths of the test's own, and what depends on the memory at hand.
            own.retain(|option| {
                !["lowerdir", "upperdir", "workdir", "nr_inodes"].iter().any(|name| option.starts_with(name))
            });
            own.sort_unstable();
            let mut options: Vec<&str> = options.split(',').collect();
            options.sort_unstable();
            let root = if matches!(kind, "tmpfs" | "rootfs" | "overlay" | "ramfs") { "" } else { root };
            Some(json!([place, root, kind, options.join(","), propagation.join(","), own.join(",")]))
        })
        .collect()
}

/// Name, kind, numbers or target, mode, owner, group of each entry.
fn directory(path: &str) -> Vec<Value> {
    let mut list: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().collect();
    list.sort_by_key(fs::DirEntry::file_name);
    list.iter()
        .filter_map(|entry| {
            let stat = fs::symlink_metadata(entry.path()).ok()?;
            let kind = stat.file_type();
            let (major, minor) = (libc::major(stat.rdev()), libc::minor(stat.rdev()));
            let what = if kind.is_symlink() {
                format!("-> {}", fs::read_link(entry.path()).ok()?.display())
            } else if kind.is_char_device() {
                format!("c {major}:{minor}")
            } else if kind.is_block_device() {
                format!("b {major}:{minor}")
            } else if kind.is_fifo() {
                "p".into()
            } else if kind.is_dir() {
                "d".into()
            } else {
                "f".into()
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            Some(json!([name, what, format!("{:o}", stat.mode() & 0o7777), stat.uid(), stat.gid()]))
        })
        .collect()
}

fn writable(path: &str) -> String {
    let file = Path::new(path).join(".probe");
    match fs::write(&file, "") {
        Ok(()) => fs::remove_file(&file).map_or_else(|error| error.to_string(), |()| "yes".into()),
        Err(error) => format!("errno {}", error.raw_os_error().unwrap_or(0)),
    }
}
