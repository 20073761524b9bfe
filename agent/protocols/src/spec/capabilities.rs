//! Capability sets: lists of names on the wire, sets of known capabilities in OCI types.
//!
//! A name this build does not know is left out with a [`Warning`]: a newer host may ask for more than this guest's
//! kernel has, and a process with less privilege is the safe outcome.

use oci_spec::runtime::{self, Capabilities, Capability};

use super::Warning;
use crate::oci;

pub(super) fn from_wire(
    field: &str,
    wire: &oci::LinuxCapabilities,
    warnings: &mut Vec<Warning>,
) -> runtime::LinuxCapabilities {
    let mut set = |name: &str, wire: &[String]| {
        // An empty list takes every capability away, which differs from a set that is not there.
        Some(set_from_wire(&format!("{field}.{name}"), wire, warnings))
    };
    let mut capabilities = runtime::LinuxCapabilities::default();
    capabilities
        .set_bounding(set("bounding", &wire.Bounding))
        .set_effective(set("effective", &wire.Effective))
        .set_inheritable(set("inheritable", &wire.Inheritable))
        .set_permitted(set("permitted", &wire.Permitted))
        .set_ambient(set("ambient", &wire.Ambient));
    capabilities
}

fn set_from_wire(field: &str, wire: &[String], warnings: &mut Vec<Warning>) -> Capabilities {
    wire.iter()
        .filter_map(|name| {
            let capability = parse(name);
            if capability.is_none() {
                warnings.push(Warning::UnknownCapability { field: field.to_owned(), name: name.clone() });
            }
            capability
        })
        .collect()
}

/// Takes `CAP_CHOWN`, `cap_chown` and Kubernetes' `CHOWN`.
fn parse(name: &str) -> Option<Capability> {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).parse().ok()
}

pub(super) fn to_wire(capabilities: &runtime::LinuxCapabilities) -> oci::LinuxCapabilities {
    oci::LinuxCapabilities {
        Bounding: set_to_wire(capabilities.bounding()),
        Effective: set_to_wire(capabilities.effective()),
        Inheritable: set_to_wire(capabilities.inheritable()),
        Permitted: set_to_wire(capabilities.permitted()),
        Ambient: set_to_wire(capabilities.ambient()),
        ..Default::default()
    }
}

/// Sorted by name, so that equal specs give equal bytes.
fn set_to_wire(set: &Option<Capabilities>) -> Vec<String> {
    let mut names: Vec<String> = set.iter().flatten().map(|c| format!("CAP_{c}")).collect();
    names.sort_unstable();
    names
}
