//! CDI: devices that a vendor describes, with all that a program needs to use them (Container Device Interface
//! Specification, up to 1.0). The specs lie in the guest; a container names devices by annotation.
//!
//! ```text
//!  cdi.k8s.io/…: "acme.com/gpu=0"  ─┐
//!  /etc/cdi, /var/run/cdi, *.json  ─┴─► edits: environment, nodes, mounts, hooks, groups ─► the container's spec
//! ```

mod edit;
mod file;

use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::Spec;

use self::file::{ContainerEdits, File};
use super::NoDevice;
use super::watch::DeviceWatch;
use crate::error::{ErrorKind, Kind};

/// Where specs lie. What is in a later directory counts. The last is for guests whose `/var/run` is a directory.
const DIRECTORIES: [&str; 3] = ["/etc/cdi", "/var/run/cdi", "/run/cdi"];
/// Annotations whose values are lists of devices.
const ANNOTATIONS: &str = "cdi.k8s.io/";
/// A variable whose value is such a list, where that is switched on.
const VARIABLE: &str = "VISIBLE_CDI_DEVICES=";

/// Why a CDI device could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CdiError {
    /// Not a name of a device.
    #[error("CDI device {0:?} is not named like vendor.com/class=name")]
    Name(String),
    /// No spec has it.
    #[error("no CDI spec in {} describes {names} after {} ms{notes}", DIRECTORIES.join(", "), waited.as_millis())]
    Missing {
        /// The devices.
        names: String,
        /// For how long specs were awaited.
        waited: Duration,
        /// What is wrong with the specs that there are, where something is.
        notes: String,
    },
    /// Its spec asks for what is not there, or makes no sense.
    #[error("CDI device {name}: {reason}")]
    Edit {
        /// The device.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

impl Kind for CdiError {
    fn kind(&self) -> ErrorKind {
        match self {
            CdiError::Name(_) | CdiError::Edit { .. } => ErrorKind::Invalid,
            CdiError::Missing { .. } => ErrorKind::Timeout,
        }
    }
}

/// What the CDI devices of a container change in its spec.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    names: Vec<Name>,
    catalogue: Catalogue,
}

/// Finds the CDI devices that a spec names. Blocks until what describes them is there, for `timeout` at most.
pub(crate) fn find(
    spec: &Spec,
    devices: &DeviceWatch,
    timeout: Duration,
    by_variable: bool,
) -> Result<Edits, CdiError> {
    let names = names(spec, by_variable)?;
    if names.is_empty() {
        return Ok(Edits::default());
    }
    let directories = DIRECTORIES.map(PathBuf::from);
    let mut missing = (Vec::new(), Vec::new());
    let look = || {
        let (catalogue, notes) = Catalogue::read(&directories);
        let unknown: Vec<String> =
            names.iter().filter(|name| !catalogue.has(name)).map(ToString::to_string).collect();
        let is_complete = unknown.is_empty();
        missing = (unknown, notes);
        is_complete.then_some(catalogue)
    };
    let found = devices.wait_until(timeout, look);
    let catalogue = found.map_err(|NoDevice { waited }| CdiError::Missing {
        names: missing.0.join(", "),
        waited,
        notes: missing.1.iter().map(|note| format!("; {note}")).collect(),
    })?;
    Ok(Edits { names, catalogue })
}

impl Edits {
    /// Puts the devices into the container's spec. A failure leaves it as it was.
    pub(crate) fn put_into(&self, spec: &mut Spec) -> Result<(), CdiError> {
        if self.names.is_empty() {
            return Ok(());
        }
        let mut edited = spec.clone();
        self.catalogue.apply(&self.names, &mut edited)?;
        *spec = edited;
        Ok(())
    }
}

/// `vendor.com/class=name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    /// Vendor and class.
    kind: String,
    device: String,
}

impl Name {
    fn parse(text: &str) -> Result<Name, CdiError> {
        let bad = || CdiError::Name(text.to_owned());
        let (kind, device) = text.split_once('=').ok_or_else(bad)?;
        let (vendor, class) = kind.split_once('/').ok_or_else(bad)?;
        let is_word = |word: &str, more: &str| {
            let is_edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            let is_inner = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            is_edge(word.chars().next()) && is_edge(word.chars().last()) && word.chars().all(is_inner)
        };
        let fits = is_word(vendor, "._-") && is_word(class, "_-") && is_word(device, "_-.:");
        fits.then(|| Name { kind: kind.to_owned(), device: device.to_owned() }).ok_or_else(bad)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}={}", self.kind, self.device)
    }
}

