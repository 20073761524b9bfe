//! From the JSON of a `config.json` to a spec.
//!
//! The library that knows the spec's types refuses a few things that the spec does not: they are mended here, in the JSON.

use std::str::FromStr as _;

use oci_spec::runtime::{Capability, Spec};
use serde_json::Value;

/// Reads a `config.json`. Beside the spec there is a text for each thing in it that is left out because nothing here
/// knows it.
///
/// # Errors
/// What is not as the runtime spec's types are.
pub fn read(mut json: Value) -> Result<(Spec, Vec<String>), serde_json::Error> {
    let mut warnings = Vec::new();
    if let Some(flags) = json.pointer_mut("/process/scheduler/flags").and_then(Value::as_array_mut) {
        flags.iter_mut().for_each(rename_flag);
    }
    if let Some(sets) = json.pointer_mut("/process/capabilities").and_then(Value::as_object_mut) {
        for set in sets.values_mut().filter_map(Value::as_array_mut) {
            set.retain(|name| match name.as_str() {
                Some(text) if !is_capability(text) => {
                    warnings
                        .push(format!("process.capabilities: {text:?} is no capability that is known here"));
                    false
                }
                _ => true,
            });
        }
    }
    Ok((serde_json::from_value(json)?, warnings))
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
fn is_capability(name: &str) -> bool {
    Capability::from_str(name.to_uppercase().trim_start_matches("CAP_")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_of_the_spec_are_read_and_unknown_capabilities_left_out() {
        let json = json!({
            "process": {
                "cwd": "/", "user": {},
                "scheduler": {
                    "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"],
                },
                "capabilities": { "bounding": ["CAP_CHOWN", "CAP_TELEPORT"] },
            },
        });
        let (spec, warnings) = read(json).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 2);
        let bounding = process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap();
        assert_eq!(bounding.iter().collect::<Vec<_>>(), [&Capability::Chown]);
        assert!(warnings.len() == 1 && warnings[0].contains("CAP_TELEPORT"), "{warnings:?}");
    }
}
