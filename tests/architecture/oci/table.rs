//! The table as text.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::bundles::Bundle;
use super::golden::{Case, Golden, Outcome};
use super::{Property, Section};

pub(crate) const BEGIN: &str =
    "<!-- properties: written by `UPDATE_DOCS=1 cargo test --test architecture oci` -->";
pub(crate) const END: &str = "<!-- end of properties -->";

/// Longer texts of errors are cut.
const LONGEST_ERROR: usize = 110;

pub(crate) fn of(sections: &[Section], golden: &Golden, bundles: &[Bundle]) -> String {
    let mut text = summary(sections, golden, bundles);
    for section in sections {
        write!(text, "\n### {}\n\n| property | here | tests |\n|---|---|---|\n", section.title).unwrap();
        for property in &section.properties {
            let cases = golden.cases(&property.name);
            let (here, tests) = (here(property, cases), tests(property, cases, bundles));
            writeln!(text, "| `{}` | {here} | {tests} |", property.name).unwrap();
        }
    }
    text.push('\n');
    text
}

fn summary(sections: &[Section], golden: &Golden, bundles: &[Bundle]) -> String {
    let (mut supported, mut seen, mut refused, mut without, mut foreign) = (0, 0, 0, 0, 0);
    for property in super::properties(sections) {
        let here = here(property, golden.cases(&property.name));
        let count = match here.split([':', ' ', ';']).next().unwrap_or_default() {
            "supported" => {
                let compared = bundles.iter().any(|bundle| bundle.is_about(&property.name));
                seen += usize::from(compared || !property.guest.is_empty());
                &mut supported
            }
            "refused" => &mut refused,
            "without" => &mut without,
            _ => &mut foreign,
        };
        *count += 1;
    }
    format!(
        "\n{} properties and words: {supported} supported, {seen} of them seen in guests; {refused} refused, {without} \
         without effect, {foreign} not applicable.\n",
        supported + refused + without + foreign
    )
}

/// What becomes of a property: its golden cases say it, and its reasons why.
fn here(property: &Property, cases: &[Case]) -> String {
    let name = &property.name;
    if let Some(reason) = &property.not_applicable {
        return format!("not applicable: {reason}");
    }
    let has = |outcome: &Outcome| cases.iter().any(|case| case.outcome == *outcome);
    let warning = cases.iter().find_map(|case| match &case.outcome {
        Outcome::Warning(text) => Some(text),
        _ => None,
    });
    let errors: BTreeSet<&str> = cases
        .iter()
        .filter_map(|case| match &case.outcome {
            Outcome::Refusal(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let errors: Vec<String> = errors.into_iter().map(quoted).collect();
    let wrong =
        if errors.is_empty() { String::new() } else { format!("; wrong values: {}", errors.join(", ")) };
    match (&property.without_effect, &property.elsewhere) {
        (Some(reason), _) => {
            assert!(has(&Outcome::Nothing) || has(&Outcome::Effect), "{name} is refused, not without effect");
            format!("without effect: {reason}{wrong}")
        }
        (_, Some(where_)) => {
            assert!(has(&Outcome::Nothing) || has(&Outcome::Effect), "{name} is refused, not {where_}");
            format!("supported: {where_}{wrong}")
        }
        _ if has(&Outcome::Effect) => format!("supported{wrong}"),
        _ => match warning {
            Some(warning) => format!("without effect, warned of: {}{wrong}", quoted(warning)),
            // The first case is the plain use; an empty list after it asks for nothing.
            None if cases.first().is_some_and(|case| case.outcome == Outcome::Nothing) => {
                panic!("{name} is taken and ignored: properties.toml must say why")
            }
            None => format!("refused: {}", errors.join(", ")),
        },
    }
}

/// Code in a cell of a table.
fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(LONGEST_ERROR).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    let short = short.replace('|', "\\|").replace(['\n', '\r'], " ");
    if short.contains('`') { format!("`` {short} ``") } else { format!("`{short}`") }
}

fn tests(property: &Property, cases: &[Case], bundles: &[Bundle]) -> String {
    let files: BTreeSet<&str> = cases.iter().map(|case| case.file.as_str()).collect();
    let golden = files.into_iter().map(|file| format!("[{file}](../agent/rustjail/golden/{file}.json)"));
    let guest = property.guest.iter().map(|name| format!("`{name}`"));
    let oracle = bundles
        .iter()
        .filter(|bundle| bundle.is_about(&property.name))
        .map(|bundle| format!("oracle `{}`", bundle.name));
    golden.chain(guest).chain(oracle).collect::<Vec<_>>().join(", ")
}