/// The devices that a spec names, each once, in the order of their annotations.
fn names(spec: &Spec, by_variable: bool) -> Result<Vec<Name>, CdiError> {
    let mut lists: Vec<(&str, &str)> = spec
        .annotations()
        .iter()
        .flatten()
        .filter(|(key, _)| key.starts_with(ANNOTATIONS))
        .map(|(key, list)| (key.as_str(), list.as_str()))
        .collect();
    // They come in no order.
    lists.sort_unstable();
    if by_variable {
        let env = spec.process().as_ref().and_then(|process| process.env().as_ref());
        lists.extend(
            env.into_iter().flatten().filter_map(|entry| Some((VARIABLE, entry.strip_prefix(VARIABLE)?))),
        );
    }
    let mut names: Vec<Name> = Vec::new();
    for text in
        lists.iter().flat_map(|(_, list)| list.split(',')).map(str::trim).filter(|text| !text.is_empty())
    {
        let name = Name::parse(text)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// All specs; of those that describe a device the first counts.
#[derive(Debug, Default)]
struct Catalogue {
    files: Vec<File>,
}

impl Catalogue {
    /// Reads what can be read; says of the rest why it cannot.
    fn read(directories: &[PathBuf]) -> (Catalogue, Vec<String>) {
        let (mut catalogue, mut notes) = (Catalogue::default(), Vec::new());
        for directory in directories.iter().rev() {
            for name in super::entries(directory) {
                match File::read(&directory.join(name)) {
                    Ok(Some(file)) => catalogue.files.push(file),
                    Ok(None) => {}
                    Err(note) => notes.push(note),
                }
            }
        }
        (catalogue, notes)
    }

    fn find(&self, name: &Name) -> Option<(&File, &ContainerEdits)> {
        self.files.iter().filter(|file| file.kind == name.kind).find_map(|file| {
            let device = file.devices.iter().find(|device| device.name == name.device)?;
            Some((file, &device.container_edits))
        })
    }

    fn has(&self, name: &Name) -> bool {
        self.find(name).is_some()
    }

    /// What holds for all devices of a spec is done once, before the first of them.
    fn apply(&self, names: &[Name], spec: &mut Spec) -> Result<(), CdiError> {
        let mut done: Vec<&Path> = Vec::new();
        for name in names {
            let failed = |reason| CdiError::Edit { name: name.to_string(), reason };
            let Some((file, edits)) = self.find(name) else { continue };
            if !done.contains(&file.path.as_path()) {
                done.push(&file.path);
                edit::apply(&file.container_edits, spec).map_err(failed)?;
            }
            edit::apply(edits, spec).map_err(failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn spec(annotations: &[(&str, &str)]) -> Spec {
        let mut spec = Spec::default();
        let pairs = annotations.iter().map(|(key, list)| ((*key).to_owned(), (*list).to_owned()));
        spec.set_annotations(Some(pairs.collect::<HashMap<_, _>>()));
        spec
    }

    #[test]
    fn devices_are_named_by_annotations_and_by_a_variable_if_that_is_on() {
        let mut spec = spec(&[
            ("cdi.k8s.io/b", "acme.com/gpu=1, acme.com/gpu=0"),
            ("cdi.k8s.io/a", "acme.com/gpu=0"),
            ("other", "x"),
        ]);
        let shown = |spec: &Spec, by_variable| -> Vec<String> {
            names(spec, by_variable).unwrap().iter().map(ToString::to_string).collect()
        };
        assert_eq!(shown(&spec, false), ["acme.com/gpu=0", "acme.com/gpu=1"]);
        let mut process = spec.process().clone().unwrap();
        process.set_env(Some(vec!["VISIBLE_CDI_DEVICES=acme.com/nic=a.0".to_owned()]));
        spec.set_process(Some(process));
        assert_eq!(shown(&spec, false).len(), 2);
        assert_eq!(shown(&spec, true)[2], "acme.com/nic=a.0");
        for bad in ["gpu", "acme.com/gpu", "acme.com=0", "/gpu=0", "acme.com/gpu=", "acme.com/-=0", "a/b=c=d"]
        {
            let error = Name::parse(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
        }
    }

    #[test]
    fn later_directories_count_and_unreadable_specs_are_noted() {
        let (first, last) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |directory: &tempfile::TempDir, name: &str, value: &str| {
            let text = format!(
                r#"{{"cdiVersion":"0.6.0","kind":"acme.com/gpu","containerEdits":{{"env":["ALL=1"]}},
                    "devices":[{{"name":"0","containerEdits":{{"env":["GPU={value}"]}}}}]}}"#
            );
            std::fs::write(directory.path().join(name), text).unwrap();
        };
        write(&first, "a.json", "first");
        write(&last, "b.json", "last");
        std::fs::write(first.path().join("broken.json"), "{").unwrap();
        std::fs::write(first.path().join("c.yaml"), "kind: acme.com/nic").unwrap();
        std::fs::write(first.path().join("README"), "").unwrap();
        let (catalogue, notes) = Catalogue::read(&[first.path().into(), last.path().into()]);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("c.yaml") && note.contains("JSON")), "{notes:?}");
        let mut spec = spec(&[]);
        catalogue.apply(&[Name::parse("acme.com/gpu=0").unwrap()], &mut spec).unwrap();
        let env = spec.process().as_ref().unwrap().env().clone().unwrap();
        assert!(env.ends_with(&["ALL=1".to_owned(), "GPU=last".to_owned()]), "{env:?}");
    }

    #[test]
    fn a_device_that_nobody_describes_is_named() {
        let spec = spec(&[("cdi.k8s.io/x", "acme.example/none=7")]);
        let devices = DeviceWatch::deaf(Path::new("/sys"), Duration::ZERO);
        let error = find(&spec, &devices, Duration::from_millis(10), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("acme.example/none=7"), "{error}");
    }

    proptest! {
        #[test]
        fn no_name_panics(text in ".{0,30}") {
            if let Ok(name) = Name::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
