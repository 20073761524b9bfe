//! Reads the keys of a mapping by a schema, and collects all errors.
//!
//! A [`Schema`] says how each key is treated. Reading continues after an error, so that all errors of a file are reported at
//! once. The schemas are also the tables of the documentation. A test fails if a schema calls a key honoured and no code reads
//! it. So the documentation cannot promise more than the code does.

use std::cell::RefCell;

use super::yaml::{Node, Value};
use crate::run::pod::Problem;

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is done; in some words for the documentation.
    Honoured(&'static str),
    /// It is taken without effect, because of this.
    Ignored(&'static str),
    /// It cannot be done, because of this.
    Refused(&'static str),
}

pub(super) use Meaning::{Honoured, Ignored, Refused};

/// The keys of one kind of mapping.
#[derive(Debug)]
pub(super) struct Schema {
    /// The kind's name in Kubernetes' API.
    pub(super) name: &'static str,
    pub(super) keys: &'static [(&'static str, Meaning)],
}

/// What was found wrong, and what was left out.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    ignored: RefCell<Vec<String>>,
}

impl Report {
    pub(super) fn problem(&self, line: usize, place: impl Into<String>, text: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { line, place: place.into(), text: text.into() });
    }

    /// Notes that something has no effect.
    pub(super) fn ignored(&self, place: impl Into<String>) {
        let place = place.into();
        let mut ignored = self.ignored.borrow_mut();
        if !ignored.contains(&place) {
            ignored.push(place);
        }
    }

    /// The problems in the order of their lines, and what was ignored.
    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<String>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        (problems, self.ignored.into_inner())
    }
}

/// A value and where it stands.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) node: &'a Node,
    pub(super) line: usize,
    pub(super) report: &'a Report,
    place: &'a str,
    key: Key<'a>,
}

#[derive(Clone, Copy)]
enum Key<'a> {
    None,
    Name(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    /// A document, and what it is called in front of everything in it; nothing for the pod.
    pub(super) fn root(node: &'a Node, report: &'a Report, place: &'a str) -> Self {
        Self { node, line: node.line, report, place, key: Key::None }
    }

    /// Where it stands, such as `spec.containers[0].image`.
    pub(super) fn place(&self) -> String {
        match self.key {
            Key::None => self.place.to_owned(),
            Key::Name(name) if self.place.is_empty() => name.to_owned(),
            Key::Name(name) => format!("{}.{name}", self.place),
            Key::Index(index) => format!("{}[{index}]", self.place),
        }
    }

    /// Reports a problem with it.
    pub(super) fn wrong(&self, problem: impl Into<String>) {
        self.report.problem(self.line, self.place(), problem);
    }

    /// Reports an error's text, and answers what there is besides.
    pub(super) fn checked<T>(&self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.wrong(problem)).ok()
    }

    /// A text. A bare number or truth value is none, as in Kubernetes.
    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, plain: true } if is_no_text(text) => {
                self.wrong(format!("{text} is no text; put it in quotes"));
                None
            }
            Value::Scalar { text, .. } => Some(text),
            _ => {
                self.wrong("is no text");
                None
            }
        }
    }

    /// A text or a number, as text.
    pub(super) fn word(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, .. } => Some(text),
            _ => {
                self.wrong("is neither a number nor a text");
                None
            }
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let found = match &self.node.value {
            Value::Scalar { text, plain: true } => truth(text),
            _ => None,
        };
        if found.is_none() {
            self.wrong("is neither true nor false");
        }
        found
    }

    /// A whole number within bounds.
    pub(super) fn number<T>(&self, least: T, most: T) -> Option<T>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let parsed = match &self.node.value {
            Value::Scalar { text, plain: true } => text.parse::<T>().ok(),
            _ => None,
        };
        let found = parsed.filter(|number| *number >= least && *number <= most);
        if found.is_none() {
            self.wrong(format!("is no whole number from {least} to {most}"));
        }
        found
    }

    /// The values of a list.
    pub(super) fn list<'b>(&self, place: &'b str) -> Vec<At<'b>>
    where
        'a: 'b,
    {
        match &self.node.value {
            Value::List(list) => {
                let at = |(index, node): (usize, &'a Node)| At {
                    node,
                    line: node.line,
                    report: self.report,
                    place,
                    key: Key::Index(index),
                };
                list.iter().enumerate().map(at).collect()
            }
            _ => {
                self.wrong("is no list");
                Vec::new()
            }
        }
    }

    pub(super) fn texts(&self) -> Vec<String> {
        let place = self.place();
        self.list(&place).iter().filter_map(At::text).map(str::to_owned).collect()
    }

    /// The values of a mapping whose keys are the user's.
    pub(super) fn entries<'b>(&self, place: &'b str) -> Vec<(&'a str, At<'b>)>
    where
        'a: 'b,
    {
        match &self.node.value {
            Value::Map(pairs) => pairs
                .iter()
                .map(|pair| {
                    let (report, key) = (self.report, Key::Name(pair.key.as_str()));
                    (pair.key.as_str(), At { node: &pair.node, line: pair.line, report, place, key })
                })
                .collect(),
            _ => {
                self.wrong("is no mapping");
                Vec::new()
            }
        }
    }

    /// Texts by name.
    pub(super) fn text_map(&self) -> Vec<(String, String)> {
        let place = self.place();
        let entries = self.entries(&place);
        entries.iter().filter_map(|(key, at)| Some(((*key).to_owned(), at.text()?.to_owned()))).collect()
    }

    /// A mapping with the keys of a schema. Keys that are unknown or refused are reported, ignored ones noted.
    pub(super) fn fields(&self, schema: &'static Schema) -> Option<Fields<'a>> {
        let Value::Map(pairs) = &self.node.value else {
            self.wrong("is no mapping");
            return None;
        };
        let place = self.place();
        for pair in pairs {
            let here = || if place.is_empty() { pair.key.clone() } else { format!("{place}.{}", pair.key) };
            match schema.keys.iter().find(|(key, _)| *key == pair.key).map(|(_, meaning)| meaning) {
                Some(Honoured(_)) => {}
                Some(_) if pair.node.is_empty() => {}
                Some(Ignored(_)) => self.report.ignored(here()),
                Some(Refused(why)) => self.report.problem(pair.line, here(), *why),
                None => self.report.problem(pair.line, here(), unknown(&pair.key, schema)),
            }
        }
        Some(Fields { schema, node: self.node, line: self.line, place, report: self.report })
    }
}

