//! YAML as a tree of which every value knows its line.
//!
//! Owns the bounds on what a file may hold: aliases make small files large. Knows nothing of pods.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, ScanError};

/// The most bytes of a file.
const MAX_BYTES: usize = 4 << 20;
/// The most values of a file, those that aliases repeat included.
const MAX_NODES: usize = 200_000;
/// How deep values may lie in one another.
const MAX_DEPTH: usize = 64;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// The line it begins on, from 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing: `~`, `null`, or nothing at all.
    Null,
    /// One word or text.
    Scalar {
        text: String,
        /// Without quotes, so that `1` is a number and `true` is no text.
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Pair>),
}

/// A key of a mapping and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) key: String,
    /// The key's line.
    pub(super) line: usize,
    pub(super) node: Node,
}

impl Node {
    /// Whether this is as good as nothing: null, `false`, an empty text, list or mapping.
    pub(super) fn is_empty(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Scalar { text, plain } => text.is_empty() || (*plain && text == "false"),
            Value::List(list) => list.is_empty(),
            Value::Map(map) => map.is_empty(),
        }
    }

    /// The value of a key of a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(pairs) => pairs.iter().find(|pair| pair.key == key).map(|pair| &pair.node),
            _ => None,
        }
    }

    /// A text or word.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }
}

/// Why a file is no YAML that is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(super) struct YamlError {
    pub(super) line: usize,
    pub(super) problem: String,
}

impl From<ScanError> for YamlError {
    fn from(error: ScanError) -> Self {
        Self { line: error.marker().line(), problem: error.info() }
    }
}

/// Reads the documents of a file. Empty ones are left out.
///
/// # Errors
/// What is no YAML, and what is beyond the bounds.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, YamlError> {
    if text.len() > MAX_BYTES {
        return Err(YamlError { line: 1, problem: format!("the file is larger than {MAX_BYTES} bytes") });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder { anchors: HashMap::new(), nodes: 0, open: Vec::new(), documents: Vec::new() };
    // Comments are nobody's here, and a parser that keeps them bounds how many there can be in a row.
    let options = granit_parser::options! { emit_comments: false };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event?;
        builder.take(event, span.start.line())?;
    }
    Ok(builder.documents)
}

/// What has been read so far.
struct Builder {
    anchors: HashMap<usize, Node>,
    nodes: usize,
    /// Lists and mappings that have not ended, each in the one before.
    open: Vec<Open>,
    documents: Vec<Node>,
}

struct Open {
    line: usize,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        pairs: Vec<Pair>,
        keys: HashSet<String>,
        /// A key that waits for its value.
        waiting: Option<(String, usize)>,
    },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), YamlError> {
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Alias(id) => {
                let found = self.anchors.get(&id).cloned();
                let node =
                    found.ok_or_else(|| wrong(line, "an alias stands inside of what it stands for"))?;
                self.nodes += count(&node);
                self.add(node, line)?;
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let value = if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Value::Null
                } else {
                    Value::Scalar { text: text.into_owned(), plain }
                };
                self.nodes += 1;
                let node = Node { line, value };
                self.remember(anchor, &node);
                self.add(node, line)?;
            }
            Event::SequenceStart(_, anchor, _) => self.open(line, anchor, Content::List(Vec::new()))?,
            Event::MappingStart(_, anchor, _) => {
                let map = Content::Map { pairs: Vec::new(), keys: HashSet::new(), waiting: None };
                self.open(line, anchor, map)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { line, anchor, content }) = self.open.pop() {
                    let value = match content {
                        Content::List(list) => Value::List(list),
                        Content::Map { pairs, .. } => Value::Map(merged(pairs)?),
                    };
                    let node = Node { line, value };
                    self.remember(anchor, &node);
                    self.add(node, line)?;
                }
            }
            _ => {}
        }
        if self.nodes > MAX_NODES {
            return Err(wrong(line, &format!("the file has more than {MAX_NODES} values, aliases followed")));
        }
        Ok(())
    }

    fn open(&mut self, line: usize, anchor: usize, content: Content) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.open.len() == MAX_DEPTH {
            return Err(wrong(line, &format!("values lie more than {MAX_DEPTH} deep in one another")));
        }
        self.open.push(Open { line, anchor, content });
        Ok(())
    }

    fn remember(&mut self, anchor: usize, node: &Node) {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
    }

    fn add(&mut self, node: Node, line: usize) -> Result<(), YamlError> {
        match self.open.last_mut().map(|open| &mut open.content) {
            None if node.value == Value::Null => {}
            None => self.documents.push(node),
            Some(Content::List(list)) => list.push(node),
            Some(Content::Map { pairs, keys, waiting }) => match waiting.take() {
                Some((key, line)) => pairs.push(Pair { key, line, node }),
                None => {
                    let Value::Scalar { text, .. } = node.value else {
                        return Err(wrong(line, "a key that is no word"));
                    };
                    if !keys.insert(text.clone()) {
                        return Err(wrong(line, &format!("the key {text:?} is there twice")));
                    }
                    *waiting = Some((text, line));
                }
            },
        }
        Ok(())
    }
}

