//! docs/security.md names every replayed attack, and none that is not there.

use std::collections::BTreeSet;

use crate::source::workspace;

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap()
}

#[test]
fn every_replayed_attack_is_in_the_document() {
    let document = read("docs/security.md");
    let named: BTreeSet<&str> =
        document.split('`').skip(1).step_by(2).filter(|word| word.starts_with("cve_")).collect();
    let source = read("tests/jail/escape.rs");
    let tests: BTreeSet<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("async fn "))
        .filter_map(|rest| rest.split('(').next())
        .filter(|name| name.starts_with("cve_"))
        .collect();
    assert!(tests.len() >= 8, "where are the tests? {tests:?}");
    assert_eq!(named, tests);
}
