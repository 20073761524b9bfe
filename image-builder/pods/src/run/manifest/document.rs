//! The documents of a file: which is the pod, and what it can refer to.

use std::collections::BTreeMap;

use super::base64;
use super::fields::{At, Honoured, Ignored, Report, Schema};
use super::metadata::METADATA;
use super::yaml::{Node, Value};
use crate::run::pod::PodError;

static CONFIG_MAP: Schema = Schema {
    name: "ConfigMap",
    keys: &[
        ("apiVersion", Honoured("`v1`")),
        ("kind", Honoured("`ConfigMap`")),
        ("metadata", Honoured("its `name`")),
        ("data", Honoured("texts, for variables and files")),
        ("binaryData", Honoured("base64, for files")),
        ("immutable", Ignored("nothing can change it here")),
    ],
};

static SECRET: Schema = Schema {
    name: "Secret",
    keys: &[
        ("apiVersion", Honoured("`v1`")),
        ("kind", Honoured("`Secret`")),
        ("metadata", Honoured("its `name`")),
        ("data", Honoured("base64, for variables and files")),
        ("stringData", Honoured("texts, which win over `data`")),
        ("type", Ignored("only a cluster's own users of secrets look at it")),
        ("immutable", Ignored("nothing can change it here")),
    ],
};

#[cfg(test)]
pub(super) static SCHEMAS: &[&Schema] = &[&CONFIG_MAP, &SECRET];

/// Keys and their content.
pub(super) type Data = BTreeMap<String, Vec<u8>>;

/// What a pod can refer to.
#[derive(Debug, Default)]
pub(super) struct Sources {
    config_maps: BTreeMap<String, Data>,
    secrets: BTreeMap<String, Data>,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceKind {
    ConfigMap,
    Secret,
}

impl SourceKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

impl Sources {
    /// What a ConfigMap or Secret has; nothing where it is optional and absent. Reports it where it has to be there.
    pub(super) fn find(&self, kind: SourceKind, name: &str, optional: bool, at: &At<'_>) -> Option<&Data> {
        let all = match kind {
            SourceKind::ConfigMap => &self.config_maps,
            SourceKind::Secret => &self.secrets,
        };
        let found = all.get(name);
        if found.is_none() && !optional {
            let names: Vec<&str> = all.keys().map(String::as_str).collect();
            let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            at.wrong(format!("there is no {} {name:?} in this file, which has {has}", kind.name()));
        }
        found
    }
}

/// What a file has.
pub(super) struct File<'a> {
    pub(super) sources: Sources,
    pods: Vec<(&'a str, &'a Node)>,
    others: Vec<String>,
}

/// Tells the documents of a file apart. Reports what is wrong with those that a pod may need.
pub(super) fn sort<'a>(documents: &'a [Node], report: &Report) -> File<'a> {
    let mut file = File { sources: Sources::default(), pods: Vec::new(), others: Vec::new() };
    for document in documents {
        file.take(document, report);
    }
    // Beside a pod they are left out; without one they are what is there instead.
    if !file.pods.is_empty() {
        for other in &file.others {
            report.ignored(other.clone());
        }
    }
    file
}

impl<'a> File<'a> {
    fn take(&mut self, document: &'a Node, report: &Report) {
        let word = |key: &str| document.get(key).and_then(Node::text).unwrap_or_default();
        let name = document.get("metadata").and_then(|meta| meta.get("name")).and_then(Node::text);
        let name = name.unwrap_or_default();
        match (word("apiVersion"), word("kind")) {
            ("v1", "Pod") => self.pods.push((name, document)),
            ("v1", "ConfigMap") => {
                if let Some((name, data)) =
                    config_map(At::root(document, report, &format!("ConfigMap {name}")))
                {
                    self.sources.config_maps.insert(name, data);
                }
            }
            ("v1", "Secret") => {
                if let Some((name, data)) = secret(At::root(document, report, &format!("Secret {name}"))) {
                    self.sources.secrets.insert(name, data);
                }
            }
            (_, kind) if kind.ends_with("List") && document.get("items").is_some() => {
                if let Some(Node { value: Value::List(items), .. }) = document.get("items") {
                    for item in items {
                        self.take(item, report);
                    }
                }
            }
            (_, "") => self.others.push(format!("the document on line {}, which has no kind", document.line)),
            (version, kind) => {
                let group = version.rsplit_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
                self.others.push(format!("{kind}{group} {name} (line {})", document.line));
            }
        }
    }

