//! Conversion between an OCI runtime spec as it travels ([`crate::oci`]) and [`oci_spec::runtime`] types.
//!
//! Owns the mapping of every field the wire can carry, in both directions. Promises that nothing the wire carries is
//! lost without a [`SpecError`] or a [`Warning`], and that no input makes it panic. It never judges whether a spec
//! makes sense (duplicate rlimits, relative paths, soft over hard): that is the plan's work.
//!
//! # Absent and zero
//!
//! The wire is proto3 without presence for scalars, so `absent` and `0`, `""`, `[]` look the same. The rules:
//!
//! | OCI field | wire zero becomes |
//! |---|---|
//! | optional string, list, map | `None` |
//! | optional number | `None`, except `process.oomScoreAdj`: `Some(0)`, as no container may inherit the agent's score |
//! | optional bool | `Some(false)`, except `memory.disableOOMKiller`: `None` |
//! | optional object | `None` only when the message itself is absent |
//! | device rule numbers | see [`resources_from_wire`] |
//!
//! What the wire has no field for (`domainname`, `umask`, `linux.resources.unified`, time offsets, ...) stays behind in
//! [`to_wire`].

mod capabilities;
mod linux;
mod process;
mod resources;
mod seccomp;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime;
use protobuf::MessageField;
use thiserror::Error;

use crate::oci;

pub use process::to_wire as process_to_wire;
pub use resources::to_wire as resources_to_wire;

/// Why a spec from the wire cannot be expressed as an OCI runtime spec.
///
/// The field is given as its path in `config.json`, for example `linux.namespaces[2].type`.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[non_exhaustive]
pub enum SpecError {
    /// A name that the OCI runtime spec does not know.
    #[error("{field}: {value:?} is not {expected}")]
    UnknownName {
        /// Path of the field.
        field: String,
        /// What the wire carried.
        value: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A number outside of what the field may hold.
    #[error("{field}: {value} is not between {min} and {max}")]
    OutOfRange {
        /// Path of the field.
        field: String,
        /// What the wire carried.
        value: i128,
        /// The least number allowed.
        min: i128,
        /// The greatest number allowed.
        max: i128,
    },
}

/// Something in a spec from the wire that was left out of the result, though the rest is usable.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// A capability this build has no name for. The process starts without it.
    UnknownCapability {
        /// Path of the field.
        field: String,
        /// The name on the wire.
        name: String,
    },
    /// A section for another platform.
    ForeignPlatform {
        /// Path of the section.
        field: &'static str,
    },
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownCapability { field, name } => {
                write!(f, "{field}: unknown capability {name:?} left out")
            }
            Self::ForeignPlatform { field } => {
                write!(f, "{field}: the section is not for Linux and is ignored")
            }
        }
    }
}

/// Converts a whole spec from the wire.
///
/// # Errors
///
/// [`SpecError`] names the first field that has no OCI counterpart.
pub fn from_wire(wire: &oci::Spec) -> Result<(runtime::Spec, Vec<Warning>), SpecError> {
    let mut warnings = Vec::new();
    let process =
        wire.Process.as_ref().map(|p| process::from_wire("process", p, &mut warnings)).transpose()?;
    let linux = wire.Linux.as_ref().map(linux::from_wire).transpose()?;
    let hooks = wire.Hooks.as_ref().map(hooks_from_wire).transpose()?;
    if wire.Solaris.is_some() {
        warnings.push(Warning::ForeignPlatform { field: "solaris" });
    }
    if wire.Windows.is_some() {
        warnings.push(Warning::ForeignPlatform { field: "windows" });
    }
    // The defaults of these types describe a sample container: every field that has one is overwritten.
    let mut spec = runtime::Spec::default();
    spec.set_version(wire.Version.clone())
        .set_process(process)
        .set_root(wire.Root.as_ref().map(root_from_wire))
        .set_hostname(text(&wire.Hostname))
        .set_mounts(list(&wire.Mounts, mount_from_wire))
        .set_hooks(hooks)
        .set_annotations(map(&wire.Annotations))
        .set_linux(linux);
    Ok((spec, warnings))
}

