//! Which properties the oracle's bundles are about: those that they name, and those that they set and most do not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

#[path = "../../oracle/bundle/mod.rs"]
#[allow(dead_code, reason = "what the oracle runs is of no concern here")]
mod bundle;

/// A bundle that other runtimes run too.
pub(crate) struct Bundle {
    pub(crate) name: &'static str,
    /// What it names.
    properties: Vec<&'static str>,
    /// All that its spec has.
    has: BTreeSet<String>,
    /// What of it most bundles do not have.
    own: BTreeSet<String>,
}

pub(crate) fn all() -> Vec<Bundle> {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    let bundles = bundle::all();
    let specs: Vec<BTreeSet<String>> = bundles.iter().map(|bundle| places(&bundle.spec)).collect();
    for place in specs.iter().flatten() {
        *count.entry(place.clone()).or_default() += 1;
    }
    let most = bundles.len() / 2;
    let each = bundles.into_iter().zip(specs);
    each.map(|(bundle, has)| Bundle {
        name: bundle.name,
        properties: bundle.properties,
        own: has.iter().filter(|place| count[*place] <= most).cloned().collect(),
        has,
    })
    .collect()
}

impl Bundle {
    /// Whether it is about a property of the list.
    pub(crate) fn is_about(&self, property: &str) -> bool {
        let names = |name: &&str| {
            // "process" is about its presence, not about all that it holds.
            let has_parts = name.contains('.') && self.has.contains(property);
            plain(name) == plain(property) || (has_parts && is_below(property, name))
        };
        self.own.contains(property) || self.properties.iter().any(names)
    }

    /// What it names and the list does not know.
    pub(crate) fn unknown(&self, properties: &[&str]) -> Vec<&'static str> {
        let knows = |name: &str| {
            properties.iter().any(|property| plain(name) == plain(property) || is_below(property, name))
        };
        self.properties.iter().copied().filter(|name| !knows(name)).collect()
    }
}

fn is_below(property: &str, name: &str) -> bool {
    plain(property).strip_prefix(&plain(name)).is_some_and(|rest| rest.starts_with('.'))
}

/// A property without what marks a list: the kind of a namespace stands for its entry.
fn plain(property: &str) -> String {
    property.replace("[].type: ", ".").replace("[]", "")
}

/// The properties that a spec has, as the list writes them.
fn places(spec: &Value) -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    collect(spec, String::new(), &mut places);
    places
}

/// Maps of which any key is a name that the spec's author chose.
const MAPS: [&str; 2] = ["linux.resources.rdma", "linux.timeOffsets"];

fn collect(value: &Value, place: String, places: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let below = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                if MAPS.contains(&place.as_str()) {
                    collect(value, format!("{place}[]"), places);
                }
                if place == "hooks" {
                    collect(value, "hooks.*".into(), places);
                }
                collect(value, below, places);
            }
        }
        Value::Array(list) => {
            for value in list {
                let is_structure = value.is_object();
                collect(value, if is_structure { format!("{place}[]") } else { place.clone() }, places);
            }
        }
        Value::String(text) => drop(places.insert(format!("{place}: {text}"))),
        _ => {}
    }
    places.insert(place);
}

#[test]
fn a_spec_has_the_properties_that_it_sets() {
    let spec = serde_json::json!({
        "hooks": { "poststop": [{ "path": "/h" }] },
        "mounts": [{ "options": ["ro", "size=1m"] }],
        "linux": { "timeOffsets": { "boottime": { "secs": 1 } }, "namespaces": [{ "type": "pid" }] },
    });
    let has = places(&spec);
    for place in [
        "hooks.poststop",
        "hooks.*[].path",
        "mounts[].options: ro",
        "linux.timeOffsets.boottime",
        "linux.timeOffsets[].secs",
        "linux.namespaces[].type: pid",
    ] {
        assert!(has.contains(place), "{place}: {has:?}");
    }
}