/// Why a key that is not in the schema cannot be.
fn unknown(key: &str, schema: &Schema) -> String {
    // What a plugin of a node, or a node with huge pages, would give.
    if schema.name.starts_with("ResourceList") && (key.contains('/') || key.starts_with("hugepages-")) {
        return "nobody provides it here; there are cpu, memory and ephemeral-storage".to_owned();
    }
    let article = if schema.name.starts_with(['A', 'E', 'I', 'O']) { "an" } else { "a" };
    format!("there is no such key in {article} {}{}", schema.name, resembling(key, schema))
}

/// The key that was meant, perhaps: one that differs in case only.
fn resembling(key: &str, schema: &Schema) -> String {
    let found = schema.keys.iter().find(|(known, _)| known.eq_ignore_ascii_case(key));
    found.map_or_else(String::new, |(known, _)| format!("; it is written {known}"))
}

/// A mapping whose keys are a schema's.
pub(super) struct Fields<'a> {
    schema: &'static Schema,
    node: &'a Node,
    pub(super) line: usize,
    pub(super) place: String,
    pub(super) report: &'a Report,
}

#[cfg(test)]
thread_local! {
    /// Which keys of which schemas this test has read.
    pub(super) static ASKED: RefCell<std::collections::BTreeSet<(&'static str, &'static str)>> = RefCell::default();
}

