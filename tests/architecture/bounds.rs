//! The tables of bounds in docs/architecture/bounds.md: the constants that they name have the values that they say, and the tests that
//! they name exist. A bound that nobody tests is none.

use crate::source::{Source, sources, workspace};

/// The document with the tables.
const DOCUMENT: &str = "docs/architecture/bounds.md";
/// Headings of the columns that name tests and constants.
const TEST: &str = "test";
const CONSTANT: &str = "constant";
/// Stands for the row above.
const SAME: &str = "the same";

/// A row of a table, by the headings of its columns.
struct Row<'a> {
    line: usize,
    cells: Vec<(&'a str, &'a str)>,
}

impl<'a> Row<'a> {
    fn cell(&self, heading: &str) -> Option<&'a str> {
        self.cells.iter().find(|(name, _)| *name == heading).map(|(_, cell)| *cell)
    }
}

fn split(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// All rows of all tables.
fn rows(text: &str) -> Vec<Row<'_>> {
    let (mut rows, mut headings) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        match split(line) {
            None => headings.clear(),
            Some(cells) if headings.is_empty() => headings = cells,
            Some(cells) if cells.iter().all(|cell| cell.bytes().all(|byte| byte == b'-')) => {}
            Some(cells) => {
                let cells = headings.iter().copied().zip(cells).collect();
                rows.push(Row { line: number + 1, cells });
            }
        }
    }
    rows
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Whether a file has a test of this name. `module::test` is in the file, or the directory, that the module is called by;
/// `module::*` is any test there.
fn exists(all: &[Source], name: &str) -> bool {
    let Some((module, test)) = name.rsplit_once("::") else { return false };
    let module = module.rsplit("::").next().unwrap_or_default();
    let is_there = |source: &&Source| {
        source.path.file_stem().is_some_and(|stem| stem == module)
            || source.path.ends_with(format!("{module}/mod.rs"))
            || source.path.ends_with(format!("{module}/tests.rs"))
    };
    all.iter().filter(is_there).any(|source| match test {
        "*" => ["test]\n", "::test("].iter().any(|attribute| source.text.contains(attribute)),
        _ => is_test(&source.text, test),
    })
}

/// Whether `text` has a function of this name with the attribute of a test above it.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let begins = [format!("fn {name}("), format!("async fn {name}(")];
    lines.iter().enumerate().any(|(at, line)| {
        begins.iter().any(|begin| line.starts_with(begin.as_str()))
            && lines[..at]
                .iter()
                .rev()
                .take_while(|line| line.starts_with('#'))
                .any(|line| line.contains("test"))
    })
}

/// Whether a file has `const NAME: TYPE = VALUE;`.
fn has_constant(text: &str, name: &str, value: &str) -> bool {
    text.lines().any(|line| {
        let Some((_, rest)) = line.split_once(&format!("const {name}: ")) else { return false };
        rest.split_once(" = ").is_some_and(|(_, is)| is.trim_end() == format!("{value};"))
    })
}

fn document() -> String {
    std::fs::read_to_string(workspace().join(DOCUMENT)).unwrap()
}

#[test]
fn every_test_of_a_bound_exists() {
    let (text, all) = (document(), sources("."));
    let (mut named, mut missing) = (0, Vec::new());
    let mut above = false;
    for row in rows(&text) {
        let Some(cell) = row.cell(TEST) else { continue };
        let names = quoted(cell);
        if names.is_empty() {
            assert!(cell == SAME && above, "{DOCUMENT}:{}: a bound without a test", row.line);
        }
        above = true;
        named += names.len();
        let unknown = names.into_iter().filter(|name| !exists(&all, name));
        missing.extend(unknown.map(|name| format!("{DOCUMENT}:{}: {name}", row.line)));
    }
    assert!(named > 30, "the tables have another shape now: {named} tests are named");
    assert!(missing.is_empty(), "there are no such tests:\n{}", missing.join("\n"));
}

#[test]
fn every_constant_of_a_bound_has_its_value() {
    let text = document();
    let (mut named, mut wrong) = (0, Vec::new());
    for row in rows(&text) {
        let Some(cell) = row.cell(CONSTANT) else { continue };
        let [file, constant] = quoted(cell)[..] else { panic!("{DOCUMENT}:{}: {cell}", row.line) };
        let (name, value) = constant.split_once(" = ").unwrap_or((constant, ""));
        let source = std::fs::read_to_string(workspace().join(file)).unwrap_or_default();
        named += 1;
        if !has_constant(&source, name, value) {
            wrong.push(format!("{DOCUMENT}:{}: {file} has no `{name} = {value}`", row.line));
        }
    }
    assert!(named > 20, "the table has another shape now: {named} constants are named");
    assert!(wrong.is_empty(), "the table and the sources differ:\n{}", wrong.join("\n"));
}

/// Lines of the document that stand below a heading, up to the next one, counted from 1.
fn chapter(text: &str, heading: &str) -> std::ops::Range<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let begin =
        lines.iter().position(|line| *line == heading).unwrap_or_else(|| panic!("no {heading:?}")) + 1;
    let length = lines[begin..].iter().position(|line| line.starts_with('#')).unwrap_or(lines.len() - begin);
    begin + 1..begin + length + 1
}

#[test]
fn every_bound_of_the_agent_has_its_constant_and_its_test() {
    let text = document();
    for (heading, least) in [("## What others can make grow", 50), ("## The end, and its bounds", 8)] {
        let lines = chapter(&text, heading);
        let table: Vec<Row<'_>> = rows(&text).into_iter().filter(|row| lines.contains(&row.line)).collect();
        assert!(table.len() >= least, "{heading} has {} rows", table.len());
        for row in table {
            for column in [CONSTANT, TEST] {
                let is_there = row.cell(column).is_some_and(|cell| !cell.is_empty());
                assert!(is_there, "{DOCUMENT}:{}: a bound without a {column}", row.line);
            }
        }
    }
}

#[test]
fn names_and_values_are_told_from_others() {
    let text =
        "    #[test]\n    fn a_test() {}\n\n#[tokio::test]\n#[ignore]\nasync fn other() {}\nfn none() {}\n";
    assert!(is_test(text, "a_test") && is_test(text, "other"));
    assert!(!is_test(text, "none") && !is_test(text, "a_tes"));
    let text = "/// Most.\npub(super) const MOST: u64 = 4 << 20;\nconst MOST_OF: usize = 5;\n";
    assert!(has_constant(text, "MOST", "4 << 20") && has_constant(text, "MOST_OF", "5"));
    assert!(!has_constant(text, "MOST", "4") && !has_constant(text, "OST", "5"));
    let table = "| what | test |\n|---|---|\n| x | `a::b`, `c::d` |\n\n| other |\n|---|\n| y |\n";
    let rows = rows(table);
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].cell(TEST).map(quoted), Some(vec!["a::b", "c::d"]));
    assert_eq!(rows[1].cell(TEST), None);
    let text = "# a\nx\n## b\ny\nz\n# c\n";
    assert_eq!([chapter(text, "# a"), chapter(text, "## b"), chapter(text, "# c")], [2..3, 4..6, 7..7]);
}