/// Converts the process of an exec from the wire.
///
/// # Errors
///
/// [`SpecError`] names the first field that has no OCI counterpart.
pub fn process_from_wire(wire: &oci::Process) -> Result<(runtime::Process, Vec<Warning>), SpecError> {
    let mut warnings = Vec::new();
    let process = process::from_wire("process", wire, &mut warnings)?;
    Ok((process, warnings))
}

/// Converts resource limits from the wire.
///
/// In a device rule, `None` for major or minor means every number. On the wire `-1` says so; and so does `0` where it
/// cannot be a number: in both fields of a rule of type `a` (or none), and in both fields when the major is 0. A minor
/// of 0 beside a real major is the number 0, which is the narrower reading.
///
/// # Errors
///
/// [`SpecError`] names the first field that has no OCI counterpart.
pub fn resources_from_wire(wire: &oci::LinuxResources) -> Result<runtime::LinuxResources, SpecError> {
    resources::from_wire("resources", wire)
}

/// Puts a spec on the wire, for a client of the agent.
///
/// Fields the wire lacks stay behind. A path that is not UTF-8 is sent with replacement characters.
pub fn to_wire(spec: &runtime::Spec) -> oci::Spec {
    oci::Spec {
        Version: spec.version().clone(),
        Process: message(spec.process().as_ref(), process_to_wire),
        Root: message(spec.root().as_ref(), |root| oci::Root {
            Path: path_text(root.path()),
            Readonly: root.readonly().unwrap_or_default(),
            ..Default::default()
        }),
        Hostname: spec.hostname().clone().unwrap_or_default(),
        Mounts: repeated(spec.mounts(), mount_to_wire),
        Hooks: message(spec.hooks().as_ref(), hooks_to_wire),
        Annotations: spec.annotations().clone().unwrap_or_default(),
        Linux: message(spec.linux().as_ref(), linux::to_wire),
        ..Default::default()
    }
}

/// Why a builder of `oci_spec` cannot fail; some of its types have no other way to be made.
const BUILDER_DEFAULTS: &str = "every field of the builder has a default";

fn root_from_wire(wire: &oci::Root) -> runtime::Root {
    let mut root = runtime::Root::default();
    root.set_path(PathBuf::from(&wire.Path)).set_readonly(Some(wire.Readonly));
    root
}

fn mount_from_wire(wire: &oci::Mount) -> runtime::Mount {
    let mut mount = runtime::Mount::default();
    mount
        .set_destination(PathBuf::from(&wire.destination))
        .set_typ(text(&wire.type_))
        .set_source(path(&wire.source))
        .set_options(strings(&wire.options));
    mount
}

fn mount_to_wire(mount: &runtime::Mount) -> oci::Mount {
    oci::Mount {
        destination: path_text(mount.destination()),
        source: optional_path_text(mount.source()),
        type_: mount.typ().clone().unwrap_or_default(),
        options: mount.options().clone().unwrap_or_default(),
        ..Default::default()
    }
}

fn hooks_from_wire(wire: &oci::Hooks) -> Result<runtime::Hooks, SpecError> {
    let mut hooks = runtime::Hooks::default();
    hooks
        .set_prestart(hook_list("prestart", &wire.Prestart)?)
        .set_create_runtime(hook_list("createRuntime", &wire.CreateRuntime)?)
        .set_create_container(hook_list("createContainer", &wire.CreateContainer)?)
        .set_start_container(hook_list("startContainer", &wire.StartContainer)?)
        .set_poststart(hook_list("poststart", &wire.Poststart)?)
        .set_poststop(hook_list("poststop", &wire.Poststop)?);
    Ok(hooks)
}

