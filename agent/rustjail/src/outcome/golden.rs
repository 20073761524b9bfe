//! Golden files: `golden/*.json`, each a few configs around one property of the runtime spec and what comes of them.
//!
//! `golden/base.json` holds the config that all others change, and its whole outcome. Any other file names its
//! properties (dotted paths of `config.json`; a word of a list stands behind `: `) and has cases: a JSON merge patch
//! onto the base config, and either how the outcome differs from the base's or the error's text.
//! `UPDATE_GOLDEN=1 cargo test -p rustjail golden` writes the outcomes into the files; read the diff, each line.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Change, Circumstances, Outcome, change, judge, laws, merge};

/// The base of all cases.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Base {
    config: Value,
    outcome: Value,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What the cases are about, where they do not say it themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    properties: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// A sentence on what happens.
    name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    properties: Vec<String>,
    /// Changes to the base config.
    patch: Value,
    /// Changes to the first process that make a further one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exec: Option<Value>,
    /// What the cgroup's files hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    present: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    changed: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
}

impl Case {
    /// The same case with the outcome it has now.
    fn run(&self, base: &Base) -> Case {
        let mut config = base.config.clone();
        merge(&mut config, &self.patch);
        judge(&serde_json::to_vec(&config).unwrap());
        let present = self.present.clone().map(|value| serde_json::from_value(value).unwrap());
        let circumstances = Circumstances { exec: self.exec.clone(), present: present.unwrap_or_default() };
        let (Change { changed, removed }, error) = match Outcome::of_config(&config, &circumstances) {
            Ok(outcome) => {
                laws::hold(&outcome);
                (change(&base.outcome, &outcome.to_json()), None)
            }
            Err(error) => (Change::default(), Some(error)),
        };
        Case { error, changed, removed, ..self.clone() }
    }
}

/// Says which case it was that broke a law.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {}", self.0);
        }
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// In one step, since other tests read the same files.
fn write(path: &Path, value: &impl Serialize) {
    let new = path.with_extension("new");
    std::fs::write(&new, pretty(value)).unwrap();
    std::fs::rename(&new, path).unwrap();
}

fn is_update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

fn base() -> Base {
    let path = directory().join("base.json");
    let mut base: Base = read(&path);
    let outcome = Outcome::of_config(&base.config, &Circumstances::default()).unwrap().to_json();
    if is_update() && outcome != base.outcome {
        base.outcome = outcome.clone();
        write(&path, &base);
    }
    let Change { changed, removed } = change(&base.outcome, &outcome);
    assert!(changed.is_empty() && removed.is_empty(), "base.json: {} {removed:?}", pretty(&changed));
    base
}

/// The config that all others change.
pub(super) fn base_config() -> Value {
    read::<Base>(&directory().join("base.json")).config
}

/// The patches of all cases.
pub(super) fn patches() -> Vec<Value> {
    let cases = paths().into_iter().flat_map(|path| read::<File>(&path).cases);
    cases.map(|case| case.patch).collect()
}

/// All files but the base.
fn paths() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|is| is == "json") && !path.ends_with("base.json"));
    paths.sort();
    assert!(paths.len() > 10, "golden files are where they belong");
    paths
}

#[test]
fn outcomes_are_golden() {
    let base = base();
    let mut report = String::new();
    for path in paths() {
        let file: File = read(&path);
        let names: BTreeSet<&str> = file.cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), file.cases.len(), "{}: each case has a name of its own", path.display());
        let run = |case: &Case| {
            let _named = Named(format!("{}: {}", path.display(), case.name));
            case.run(&base)
        };
        let got: Vec<Case> = file.cases.iter().map(run).collect();
        if is_update() {
            let file = File { properties: file.properties, cases: got };
            write(&path, &file);
            continue;
        }
        // Filters name system calls by their numbers on x86_64. For others they are compared with libseccomp's.
        let is_filter = path.file_name().is_some_and(|name| name.to_string_lossy().contains("seccomp"));
        if is_filter && std::env::consts::ARCH != "x86_64" {
            println!("skipped: {} has the filters of x86_64", path.display());
            continue;
        }
        for (old, new) in file.cases.iter().zip(&got).filter(|(old, new)| old != new) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            writeln!(report, "{name}: {}\n{}", old.name, difference(old, new)).unwrap();
        }
    }
    assert!(report.is_empty(), "outcomes changed (UPDATE_GOLDEN=1 takes them over):\n{report}");
}

/// The lines of two cases' outcomes that are in one only.
fn difference(old: &Case, new: &Case) -> String {
    let [old, new] = [old, new].map(|case| {
        let error = case.error.iter().map(|error| format!("error: {error}"));
        let changed = case.changed.iter().map(|(path, value)| format!("{path}: {value}"));
        error.chain(changed).chain(case.removed.iter().map(|path| format!("{path}: gone"))).collect()
    });
    let only = |sign: &'static str, these: &BTreeSet<String>, others: &BTreeSet<String>| {
        these.difference(others).map(|line| format!("  {sign} {line}\n")).collect::<String>()
    };
    only("-", &old, &new) + &only("+", &new, &old)
}

