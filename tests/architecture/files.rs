//! Rules on every source file.

use std::path::Path;

use crate::source::{Source, identifiers, sources};

/// Longer than this, a file has more than one subject.
const MOST_LINES: usize = 600;

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 5] = ["common", "helper", "helpers", "manager", "utils"];

fn offenders(all: &[Source], breaks_rule: impl Fn(&Source) -> bool) -> Vec<&Path> {
    all.iter().filter(|source| breaks_rule(source)).map(|source| source.path.as_path()).collect()
}

#[test]
fn files_are_short() {
    let all = sources(".");
    let long: Vec<String> = all
        .iter()
        .map(|source| (source.text.lines().count(), source.path.display()))
        .filter(|(lines, _)| *lines > MOST_LINES)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "split these by subject, at most {MOST_LINES} lines each:\n{}", long.join("\n"));
}

#[test]
fn files_say_what_they_are_for() {
    let all = sources(".");
    let silent = offenders(&all, |source| !source.text.starts_with("//!"));
    assert!(silent.is_empty(), "the first line of a file is a `//!` that says what it owns: {silent:?}");
}

#[test]
fn names_mean_something() {
    let all = sources(".");
    let empty = offenders(&all, |source| {
        source.path.with_extension("").iter().any(|part| EMPTY_NAMES.iter().any(|name| part == *name))
    });
    assert!(empty.is_empty(), "name the file after the noun it owns: {empty:?}");
}

#[test]
fn unsafe_code_is_in_sys_modules() {
    let all = sources(".");
    let stray = offenders(&all, |source| {
        let in_sys = source.path.with_extension("").iter().any(|part| part == "sys");
        !in_sys && identifiers(&source.code()).any(|word| word == "unsafe")
    });
    assert!(stray.is_empty(), "move these system calls into a module named `sys`: {stray:?}");
}
