//! What the process is.

use serde_json::{Value, json};

use crate::sys;

fn text(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|error| format!("{error}"), |text| text.trim_end().to_owned())
}

/// Named parts of the report.
pub(crate) fn sections() -> Vec<(&'static str, Value)> {
    let status = text("/proc/self/status");
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.map(|rest| rest.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let lines = |names: &[&str]| {
        names.iter().map(|name| (*name, line(name))).map(|(n, v)| json!([n, v])).collect::<Vec<_>>()
    };
    vec![
        ("cwd", json!(std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default())),
        ("ids", json!(lines(&["Uid", "Gid", "Groups"]))),
        ("umask", json!(line("Umask"))),
        ("capabilities", json!(lines(&["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]))),
        ("no_new_privileges", json!(line("NoNewPrivs"))),
        ("seccomp", json!(lines(&["Seccomp", "Seccomp_filters"]))),
        ("signals", json!(lines(&["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"]))),
        ("cpus", json!(line("Cpus_allowed_list"))),
        ("limits", limits()),
        ("oom_score_adj", json!(text("/proc/self/oom_score_adj"))),
        ("scheduler", json!(sys::scheduler())),
        ("io_priority", json!(sys::io_priority())),
        ("personality", json!(sys::personality())),
        ("keyring", keyring()),
        ("label", json!(text("/proc/self/attr/current"))),
        ("streams", streams()),
        ("descriptors", descriptors()),
        ("session", json!([sys::is_session_leader(), rustix::process::getpid().as_raw_nonzero().get() == 1])),
    ]
}

/// Name, soft, hard.
fn limits() -> Value {
    let table = text("/proc/self/limits");
    json!(
        table
            .lines()
            .skip(1)
            .map(|line| line
                .split("  ")
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .take(3)
                .collect::<Vec<_>>())
            .collect::<Vec<_>>()
    )
}

/// Whether the session keyring is another one than the user's default.
fn keyring() -> Value {
    // Type, owner, group: its name has an id, its permissions are the runtime's own affair.
    let known = |text: String| text.split(';').take(3).collect::<Vec<_>>().join(";");
    json!(sys::session_keyring().map_or_else(|error| error, known))
}

fn kind(link: &str) -> String {
    // Numbers of pipes and sockets differ.
    link.split(":[").next().unwrap_or_default().to_owned()
}

fn streams() -> Value {
    json!(
        (0..3)
            .map(|number| {
                let link = std::fs::read_link(format!("/proc/self/fd/{number}"));
                link.map(|link| kind(&link.to_string_lossy())).unwrap_or_else(|error| error.to_string())
            })
            .collect::<Vec<_>>()
    )
}

/// What is open besides the streams and the directory that is read to find out.
fn descriptors() -> Value {
    let mut list: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| !matches!(entry.file_name().to_str(), Some("0" | "1" | "2")))
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .filter(|link| !(link.starts_with("/proc/") && link.ends_with("/fd")))
        .map(|link| kind(&link))
        .collect();
    list.sort();
    json!(list)
}