/// JSON for people: what fits into a line stands in one.
fn pretty(value: &impl Serialize) -> String {
    let mut text = String::new();
    print(&serde_json::to_value(value).unwrap(), 0, &mut text);
    text + "\n"
}

/// Fields that come first, in this order; the others follow by name.
const FIRST: [&str; 9] =
    ["properties", "cases", "name", "patch", "exec", "present", "error", "changed", "removed"];

fn print(value: &Value, depth: usize, text: &mut String) {
    const WIDTH: usize = 110;
    let indent = |depth: usize| "  ".repeat(depth);
    let line = inline(value);
    if line.len() + 2 * depth <= WIDTH && depth > 2 {
        return text.push_str(&line);
    }
    let entries: Vec<(Option<&String>, &Value)> = match value {
        Value::Object(map) if !map.is_empty() => sorted(map).map(|(key, value)| (Some(key), value)).collect(),
        Value::Array(list) if !list.is_empty() => list.iter().map(|value| (None, value)).collect(),
        _ => return text.push_str(&line),
    };
    let (open, close) = if value.is_object() { ('{', '}') } else { ('[', ']') };
    text.push(open);
    for (index, (key, value)) in entries.into_iter().enumerate() {
        text.push_str(if index == 0 { "\n" } else { ",\n" });
        text.push_str(&indent(depth + 1));
        if let Some(key) = key {
            write!(text, "{}: ", Value::from(key.as_str())).unwrap();
        }
        print(value, depth + 1, text);
    }
    write!(text, "\n{}{close}", indent(depth)).unwrap();
}

fn sorted(map: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let rank = |key: &String| FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len());
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| (rank(key), key.as_str()));
    entries.into_iter()
}

fn inline(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => {
            let entries =
                sorted(map).map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), inline(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(inline).collect::<Vec<_>>().join(", ")),
        plain => plain.to_string(),
    }
}

/// What fuzzing begins with, below the directory that `FUZZ_SEEDS` names: each config of the golden files for the target
/// `plan`, the words of each for the others and as a dictionary.
#[test]
fn seeds() {
    let scratch = tempfile::tempdir().unwrap();
    let out = std::env::var_os("FUZZ_SEEDS").map_or(scratch.path().to_owned(), PathBuf::from);
    let seed = |target: &str, index: usize, text: &str| {
        std::fs::create_dir_all(out.join(target)).unwrap();
        std::fs::write(out.join(target).join(index.to_string()), text).unwrap();
    };
    let base = base_config();
    let mut words = Vec::new();
    for (index, patch) in patches().iter().enumerate() {
        let mut config = base.clone();
        merge(&mut config, patch);
        seed("plan", index, &config.to_string());
        if let Some(profile) = patch.pointer("/linux/seccomp") {
            seed("seccomp", index, &profile.to_string());
        }
        super::arbitrary::words(patch, &mut words);
    }
    words.sort();
    words.dedup();
    words.retain(|word| (1..64).contains(&word.len()));
    let mut dictionary = String::new();
    for (index, word) in words.iter().enumerate() {
        seed("mount_options", index, &format!("tmpfs\n/run/volume\n{word}"));
        seed("cgroup_path", index, word);
        // libFuzzer reads \xNN.
        let escaped: String = word.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        writeln!(dictionary, "\"{escaped}\"").unwrap();
    }
    std::fs::write(out.join("dictionary"), dictionary).unwrap();
    assert!(words.len() > 100, "the golden files have words");
}

/// What a fuzzer found once, and what it begins with.
#[test]
fn regressions_stay_mended() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz");
    for kept in ["regressions", "corpus"] {
        for entry in std::fs::read_dir(directory.join(kept).join("plan")).unwrap() {
            judge(&std::fs::read(entry.unwrap().path()).unwrap());
        }
    }
}

#[test]
fn a_merge_patch_removes_by_null_and_replaces_lists() {
    let mut config = serde_json::json!({ "a": { "b": [1], "c": 2 }, "d": 3 });
    merge(&mut config, &serde_json::json!({ "a": { "b": [4], "c": null, "e": { "f": null } } }));
    assert_eq!(config, serde_json::json!({ "a": { "b": [4], "e": {} }, "d": 3 }));
}

#[test]
fn a_change_names_what_differs() {
    let old = serde_json::json!({ "a": [{ "x": 1 }, { "x": 2 }], "b": [1, 2], "c": 0, "d": 0 });
    let new = serde_json::json!({ "a": [{ "x": 3 }], "b": [1], "c": 0, "e": {} });
    let Change { changed, removed } = change(&old, &new);
    assert_eq!(Value::Object(changed), serde_json::json!({ "a/0/x": 3, "b": [1], "e": {} }));
    assert_eq!(removed, ["d", "a/1"]);
}
