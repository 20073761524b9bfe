//! What cannot be right in a spec and would only show, or worse not show, once a plan is executed.
//!
//! Promises: an error names the field. Must never: change what a spec means.

use std::path::{Component, Path};

use oci_spec::runtime::{Process, Spec};

use super::{HookPlan, PlanError};

fn invalid<T>(text: String) -> Result<T, PlanError> {
    Err(PlanError::Invalid(text))
}

/// The whole spec of a container.
pub(super) fn spec(spec: &Spec) -> Result<(), PlanError> {
    // Clients of the API may leave it out; what they send then is this version's.
    let version = spec.version();
    if !version.is_empty() && version.split('.').next() != Some("1") {
        return invalid(format!("ociVersion {version:?} is none that is known here, which are 1.x"));
    }
    if let Some(root) = spec.root() {
        nul("root.path", root.path())?;
        // "/run/.." is the guest's own root.
        if root.path().components().any(|part| part == Component::ParentDir) {
            return invalid(format!("root.path {:?} contains \"..\"", root.path()));
        }
    }
    for mount in spec.mounts().iter().flatten() {
        let at = mount.destination().display();
        nul(&format!("source of the mount on {at}"), mount.source().as_deref().unwrap_or(Path::new("")))?;
        nul(&format!("type of the mount on {at}"), Path::new(mount.typ().as_deref().unwrap_or_default()))?;
    }
    let Some(linux) = spec.linux() else { return hooks(spec) };
    for namespace in linux.namespaces().iter().flatten() {
        nul("linux.namespaces path", namespace.path().as_deref().unwrap_or(Path::new("")))?;
    }
    let is_root =
        |path: &String| Path::new(path).components().all(|part| !matches!(part, Component::Normal(_)));
    if linux.masked_paths().iter().flatten().any(|path| !path.is_empty() && is_root(path)) {
        return invalid("linux.maskedPaths hides the whole root".into());
    }
    hooks(spec)
}

/// Hooks that others run are read here too: before a container exists, and not after it has run.
fn hooks(spec: &Spec) -> Result<(), PlanError> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    #[allow(deprecated, reason = "specs may still have them")]
    let prestart = hooks.prestart();
    let lists = [
        ("prestart", prestart),
        ("createRuntime", hooks.create_runtime()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    lists.into_iter().try_for_each(|(field, list)| HookPlan::all_of_spec(field, list).map(drop))
}

/// One process of a container.
pub(super) fn process(process: &Process) -> Result<(), PlanError> {
    nul("process.cwd", process.cwd())?;
    let user = process.user();
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    let ids = [("uid", user.uid()), ("gid", user.gid())].into_iter();
    for (field, id) in ids.chain(groups.iter().map(|gid| ("additionalGids", *gid))) {
        // As -1 it tells setresuid(2) to leave the id as it is, which is the agent's.
        if id == u32::MAX {
            return invalid(format!("process.user.{field} {id} is no id"));
        }
    }
    Ok(())
}

fn nul(field: &str, path: &Path) -> Result<(), PlanError> {
    let text = path.to_string_lossy();
    if text.contains('\0') { Err(PlanError::nul(field, &text)) } else { Ok(()) }
}
