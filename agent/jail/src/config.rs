//! Reads a bundle's `config.json`.
//!
//! The library that knows the spec's types refuses a few things that the spec does not: they are mended here, in the JSON.

use std::path::Path;
use std::str::FromStr as _;

use anyhow::{Context as _, Result};
use oci_spec::runtime::{Capability, Spec};
use serde_json::Value;

/// The spec of a bundle, with paths that are relative to it made absolute.
pub(crate) fn read(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let text = std::fs::read(&path)
        .with_context(|| format!("read {} (a bundle is a directory with one)", path.display()))?;
    let spec = parse(&text).with_context(|| format!("understand {}", path.display()))?;
    Ok(absolute(spec, bundle))
}

fn parse(text: &[u8]) -> Result<Spec> {
    let mut json: Value = serde_json::from_slice(text)?;
    if let Some(flags) = json.pointer_mut("/process/scheduler/flags").and_then(Value::as_array_mut) {
        flags.iter_mut().for_each(rename_flag);
    }
    if let Some(sets) = json.pointer_mut("/process/capabilities").and_then(Value::as_object_mut) {
        for set in sets.values_mut().filter_map(Value::as_array_mut) {
            set.retain(is_known);
        }
    }
    Ok(serde_json::from_value(json)?)
}

/// The library spells two words otherwise than the runtime spec does.
fn rename_flag(flag: &mut Value) {
    let renamed = match flag.as_str() {
        Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
        Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
        _ => return,
    };
    *flag = renamed.into();
}

/// "Any value which cannot be mapped to a relevant kernel interface [...] MUST be logged as a warning by the runtime"
/// (runtime-spec, "capabilities").
fn is_known(name: &Value) -> bool {
    let Some(name) = name.as_str() else { return true };
    let is_known = Capability::from_str(name.trim_start_matches("CAP_")).is_ok();
    if !is_known {
        eprintln!("jail: warning: process.capabilities: {name} is no capability that is known here");
    }
    is_known
}

/// The root and the sources of binds may be relative to the bundle (runtime-spec, "Root", "Mounts").
fn absolute(mut spec: Spec, bundle: &Path) -> Spec {
    if let Some(root) = spec.root_mut()
        && root.path().is_relative()
    {
        let path = bundle.join(root.path());
        root.set_path(path);
    }
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let words = mount.options().as_deref().unwrap_or_default();
        let is_bind = mount.typ().as_deref() == Some("bind")
            || words.iter().any(|word| matches!(word.as_str(), "bind" | "rbind"));
        let relative = mount.source().clone().filter(|source| is_bind && source.is_relative());
        if let Some(source) = relative {
            mount.set_source(Some(bundle.join(source)));
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_of_the_spec_are_read_and_unknown_capabilities_dropped() {
        let text = json!({
            "ociVersion": "1.2.0",
            "root": { "path": "rootfs" },
            "process": {
                "cwd": "/", "user": { "uid": 0, "gid": 0 },
                "scheduler": {
                    "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"],
                },
                "capabilities": { "bounding": ["CAP_CHOWN", "CAP_TELEPORT"] },
            },
            "mounts": [{ "destination": "/x", "source": "beside", "options": ["rbind"] }],
        });
        let spec = absolute(parse(text.to_string().as_bytes()).unwrap(), Path::new("/b"));
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 2);
        let bounding = process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap();
        assert_eq!(bounding.iter().collect::<Vec<_>>(), [&Capability::Chown]);
        assert_eq!(spec.root().as_ref().unwrap().path(), Path::new("/b/rootfs"));
        assert_eq!(spec.mounts().as_ref().unwrap()[0].source().as_deref(), Some(Path::new("/b/beside")));
    }
}
