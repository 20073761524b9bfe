//! docs/devices.md: every driver and kind of device has its row and its test, and the table of kernel options is what the
//! fragments say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::source::workspace;

const START: &str = "<!-- options -->\n";
const END: &str = "<!-- end -->";

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All text of the files below a directory with this ending.
fn all(directory: &Path, ending: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut entries: Vec<_> =
        std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files.extend(all(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            files.push(std::fs::read_to_string(&path).unwrap());
        }
    }
    files
}

/// Words in the first column of the tables of a section, without the backquotes.
fn rows(text: &str, section: &str) -> BTreeSet<String> {
    let body = text.split("\n## ").find(|part| part.starts_with(section)).expect("the section");
    let first = body.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    first.map(str::to_owned).collect()
}

/// What the tests of devices say, without white space.
fn notes() -> String {
    all(&workspace().join("tests/devices"), ".rs").concat().replace(['\n', ' '], "")
}

#[test]
fn every_storage_driver_has_a_row_and_a_test() {
    let document = rows(&read("docs/devices.md"), "Storages");
    let source = all(&workspace().join("agent/src/storage"), ".rs").join("\n");
    for driver in &document {
        assert!(source.contains(&format!("\"{driver}\"")), "no driver is called {driver}");
    }
    let count: usize = source
        .split_once("static DRIVERS: [&dyn StorageDriver; ")
        .and_then(|(_, rest)| rest.split_once(']')?.0.parse().ok())
        .expect("the list of drivers");
    assert_eq!(document.len(), count, "rows and drivers: {document:?}");
    let notes = notes();
    for driver in &document {
        // Several are noted in a loop.
        let shapes = [format!("seen(\"{driver}\","), format!("(\"{driver}\",\"storage")];
        assert!(
            shapes.iter().any(|shape| notes.contains(shape)),
            "no test in tests/devices has seen {driver}"
        );
    }
}

#[test]
fn every_kind_of_device_has_a_row_and_a_test() {
    let document = rows(&read("docs/devices.md"), "Devices of a container");
    let source = read("agent/src/device/container.rs");
    let list = source.split_once("pub(crate) const KINDS: [&str; ").expect("the list of kinds").1;
    let count: usize = list.split(']').next().unwrap().parse().unwrap();
    assert_eq!(document.len(), count, "rows and kinds: {document:?}");
    let notes = notes();
    for kind in &document {
        assert!(source.contains(&format!("\"{kind}\"")), "no kind is called {kind}");
        let is_seen = notes.contains(&format!("seen(\"{kind}\",\"device"));
        assert!(is_seen, "no test in tests/devices has seen a device of type {kind}");
    }
}

/// Which options of the fragments are needed by storages, devices and the network.
fn options() -> BTreeMap<String, BTreeSet<String>> {
    let mut needed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for text in all(&workspace().join("kernel-config"), ".conf") {
        for paragraph in text.split("\n\n") {
            let users = paragraph
                .lines()
                .filter_map(|line| line.strip_prefix("# needed-by: "))
                .flat_map(|line| line.split(", "));
            let options: Vec<&str> = paragraph
                .lines()
                .filter_map(|line| line.strip_prefix("CONFIG_")?.strip_suffix("=y"))
                .collect();
            for user in users.filter(|user| {
                user.starts_with("storage/") || ["device", "network", "guest/hotplug"].contains(user)
            }) {
                needed
                    .entry(user.to_owned())
                    .or_default()
                    .extend(options.iter().map(|option| (*option).to_owned()));
            }
        }
    }
    needed
}

#[test]
fn the_table_of_kernel_options_is_what_the_fragments_say() {
    let mut table = String::from("| needed by | options |\n|---|---|\n");
    for (user, options) in options() {
        let options: Vec<String> = options.into_iter().collect();
        table += &format!("| `{user}` | {} |\n", options.join(", "));
    }
    let path = workspace().join("docs/devices.md");
    let text = read("docs/devices.md");
    let (before, rest) = text.split_once(START).expect("the start of the table");
    let (now, after) = rest.split_once(END).expect("the end of the table");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{START}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(now, table, "UPDATE_DOCS=1 cargo test --test architecture devices");
    }
    // Every driver that needs something of the kernel says so in a fragment.
    let document = rows(&text, "Storages");
    for user in options().keys().filter_map(|user| user.strip_prefix("storage/")) {
        assert!(document.contains(user), "a fragment names a storage driver {user:?} that is not there");
    }
}
