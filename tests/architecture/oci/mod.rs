//! The table of `docs/oci.md`: every property of the runtime spec's `config.json`, what becomes of it here, and which
//! tests show it.
//!
//! What becomes of it is read from rustjail's golden files, which its own tests hold true. Promises: a property
//! without a test fails; so do a test's name that no source has, and a golden file on a property that is not listed.
//! `UPDATE_DOCS=1` writes the table between its markers and leaves the rest of the page alone.

mod bundles;
mod golden;
mod table;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use crate::source::workspace;
use golden::Golden;

/// `properties.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    section: Vec<Section>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    title: String,
    properties: Vec<Property>,
}

/// One row.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Property {
    name: String,
    /// Tests in guests, as `binary::module::function`.
    #[serde(default)]
    guest: Vec<String>,
    not_applicable: Option<String>,
    without_effect: Option<String>,
    elsewhere: Option<String>,
}

fn list() -> Vec<Section> {
    let path = workspace().join("tests/architecture/oci/properties.toml");
    toml::from_str::<List>(&std::fs::read_to_string(path).unwrap()).unwrap().section
}

fn properties(sections: &[Section]) -> impl Iterator<Item = &Property> {
    sections.iter().flat_map(|section| &section.properties)
}

#[test]
fn the_table_of_properties_is_up_to_date() {
    let path = workspace().join("docs/oci.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let table = table::of(&list(), &Golden::read(), &bundles::all());
    let (before, rest) = page.split_once(table::BEGIN).expect("the page has the begin marker");
    let (_, after) = rest.split_once(table::END).expect("the page has the end marker");
    let wanted = format!("{before}{}\n{table}{}{after}", table::BEGIN, table::END);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
        return;
    }
    let lines: BTreeSet<&str> = page.lines().collect();
    let new: Vec<&str> = wanted.lines().filter(|line| !lines.contains(line)).collect();
    assert!(page == wanted, "UPDATE_DOCS=1 writes docs/oci.md anew; these lines change:\n{}", new.join("\n"));
}

#[test]
fn every_property_is_listed_once_and_has_a_test() {
    let (sections, golden) = (list(), Golden::read());
    let mut names = BTreeSet::new();
    for property in properties(&sections) {
        assert!(names.insert(property.name.as_str()), "{} is listed twice", property.name);
        let reasons = [&property.not_applicable, &property.without_effect, &property.elsewhere];
        assert!(reasons.into_iter().flatten().count() <= 1, "{} has one reason at most", property.name);
    }
    let untested: Vec<&str> = properties(&sections)
        .filter(|property| property.not_applicable.is_none())
        .filter(|property| golden.cases(&property.name).is_empty())
        .map(|property| property.name.as_str())
        .collect();
    assert!(untested.is_empty(), "no golden case: {untested:#?}");
    let unknown: BTreeSet<&str> = golden.properties().filter(|name| !names.contains(name)).collect();
    assert!(unknown.is_empty(), "properties.toml does not list: {unknown:#?}");
}

#[test]
fn bundles_of_the_oracle_name_properties() {
    let sections = list();
    let names: Vec<&str> = properties(&sections).map(|property| property.name.as_str()).collect();
    for bundle in bundles::all() {
        let unknown = bundle.unknown(&names);
        assert!(unknown.is_empty(), "{}: properties.toml does not list {unknown:?}", bundle.name);
    }
}

#[test]
fn tests_of_properties_exist() {
    let sections = list();
    let mut missing = BTreeSet::new();
    for name in properties(&sections).flat_map(|property| &property.guest) {
        if !exists(name) {
            missing.insert(name);
        }
    }
    assert!(missing.is_empty(), "properties.toml names tests that no source has: {missing:#?}");
}

fn exists(test: &str) -> bool {
    let parts: Vec<&str> = test.split("::").collect();
    let [binary, modules @ .., function] = parts.as_slice() else { return false };
    let mut path: PathBuf = workspace().join("tests").join(binary);
    path.extend(modules);
    let text = std::fs::read_to_string(path.with_extension("rs"))
        .or_else(|_| std::fs::read_to_string(path.join("mod.rs")))
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let signature = format!("fn {function}(");
    lines.windows(2).any(|pair| {
        // Attributes may stand between the two.
        let is_test = |line: &str| line.starts_with("#[");
        is_test(pair[0])
            && (pair[1].starts_with(&signature) || pair[1].starts_with(&format!("async {signature}")))
    })
}

#[test]
fn a_name_is_a_test_only_if_the_source_has_it() {
    assert!(exists("jail::root::a_root_that_cannot_be_one_is_refused"));
    assert!(!exists("jail::root::a_root_that_nobody_wrote"));
    assert!(!exists("jail::main::status"), "a function that is no test");
}
