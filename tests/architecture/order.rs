//! Where the agent waits for several things, it says which counts when two have come: tokio's `select!` chooses by chance.

use crate::source::{code, sources};

/// What a line above a `select!` begins with that has no order, and says why none is needed.
const UNORDERED: &str = "// Unordered: ";

/// The lines of `text` that have a `select!` without an order, counted from 1.
fn by_chance(text: &str) -> Vec<usize> {
    let (code, lines): (String, Vec<&str>) = (code(text), text.lines().collect());
    let is_ordered = |from: &str| from.trim_start().starts_with("biased;");
    let mut found = Vec::new();
    let mut offset = 0;
    while let Some(at) = code[offset..].find("select!").map(|at| offset + at) {
        offset = at + "select!".len();
        let body = code[offset..].trim_start().trim_start_matches(['{', '(', '[']);
        let line = code[..at].matches('\n').count();
        let above = line.checked_sub(1).and_then(|above| lines.get(above)).copied().unwrap_or_default();
        if !is_ordered(body) && !above.trim_start().starts_with(UNORDERED) {
            found.push(line + 1);
        }
    }
    found
}

#[test]
fn every_select_says_its_order() {
    let all = sources("agent");
    let found: Vec<String> = all
        .iter()
        .flat_map(|source| {
            by_chance(&source.text).into_iter().map(|line| format!("{}:{line}", source.path.display()))
        })
        .collect();
    let count: usize = all.iter().map(|source| source.code().matches("select!").count()).sum();
    assert!(count > 20, "there are {count} only: does the agent use another macro now?");
    assert!(
        found.is_empty(),
        "each needs `biased;` as its first line, or a line `{UNORDERED}why` above it:\n{}",
        found.join("\n")
    );
}

#[test]
fn an_order_is_told_from_none() {
    let none = "fn f() {\n    tokio::select! {\n        // biased;\n        () = a => {}\n    }\n}\n";
    assert_eq!(by_chance(none), [2]);
    assert_eq!(by_chance(&none.replace("// biased;", "biased;")), [0usize; 0]);
    assert_eq!(by_chance(&none.replace("fn f() {", "// Unordered: both end the loop.")), [0usize; 0]);
    assert_eq!(by_chance(&none.replace("fn f() {", "// Unordered")), [2]);
    assert_eq!(by_chance("let x = select!(() = a => {}); // select! {\n"), [1]);
}