    /// The only pod, or that of a name.
    pub(super) fn choose(&self, name: Option<&str>) -> Result<&'a Node, PodError> {
        let names = || {
            let named = self.pods.iter().map(|(name, node)| format!("{name} (line {})", node.line));
            named.collect::<Vec<_>>().join(", ")
        };
        let refuse = |text: String| Err(PodError::Choice(text));
        let found: Vec<&'a Node> = match name {
            Some(name) => {
                self.pods.iter().filter(|(known, _)| *known == name).map(|(_, node)| *node).collect()
            }
            None => self.pods.iter().map(|(_, node)| *node).collect(),
        };
        match (found.as_slice(), name) {
            ([one], _) => Ok(*one),
            ([], Some(name)) if !self.pods.is_empty() => {
                refuse(format!("the file has no Pod {name:?}; it has {}", names()))
            }
            ([], _) => refuse(match self.others.as_slice() {
                [] => "the file has no Pod (kind: Pod of apiVersion: v1)".to_owned(),
                others => format!(
                    "the file has no Pod (kind: Pod of apiVersion: v1), but {}; `run` takes a pod: write the template of a \
                     workload as one",
                    others.join(", ")
                ),
            }),
            (_, Some(name)) => refuse(format!("the file has several Pods {name:?}: {}", names())),
            (_, None) => {
                refuse(format!("the file has several Pods: {}; choose one with --pod NAME", names()))
            }
        }
    }
}

fn config_map(at: At<'_>) -> Option<(String, Data)> {
    let fields = at.fields(&CONFIG_MAP)?;
    let mut data = Data::new();
    for key in ["apiVersion", "kind"] {
        fields.text(key);
    }
    if let Some(at) = fields.at("data") {
        data.extend(at.text_map().into_iter().map(|(key, text)| (key, text.into_bytes())));
    }
    if let Some(at) = fields.at("binaryData") {
        data.extend(decoded(&at));
    }
    name(&fields).map(|name| (name, data))
}

fn secret(at: At<'_>) -> Option<(String, Data)> {
    let fields = at.fields(&SECRET)?;
    for key in ["apiVersion", "kind"] {
        fields.text(key);
    }
    let mut data = fields.at("data").map(|at| decoded(&at)).unwrap_or_default();
    if let Some(at) = fields.at("stringData") {
        data.extend(at.text_map().into_iter().map(|(key, text)| (key, text.into_bytes())));
    }
    name(&fields).map(|name| (name, data))
}

fn name(fields: &super::fields::Fields<'_>) -> Option<String> {
    let meta = fields.fields("metadata", &METADATA)?;
    for key in ["namespace", "uid", "generateName"] {
        meta.text(key);
    }
    for key in ["labels", "annotations"] {
        meta.at(key);
    }
    meta.needed("name").map(str::to_owned)
}

fn decoded(at: &At<'_>) -> Data {
    let place = at.place();
    let entries = at.entries(&place);
    let bytes = entries.iter().filter_map(|(key, at)| {
        let text = if at.node.value == Value::Null { "" } else { at.word()? };
        match base64::decode(text) {
            Some(bytes) => Some(((*key).to_owned(), bytes)),
            None => {
                at.wrong("is no base64; plain text goes into stringData or a ConfigMap's data");
                None
            }
        }
    });
    bytes.collect()
}
