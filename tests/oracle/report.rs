//! Reads what the guest printed, and compares two runs.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::bundle::Bundle;

/// One bundle, run by one runtime.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) status: i32,
    /// The probe's report, or what else came on stdout.
    pub(crate) seen: Value,
    /// What came on stderr.
    pub(crate) said: String,
    /// What the bundle's own look printed.
    pub(crate) after: String,
    /// What was there after it and not before, or the other way round.
    pub(crate) left: Vec<String>,
}

/// All runs.
#[derive(Debug)]
pub(crate) struct Reports {
    runs: BTreeMap<(String, String), Run>,
    /// Namespaces of the guest and those that are joined, by kind and number.
    namespaces: BTreeMap<String, String>,
}

/// Something that two runs see differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Section and entry.
    pub(crate) place: String,
    pub(crate) ours: String,
    pub(crate) theirs: String,
}

impl Reports {
    pub(crate) fn parse(text: &str) -> Result<Reports> {
        let mut reports = Reports { runs: BTreeMap::new(), namespaces: BTreeMap::new() };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["@@namespace", kind, link] => {
                    reports.namespaces.insert((*link).to_owned(), format!("the guest's {kind}"));
                }
                ["@@joined", kind, number] => {
                    reports.namespaces.insert(format!("{kind}:[{number}]"), format!("the joined {kind}"));
                }
                _ => {}
            }
        }
        for part in text.split("@@begin ").skip(1) {
            let (head, rest) = part.split_once('\n').context("a run without an end")?;
            let words: Vec<&str> = head.split_whitespace().collect();
            let [name, runtime, status] = words.as_slice() else { anyhow::bail!("odd words: {head}") };
            let section = |from: &str, to: &str| -> Result<String> {
                let rest = rest.split_once(from).with_context(|| format!("{head}: no {from:?}"))?.1;
                Ok(rest.split_once(to).with_context(|| format!("{head}: no {to:?}"))?.0.trim().to_owned())
            };
            let out = rest.split_once("@@said").with_context(|| format!("{head}: cut"))?.0.trim();
            let run = Run {
                status: status.parse()?,
                seen: serde_json::from_str(out).unwrap_or_else(|_| json!({ "stdout": out })),
                said: section("@@said\n", "@@after")?,
                after: section("@@after\n", "@@left")?,
                left: section("@@left\n", "@@end")?.lines().map(str::to_owned).collect(),
            };
            reports.runs.insert(((*name).to_owned(), (*runtime).to_owned()), run);
        }
        Ok(reports)
    }

    pub(crate) fn run(&self, bundle: &str, runtime: &str) -> Result<&Run> {
        self.runs
            .get(&(bundle.to_owned(), runtime.to_owned()))
            .with_context(|| format!("{bundle} was not run by {runtime}"))
    }

    /// What two runs of a bundle see differently, entry by entry.
    pub(crate) fn compare(&self, bundle: &Bundle, ours: &Run, theirs: &Run) -> Vec<Difference> {
        let mut list = Vec::new();
        let mut differ = |place: &str, ours: &Value, theirs: &Value| {
            if ours != theirs {
                list.push(Difference {
                    place: place.to_owned(),
                    ours: ours.to_string(),
                    theirs: theirs.to_string(),
                });
            }
        };
        if bundle.is_refused {
            differ("refused", &json!(ours.status != 0), &json!(theirs.status != 0));
        } else {
            differ("status", &json!(ours.status), &json!(theirs.status));
            if theirs.status != 0 && ours.status == 0 {
                // Nothing to compare with; the reason for the list.
                return list;
            }
            let (ours, theirs) = (self.flat(&ours.seen), self.flat(&theirs.seen));
            for place in ours.keys().chain(theirs.keys().filter(|place| !ours.contains_key(*place))) {
                let none = Value::Null;
                differ(place, ours.get(place).unwrap_or(&none), theirs.get(place).unwrap_or(&none));
            }
        }
        differ("after", &json!(ours.after), &json!(theirs.after));
        list
    }

    /// A report as places and values. Lists whose entries begin with a name are taken apart.
    fn flat(&self, seen: &Value) -> BTreeMap<String, Value> {
        let mut flat = BTreeMap::new();
        for (section, value) in seen.as_object().unwrap_or(&Map::new()) {
            match (section.as_str(), value) {
                ("namespaces", Value::Object(links)) => {
                    for (kind, link) in links {
                        let known = self.namespaces.get(link.as_str().unwrap_or_default());
                        let name = known.cloned().unwrap_or_else(|| "its own".into());
                        flat.insert(format!("namespaces/{kind}"), json!(name));
                    }
                }
                ("tried" | "controls", Value::Object(entries)) => {
                    flat.extend(
                        entries.iter().map(|(name, entry)| (format!("{section}/{name}"), entry.clone())),
                    );
                }
                (
                    "mounts" | "devices" | "root" | "limits" | "ids" | "capabilities" | "signals",
                    Value::Array(entries),
                ) => {
                    for entry in entries {
                        let name = entry[0].as_str().unwrap_or_default();
                        // A place may be mounted on twice.
                        let mut place = format!("{section}/{name}");
                        while flat.contains_key(&place) {
                            place.push('+');
                        }
                        flat.insert(place, entry.clone());
                    }
                    if section == "mounts" {
                        let order: Vec<&Value> = entries.iter().map(|entry| &entry[0]).collect();
                        flat.insert("mounts".into(), json!(order));
                    }
                }
                _ => {
                    flat.insert(section.clone(), value.clone());
                }
            }
        }
        flat
    }
}
