//! The Kubernetes manifest of a pod, and its way to a [`Pod`].
//!
//! Keys that a single machine can honour are honoured, those that serve a cluster's bookkeeping are noted, and what would
//! have to be there and cannot is refused. One file per subject; each has the [`fields::Schema`]s of its mappings, which are also
//! the tables of docs/manifests.md.
//!
//! ```text
//! text ─ yaml ─► documents ─ document ─► ConfigMaps, Secrets, the Pod ─ pod, container, … ─► Pod, or all problems
//! ```

mod base64;
mod container;
mod document;
mod env;
mod fields;
mod labels;
mod metadata;
mod pod;
mod probe;
mod resources;
mod security;
mod source;
mod volume;
mod yaml;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod schema_test;
#[cfg(test)]
mod tests;

use super::pod::{Pod, PodError};
use fields::{At, Report};
pub use volume::mount_path;
use yaml::{Node, YamlError};

/// The tables, in the order of the documentation.
#[cfg(test)]
fn schemas() -> Vec<&'static fields::Schema> {
    [pod::SCHEMAS, container::SCHEMAS, env::SCHEMAS, volume::SCHEMAS, source::SCHEMAS, probe::SCHEMAS]
        .into_iter()
        .chain([resources::SCHEMAS, security::SCHEMAS, document::SCHEMAS])
        .flatten()
        .copied()
        .collect()
}

impl Pod {
    /// Reads a manifest with one pod.
    ///
    /// # Errors
    /// [`PodError`] lists everything that is wrong, with lines.
    pub fn parse(text: &str) -> Result<Self, PodError> {
        Self::parse_named(text, None)
    }

    /// Reads a manifest, and of several pods the one of a name.
    ///
    /// # Errors
    /// As [`Pod::parse`]; also when there is no pod of that name.
    pub fn parse_named(text: &str, name: Option<&str>) -> Result<Self, PodError> {
        read(text, name)
    }
}

/// Reads the one pod of a manifest, or that of a name.
fn read(text: &str, name: Option<&str>) -> Result<Pod, PodError> {
    let documents = yaml::documents(text).map_err(|error: YamlError| PodError::Yaml(error.to_string()))?;
    let report = Report::default();
    let file = document::sort(&documents, &report);
    let chosen: &Node = file.choose(name)?;
    let pod = pod::read(At::root(chosen, &report, ""), &file.sources);
    let (problems, ignored) = report.into_parts();
    match pod {
        Some(mut pod) if problems.is_empty() => {
            if !ignored.is_empty() {
                pod.notes.push(format!("without effect on one machine: {}", ignored.join(", ")));
            }
            Ok(pod)
        }
        _ => Err(PodError::Refused(problems)),
    }
}
