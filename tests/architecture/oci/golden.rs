//! What the golden files of rustjail say of properties.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::source::workspace;

/// One case on a property.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Name of the file, without its ending.
    pub(crate) file: String,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// It changes what is decided.
    Effect,
    /// It is warned of, and nothing else.
    Warning(String),
    /// It changes nothing.
    Nothing,
    /// The text of the refusal.
    Refusal(String),
}

/// All cases, by property.
pub(crate) struct Golden(BTreeMap<String, Vec<Case>>);

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    properties: Vec<String>,
    cases: Vec<FileCase>,
}

#[derive(Deserialize)]
struct FileCase {
    #[serde(default)]
    properties: Vec<String>,
    error: Option<String>,
    #[serde(default)]
    changed: Map<String, Value>,
    #[serde(default)]
    removed: Vec<String>,
}

impl FileCase {
    fn outcome(self) -> Outcome {
        if let Some(error) = self.error {
            return Outcome::Refusal(error);
        }
        let lists = ["cgroup/warnings", "warnings"].map(|place| self.changed.get(place));
        let warnings = lists.into_iter().flatten().next().and_then(|list| list[0].as_str());
        match (self.changed.len() + self.removed.len(), warnings) {
            (0, _) => Outcome::Nothing,
            (1, Some(warning)) => Outcome::Warning(warning.to_owned()),
            _ => Outcome::Effect,
        }
    }
}

/// The files of a directory with this ending, sorted.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(workspace().join(directory));
    let mut files: Vec<PathBuf> = entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == ending));
    files.sort();
    files
}

impl Golden {
    pub(crate) fn read() -> Golden {
        let mut all: BTreeMap<String, Vec<Case>> = BTreeMap::new();
        for path in files("agent/rustjail/golden", "json").iter().filter(|path| !path.ends_with("base.json"))
        {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let file: File = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            for mut case in file.cases {
                let own = std::mem::take(&mut case.properties);
                let properties = if own.is_empty() { file.properties.clone() } else { own };
                assert!(!properties.is_empty(), "{name}: a case names no property");
                let outcome = case.outcome();
                let mut add = |property: &str| {
                    let case = Case { file: name.to_owned(), outcome: outcome.clone() };
                    all.entry(property.to_owned()).or_default().push(case);
                };
                for property in &properties {
                    add(property);
                }
                // What holds for a word holds for the list that it stands in.
                let lists: BTreeSet<&str> =
                    properties.iter().filter_map(|property| Some(property.split_once(": ")?.0)).collect();
                lists.into_iter().filter(|list| !properties.iter().any(|other| other == list)).for_each(add);
            }
        }
        Golden(all)
    }

    pub(crate) fn cases(&self, property: &str) -> &[Case] {
        self.0.get(property).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn properties(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