fn hook_list(stage: &str, wire: &[oci::Hook]) -> Result<Option<Vec<runtime::Hook>>, SpecError> {
    try_list(wire, |i, wire| {
        let timeout = match wire.Timeout {
            0 => None,
            seconds => Some(in_range(|| format!("hooks.{stage}[{i}].timeout"), seconds, 1, i64::MAX)?),
        };
        let mut hook = runtime::Hook::default();
        hook.set_path(PathBuf::from(&wire.Path))
            .set_args(strings(&wire.Args))
            .set_env(strings(&wire.Env))
            .set_timeout(timeout);
        Ok(hook)
    })
}

fn hooks_to_wire(hooks: &runtime::Hooks) -> oci::Hooks {
    oci::Hooks {
        Prestart: repeated(hooks.prestart(), hook_to_wire),
        Poststart: repeated(hooks.poststart(), hook_to_wire),
        Poststop: repeated(hooks.poststop(), hook_to_wire),
        CreateRuntime: repeated(hooks.create_runtime(), hook_to_wire),
        CreateContainer: repeated(hooks.create_container(), hook_to_wire),
        StartContainer: repeated(hooks.start_container(), hook_to_wire),
        ..Default::default()
    }
}

fn hook_to_wire(hook: &runtime::Hook) -> oci::Hook {
    oci::Hook {
        Path: path_text(hook.path()),
        Args: hook.args().clone().unwrap_or_default(),
        Env: hook.env().clone().unwrap_or_default(),
        Timeout: hook.timeout().unwrap_or_default(),
        ..Default::default()
    }
}

fn text(wire: &str) -> Option<String> {
    (!wire.is_empty()).then(|| wire.to_owned())
}

fn path(wire: &str) -> Option<PathBuf> {
    (!wire.is_empty()).then(|| PathBuf::from(wire))
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn optional_path_text(path: &Option<PathBuf>) -> String {
    path.as_deref().map(path_text).unwrap_or_default()
}

fn nonzero<T: Default + PartialEq>(wire: T) -> Option<T> {
    (wire != T::default()).then_some(wire)
}

fn strings(wire: &[String]) -> Option<Vec<String>> {
    list(wire, String::clone)
}

fn map(wire: &HashMap<String, String>) -> Option<HashMap<String, String>> {
    (!wire.is_empty()).then(|| wire.clone())
}

fn list<W, T>(wire: &[W], convert: impl FnMut(&W) -> T) -> Option<Vec<T>> {
    (!wire.is_empty()).then(|| wire.iter().map(convert).collect())
}

fn try_list<W, T>(
    wire: &[W],
    mut convert: impl FnMut(usize, &W) -> Result<T, SpecError>,
) -> Result<Option<Vec<T>>, SpecError> {
    if wire.is_empty() {
        return Ok(None);
    }
    wire.iter().enumerate().map(|(i, item)| convert(i, item)).collect::<Result<_, _>>().map(Some)
}

fn repeated<T, W>(items: &Option<Vec<T>>, convert: impl FnMut(&T) -> W) -> Vec<W> {
    items.iter().flatten().map(convert).collect()
}

fn message<T, W>(item: Option<&T>, convert: impl FnOnce(&T) -> W) -> MessageField<W> {
    MessageField::from_option(item.map(convert))
}

/// Checks `value` against the inclusive bounds and narrows it to the type of the bounds.
fn in_range<V, T>(field: impl FnOnce() -> String, value: V, min: T, max: T) -> Result<T, SpecError>
where
    V: Into<i128>,
    T: Into<i128> + TryFrom<i128> + Copy,
{
    let (value, min, max) = (value.into(), min.into(), max.into());
    match T::try_from(value) {
        Ok(narrow) if (min..=max).contains(&value) => Ok(narrow),
        _ => Err(SpecError::OutOfRange { field: field(), value, min, max }),
    }
}

fn parse<T: std::str::FromStr>(
    field: impl FnOnce() -> String,
    value: &str,
    expected: &'static str,
) -> Result<T, SpecError> {
    value.parse().map_err(|_| SpecError::UnknownName { field: field(), value: value.to_owned(), expected })
}