/// Resolves `<<`: keys of another mapping that this one does not have itself.
fn merged(pairs: Vec<Pair>) -> Result<Vec<Pair>, YamlError> {
    let (merges, mut own): (Vec<Pair>, Vec<Pair>) = pairs.into_iter().partition(|pair| pair.key == "<<");
    let mut known: HashSet<String> = own.iter().map(|pair| pair.key.clone()).collect();
    for merge in merges {
        let sources = match merge.node.value {
            Value::List(list) => list,
            value => vec![Node { line: merge.node.line, value }],
        };
        for source in sources {
            let Value::Map(pairs) = source.value else {
                return Err(wrong(merge.line, "<< takes a mapping or a list of them"));
            };
            for pair in pairs {
                if known.insert(pair.key.clone()) {
                    own.push(pair);
                }
            }
        }
    }
    Ok(own)
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(list) => list.iter().map(count).sum(),
        Value::Map(pairs) => pairs.iter().map(|pair| 1 + count(&pair.node)).sum(),
        _ => 0,
    }
}

fn wrong(line: usize, problem: &str) -> YamlError {
    YamlError { line, problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        documents(text).unwrap().remove(0)
    }

    #[test]
    fn every_value_knows_its_line() {
        let node = one("a: 1\nb:\n  - x\n  - c: 'y'\n");
        let Value::Map(pairs) = &node.value else { panic!("{node:?}") };
        assert_eq!((pairs[0].line, pairs[1].line), (1, 2));
        let Value::List(list) = &pairs[1].node.value else { panic!("{node:?}") };
        assert_eq!((list[0].line, list[1].line), (3, 4));
        assert_eq!(list[1].get("c").unwrap().value, Value::Scalar { text: "y".into(), plain: false });
    }

    #[test]
    fn documents_are_kept_apart_and_empty_ones_left_out() {
        let documents = documents("---\n# nothing\n---\na: 1\n---\nb: 2\n...\n").unwrap();
        assert_eq!(documents.iter().map(|document| document.line).collect::<Vec<_>>(), [4, 6]);
    }

    #[test]
    fn aliases_and_merges_are_followed() {
        let node = one("base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\n");
        let other = node.get("other").unwrap();
        assert_eq!((other.get("x").unwrap().text(), other.get("y").unwrap().text()), (Some("1"), Some("3")));
    }

    #[test]
    fn bounds_hold() {
        let mut bomb = "a0: &a0 [x]\n".to_owned();
        for level in 1..20 {
            let before = format!("*a{}, ", level - 1).repeat(9);
            bomb += &format!("a{level}: &a{level} [{before}x]\n");
        }
        assert!(documents(&bomb).unwrap_err().problem.contains("values"), "aliases");
        let deep = "[".repeat(70) + &"]".repeat(70);
        assert!(documents(&deep).unwrap_err().problem.contains("deep"), "depth");
        assert!(documents(&" ".repeat(MAX_BYTES + 1)).is_err());
        assert!(documents("a: &a [*a]\n").unwrap_err().problem.contains("alias"));
    }

    #[test]
    fn what_is_no_yaml_has_a_line() {
        assert_eq!(documents("a: 1\nb: [\n").unwrap_err().line, 2);
        let twice = documents("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!((twice.line, twice.problem.as_str()), (3, "the key \"a\" is there twice"));
        assert_eq!(documents("a: 1\n[b]: 2\n").unwrap_err().line, 2);
    }
}