impl<'a> Fields<'a> {
    /// The value of a key; none where it is absent or null.
    pub(super) fn at(&self, key: &'static str) -> Option<At<'_>> {
        self.at_even_null(key).filter(|at| at.node.value != Value::Null)
    }

    /// The value of a key, also where it is null.
    pub(super) fn at_even_null(&self, key: &'static str) -> Option<At<'_>> {
        debug_assert!(
            self.schema.keys.iter().any(|(known, meaning)| *known == key && matches!(meaning, Honoured(_))),
            "{key} is not honoured in the schema of {}",
            self.schema.name
        );
        #[cfg(test)]
        ASKED.with(|asked| asked.borrow_mut().insert((self.schema.name, key)));
        let Value::Map(pairs) = &self.node.value else { return None };
        let pair = pairs.iter().find(|pair| pair.key == key)?;
        let (place, report) = (self.place.as_str(), self.report);
        Some(At { node: &pair.node, line: pair.line, report, place, key: Key::Name(key) })
    }

    pub(super) fn text(&self, key: &'static str) -> Option<&str> {
        self.at(key)?.text()
    }

    /// A text that must be there.
    pub(super) fn needed(&self, key: &'static str) -> Option<&str> {
        match self.at(key) {
            Some(at) => at.text(),
            None => {
                self.wrong(format!("{key} is missing"));
                None
            }
        }
    }

    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        self.at(key)?.boolean()
    }

    pub(super) fn flag(&self, key: &'static str) -> bool {
        self.boolean(key).unwrap_or(false)
    }

    pub(super) fn number<T>(&self, key: &'static str, least: T, most: T) -> Option<T>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        self.at(key)?.number(least, most)
    }

    /// A number of seconds or the like.
    pub(super) fn count(&self, key: &'static str, least: u32) -> Option<u32> {
        self.number(key, least, i32::MAX.cast_unsigned())
    }

    /// A user's or group's number.
    pub(super) fn id(&self, key: &'static str) -> Option<u32> {
        self.number(key, 0, u32::MAX - 1)
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let at = self.at(key)?;
        let text = at.text()?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<&str> =
                choices.iter().map(|(word, _)| *word).filter(|word| !word.is_empty()).collect();
            at.wrong(format!("{text:?} is none of {}", words.join(", ")));
        }
        found
    }

    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        Some(self.at(key)?.texts())
    }

    /// Reads a list by a function, which reports what is wrong and then answers nothing.
    pub(super) fn each<T>(&self, key: &'static str, read: impl FnMut(At<'_>) -> Option<T>) -> Vec<T> {
        let Some(at) = self.at(key) else { return Vec::new() };
        let place = at.place();
        at.list(&place).into_iter().filter_map(read).collect()
    }

    /// A mapping below.
    pub(super) fn fields(&self, key: &'static str, schema: &'static Schema) -> Option<Fields<'_>> {
        self.at(key)?.fields(schema)
    }

    pub(super) fn wrong(&self, problem: impl Into<String>) {
        self.report.problem(self.line, self.place.as_str(), problem);
    }

    /// Of several keys the one that is there. Reports when it is not exactly one.
    pub(super) fn exactly_one(&self, keys: &[&'static str]) -> Option<&'static str> {
        let there: Vec<&'static str> = keys.iter().copied().filter(|key| self.at(key).is_some()).collect();
        match there.as_slice() {
            [one] => Some(*one),
            [] => {
                // A refused one was reported as such.
                let refused = self.node_keys().any(|key| {
                    self.schema
                        .keys
                        .iter()
                        .any(|(known, meaning)| *known == key && matches!(meaning, Refused(_)))
                });
                if !refused {
                    self.wrong(format!("needs one of {}", keys.join(", ")));
                }
                None
            }
            several => {
                self.wrong(format!("has {}, of which there can be one", several.join(" and ")));
                None
            }
        }
    }

    fn node_keys(&self) -> impl Iterator<Item = &'a str> {
        let pairs = match &self.node.value {
            Value::Map(pairs) => pairs.as_slice(),
            _ => &[],
        };
        pairs.iter().map(|pair| pair.key.as_str())
    }
}

/// The truth value of a bare word, by YAML 1.1, which is what kubectl reads.
fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Whether a bare word is a number or a truth value.
fn is_no_text(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    let number =
        digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && digits.parse::<f64>().is_ok();
    let hex = digits.strip_prefix("0x").is_some_and(|rest| u64::from_str_radix(rest, 16).is_ok());
    number || hex || truth(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;

    static TEST: Schema = Schema {
        name: "Test",
        keys: &[
            ("done", Honoured("")),
            ("list", Honoured("")),
            ("idle", Ignored("no reason")),
            ("never", Refused("cannot be")),
        ],
    };

    fn read(text: &str) -> (Vec<String>, Vec<String>) {
        let documents = yaml::documents(text).unwrap();
        let report = Report::default();
        if let Some(fields) = At::root(&documents[0], &report, "").fields(&TEST) {
            fields.text("done");
            fields.each("list", |at| at.number(1, 5));
        }
        let (problems, ignored) = report.into_parts();
        (problems.iter().map(ToString::to_string).collect(), ignored)
    }

    #[test]
    fn all_problems_are_told_with_their_lines() {
        let (problems, ignored) =
            read("never: 1\nidle: [a]\nDone: x\ndone: 5\nlist: [1, 9,\n  x]\nother: {}\n");
        assert_eq!(
            problems,
            [
                "line 1: never: cannot be",
                "line 3: Done: there is no such key in a Test; it is written done",
                "line 4: done: 5 is no text; put it in quotes",
                "line 5: list[1]: is no whole number from 1 to 5",
                "line 6: list[2]: is no whole number from 1 to 5",
                "line 7: other: there is no such key in a Test",
            ]
        );
        assert_eq!(ignored, ["idle"]);
    }

    #[test]
    fn what_is_empty_is_neither_refused_nor_noted() {
        for empty in ["null", "", "false", "[]", "{}", "''"] {
            assert_eq!(read(&format!("never: {empty}\nidle: {empty}\n")), (vec![], vec![]), "{empty}");
        }
    }

    #[test]
    fn bare_words_are_texts_unless_kubectl_reads_something_else() {
        for text in ["1", "-1.5", "1e3", "0x10", "true", "Yes", "off", ".5"] {
            assert!(is_no_text(text), "{text}");
        }
        for text in ["a", "1.2.3", "64Mi", "-", "--retry", "y", "inf", "nan", "127.0.0.1", "10s"] {
            assert!(!is_no_text(text), "{text}");
        }
    }
}
