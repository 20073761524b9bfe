//! The scripts of `pith completions`, in shells in which TAB is pressed.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// What is typed before TAB, and what the line is after it.
const LINES: [(&str, &str); 13] = [
    ("pith unp", "pith unpause"),
    ("pith logs o", "pith logs old"),
    ("pith logs old si", "pith logs old side"),
    ("pith volume pr", "pith volume prune"),
    ("pith volume rm da", "pith volume rm data"),
    ("pith vm --vmm fire", "pith vm --vmm firecracker"),
    ("pith vm --flavour ow", "pith vm --flavour own"),
    ("pith --out other vm --flavour yo", "pith --out other vm --flavour yours"),
    ("pith run -v da", "pith run -v data:"),
    ("pith rmi ngi", "pith rmi nginx:1.27"),
    ("pith rmi docker.io/lib", "pith rmi docker.io/library/nginx:1.27"),
    ("pith run --rm ngi", "pith run --rm nginx:1.27"),
    ("pith pull localhost:5000/a", "pith pull localhost:5000/app:1"),
];

/// A user with a pod that has ended, a volume, products and an image.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    fs::create_dir_all(at("volumes/pith/volumes/data")).unwrap();
    for directory in ["out", "other"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    let other = ["other/vmlinux", "other/initrd-yours.img"];
    for name in ["out/vmlinux", "out/initrd.img", "out/initrd-own.img"].iter().chain(&other) {
        fs::write(at(name), "").unwrap();
    }
    let container = |name: &str| {
        serde_json::json!({"name": name, "id": format!("old-{name}"), "image": "i", "phase": "exited",
            "exit_code": 0, "process": pods::run::state::ProcessRecord::default()})
    };
    let state = pods::run::state::StateDir::new(at("pods"));
    let record = serde_json::from_value(serde_json::json!({
        "name": "old", "pid": 1, "phase": "ended", "started": 0, "ended": 1, "accel": null, "endpoint": null,
        "containers": [container("main"), container("side")],
        "timings": pods::run::timing::Timings::default(),
    }));
    state.reserve("old").unwrap().keep(&record.unwrap()).unwrap();
    let image = |name: &str| {
        serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2,
            "digest": format!("sha256:{}", "ab".repeat(32)),
            "annotations": {"org.opencontainers.image.ref.name": name}})
    };
    let images = ["docker.io/library/nginx:1.27", "localhost:5000/app:1"].map(image);
    let index = serde_json::json!({"schemaVersion": 2, "manifests": images});
    fs::create_dir_all(at("cache/pulled")).unwrap();
    fs::write(at("cache/pulled/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(at("cache/pulled/index.json"), index.to_string()).unwrap();
    home
}

fn environment(command: &mut Command, home: &Path) {
    let program = Path::new(env!("CARGO_BIN_EXE_pith"));
    let mut path = program.parent().unwrap().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    command.env_clear().current_dir(home).env("PATH", path).env("HOME", home).env("TERM", "dumb");
    command.env("PITH_STATE", home.join("pods")).env("PITH_CACHE", home.join("cache"));
    command.env("PITH_OUT", home.join("out")).env("XDG_DATA_HOME", home.join("volumes"));
}

fn is_installed(shell: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|place| place.join(shell).is_file());
    if !is_there {
        eprintln!("SKIPPED: {shell} is not installed, so its completion is not tried");
    }
    is_there
}

/// What a shell on a terminal prints when these keys are typed.
fn typed(shell: &str, keys: &str, home: &Path) -> String {
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", shell, "/dev/null"]);
    environment(&mut command, home);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(keys.as_bytes()).unwrap();
    drop(input);
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

/// Presses TAB behind each line, goes to its begin, and has `echo` print what it has become. The sign in front is one that no
/// shell reads.
fn check(shell: &str, prepare: &str, lines: &[(&str, &str)]) {
    let home = home();
    let mut keys = format!("{prepare}\n");
    for (line, _) in lines {
        keys += &format!("{line}\t\u{1}echo +\n");
    }
    keys += "exit\n";
    let printed = typed(shell, &keys, home.path());
    for (line, expected) in lines {
        let found = printed.lines().any(|text| text.trim_end() == format!("+{expected}"));
        assert!(found, "{line:?} did not become {expected:?}:\n{printed}");
    }
}

#[test]
fn bash_completes() {
    if is_installed("bash") {
        check("bash --norc --noprofile -i", "source <(pith completions bash)", &LINES);
    }
}

#[test]
fn zsh_completes() {
    if is_installed("zsh") {
        let prepare = "autoload -Uz compinit; compinit -u; bindkey -e; source <(pith completions zsh)";
        check("zsh -f -i", prepare, &LINES);
    }
}

#[test]
fn fish_completes() {
    if is_installed("fish") {
        check("fish --no-config --interactive", "pith completions fish | source", &LINES);
    }
}

#[test]
fn a_name_with_colons_is_one_word_for_bash() {
    if !is_installed("bash") {
        return;
    }
    // As `pith complete` answers when it knows the image.
    let home = home();
    let script = "source <(pith completions bash)\n\
        pith() { echo \"$*\" > asked; echo localhost:5000/app:1.2; }\n\
        COMP_LINE='pith rmi localhost:5000/app:1'; COMP_POINT=${#COMP_LINE}; _pith; echo \"${COMPREPLY[@]}\"; cat asked";
    let mut command = Command::new("bash");
    environment(command.args(["--norc", "--noprofile", "-c", script]), home.path());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "1.2\ncomplete -- rmi localhost:5000/app:1\n");
}
