//! All that is decided of a `config.json`, in one value: the plan of the container's first process, where that of a
//! further one differs, and what is written to the control group.
//!
//! Exists in tests and under a fuzzer only, which all look at decisions through it: golden files ([`golden`]), specs
//! that nobody would write ([`arbitrary`]), and the fuzz targets. Promises: no file is touched, and one config has one
//! outcome. Must never: decide anything itself.

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod golden;
mod laws;
mod listing;

use oci_spec::runtime::Spec;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cgroup::{self, outcome::Present};
use crate::plan::{self, Bundle, ExecOptions, InitOptions, JailPlan, RootSwitch};

/// A container as it comes in, beside its `config.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Circumstances {
    /// A further process, as changes to the first one (a JSON merge patch); none is the first one once more.
    pub exec: Option<Value>,
    /// What the cgroup's files hold.
    pub(crate) present: Present,
}

/// Everything that is decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The first process.
    pub init: JailPlan,
    /// A further one.
    pub exec: JailPlan,
    /// The control group.
    pub cgroup: Value,
    /// What is left out of the config.
    pub warnings: Vec<String>,
}

impl Outcome {
    /// Decides.
    ///
    /// # Errors
    /// The text of the first refusal, as a caller reads it.
    pub fn of_config(config: &Value, circumstances: &Circumstances) -> Result<Outcome, String> {
        let (spec, warnings) = parse(config)?;
        let init = plan::init(&spec, options()).map_err(|error| error.to_string())?;
        let mut further = config.clone();
        if let Some(patch) = &circumstances.exec {
            merge(&mut further["process"], patch);
        }
        let (further, _) = parse(&further)?;
        let process = further.process().as_ref().ok_or("there is no process")?;
        let exec = plan::exec(process, &ExecOptions { spec: &spec }).map_err(|error| error.to_string())?;
        let cgroup = cgroup::outcome::of_linux(spec.linux().as_ref(), &circumstances.present)
            .map_err(|error| error.to_string())?;
        Ok(Outcome { init, exec, cgroup, warnings })
    }

    /// As a tree that two outcomes can be compared by; of the further process only what differs from the first.
    pub fn to_json(&self) -> Value {
        let [init, exec] = [&self.init, &self.exec].map(|plan| {
            let mut tree = serde_json::to_value(plan).expect("a plan is plain data");
            if let Some(seccomp) = &plan.seccomp {
                tree["seccomp"]["filter"]["program"] = listing::of(&seccomp.filter.program).into();
            }
            tree
        });
        let Change { changed, removed } = change(&init, &exec);
        let gone = removed.into_iter().map(|path| (path, Value::Null));
        let exec = changed.into_iter().chain(gone).collect::<Map<_, _>>();
        let warnings = self.warnings.clone().into();
        let tree = [
            ("init", init),
            ("exec", Value::Object(exec)),
            ("cgroup", self.cgroup.clone()),
            ("warnings", warnings),
        ];
        Value::Object(tree.map(|(name, value)| (name.to_owned(), value)).into_iter().collect())
    }
}

/// The guest that outcomes are for.
fn options() -> InitOptions<'static> {
    InitOptions { switch: RootSwitch::Move, bundle: Bundle { id: "c1", path: "/run/c1" }, filters: None }
}

fn parse(json: &Value) -> Result<(Spec, Vec<String>), String> {
    plan::config::read(json.clone()).map_err(|error| format!("config.json: {error}"))
}

/// Decides of a text, and holds the outcome against the laws that hold for any.
///
/// # Panics
/// When one is broken.
pub fn judge(text: &[u8]) {
    let Ok(config) = serde_json::from_slice::<Value>(text) else { return };
    let circumstances = Circumstances::default();
    let outcome = Outcome::of_config(&config, &circumstances);
    assert_eq!(outcome, Outcome::of_config(&config, &circumstances), "a config has one outcome");
    if let Ok(outcome) = outcome {
        laws::hold(&outcome);
    }
}

/// Applies a JSON merge patch (RFC 7396).
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

/// How one tree differs from another, by paths such as `init/identity/umask`.
#[derive(Debug, Default, PartialEq)]
struct Change {
    changed: Map<String, Value>,
    removed: Vec<String>,
}

fn change(old: &Value, new: &Value) -> Change {
    let mut change = Change::default();
    change.add(String::new(), old, new);
    change
}

impl Change {
    fn add(&mut self, path: String, old: &Value, new: &Value) {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        match (old, new) {
            _ if old == new => {}
            (Value::Object(old), Value::Object(new)) if !old.is_empty() => {
                self.removed.extend(old.keys().filter(|key| !new.contains_key(*key)).map(|key| below(key)));
                for (key, value) in new {
                    self.entry(below(key), old.get(key), value);
                }
            }
            // A list of plain values is read as one; in one of structures each stands for itself.
            (Value::Array(old), Value::Array(new)) if new.iter().any(Value::is_object) => {
                self.removed.extend((new.len()..old.len()).map(|index| below(&index.to_string())));
                for (index, value) in new.iter().enumerate() {
                    self.entry(below(&index.to_string()), old.get(index), value);
                }
            }
            _ => drop(self.changed.insert(path, new.clone())),
        }
    }

    fn entry(&mut self, path: String, old: Option<&Value>, new: &Value) {
        match old {
            Some(old) => self.add(path, old, new),
            None => drop(self.changed.insert(path, new.clone())),
        }
    }
}
