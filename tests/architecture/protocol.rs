//! docs/protocol.md tells of every method, every conformance case and every quirk, and of none that is not there.

use std::collections::BTreeSet;

use protocols::{agent, health};

use crate::source::{sources, workspace};

fn document() -> String {
    std::fs::read_to_string(workspace().join("docs/protocol.md")).expect("docs/protocol.md is there")
}

/// The text below a heading, up to the next heading of its depth or less.
fn section<'a>(document: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("\n{heading}\n"))?;
    let depth = heading.chars().take_while(|c| *c == '#').count();
    let ends = (1..=depth).filter_map(|depth| rest.find(&format!("\n{} ", "#".repeat(depth)))).min();
    Some(&rest[..ends.unwrap_or(rest.len())])
}

/// Words in backquotes.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn methods() -> Vec<String> {
    let files = [agent::file_descriptor(), health::file_descriptor()];
    let services = files.iter().flat_map(|file| file.services());
    services
        .flat_map(|service| service.methods().map(|m| m.proto().name().to_owned()).collect::<Vec<_>>())
        .collect()
}

/// Method and name of every case in the tables of the conformance suite.
fn cases() -> Vec<(String, String)> {
    let mut cases = Vec::new();
    for source in sources("tests/conformance") {
        for line in source.text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [_, method, "Success" | "Failure" | "Misuse", name] = words[..]
                && let Some(name) = name.strip_suffix(';')
            {
                cases.push((method.trim_matches('"').to_owned(), name.to_owned()));
            }
        }
    }
    assert!(cases.len() > 88, "only {} cases found", cases.len());
    cases
}

#[test]
fn every_method_and_its_cases_have_a_section() {
    let (document, cases) = (document(), cases());
    let mut missing = Vec::new();
    for method in methods() {
        let Some(text) = section(&document, &format!("### {method}")) else {
            missing.push(format!("a section of {method}"));
            continue;
        };
        let named = quoted(text);
        let own = cases.iter().filter(|(of, _)| *of == method);
        missing.extend(own.filter(|(_, case)| !named.contains(case.as_str())).map(|(_, case)| case.clone()));
    }
    let misuse = quoted(section(&document, "## Misuse").unwrap_or_default());
    let all = cases.iter().filter(|(method, case)| method == "*" && !misuse.contains(case.as_str()));
    missing.extend(all.map(|(_, case)| case.clone()));
    assert!(missing.is_empty(), "docs/protocol.md lacks {missing:#?}");
}

#[test]
fn no_section_is_about_what_is_not_there() {
    let (document, cases, methods) = (document(), cases(), methods());
    let known = |name: &str| cases.iter().any(|(_, case)| case == name);
    let headings = document.lines().filter_map(|line| line.strip_prefix("### "));
    let strange: Vec<&str> = headings.filter(|heading| !methods.iter().any(|m| m == heading)).collect();
    assert!(strange.is_empty(), "sections of no method: {strange:?}");
    for method in methods {
        let text = section(&document, &format!("### {method}")).unwrap_or_default();
        let (_, cited) = text.split_once("Cases: ").unwrap_or_else(|| panic!("{method} names no cases"));
        let wrong: Vec<&str> = quoted(cited).into_iter().filter(|name| !known(name)).collect();
        assert!(wrong.is_empty(), "{method} names cases that do not exist: {wrong:?}");
    }
}

#[test]
fn every_quirk_of_katas_names_a_test_and_is_told() {
    let (document, all) = (document(), sources("."));
    let told = section(&document, "## Where we follow Kata").expect("a section on Kata's quirks").to_owned();
    let marks: Vec<(String, String)> = all
        .iter()
        .filter(|source| !source.path.starts_with("tests"))
        .flat_map(|source| {
            let of = |mark: &str| mark.split('`').nth(1).unwrap_or_default().to_owned();
            let marks = source.text.split("COMPAT(kata):").skip(1).map(of);
            marks.map(|name| (source.path.display().to_string(), name)).collect::<Vec<_>>()
        })
        .collect();
    assert!(!marks.is_empty(), "no quirk is marked");
    for (path, name) in &marks {
        let is_test = all.iter().any(|source| source.text.contains(&format!("fn {name}(")));
        assert!(is_test, "{path}: COMPAT(kata) names {name:?}, which is no test");
        assert!(quoted(&told).contains(name.as_str()), "docs/protocol.md does not tell of {name} ({path})");
    }
    let idle: Vec<&str> = quoted(&told)
        .into_iter()
        .filter(|name| name.contains('_') && !marks.iter().any(|(_, n)| n == name))
        .collect();
    assert!(idle.is_empty(), "docs/protocol.md tells of quirks that the source does not mark: {idle:?}");
}
