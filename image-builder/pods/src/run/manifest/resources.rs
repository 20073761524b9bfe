//! Limits and requests of containers.

use super::fields::{At, Fields, Honoured, Ignored, Refused, Schema};
use crate::run::quantity;

static RESOURCES: Schema = Schema {
    name: "ResourceRequirements",
    keys: &[
        ("limits", Honoured("what a container can take, see below; 0 is no limit")),
        (
            "requests",
            Honoured(
                "containers can read them (`resourceFieldRef`). They have no other effect: no other pod shares the machine",
            ),
        ),
        ("claims", Refused("there are no device claims")),
    ],
};

static LIMITS: Schema = Schema {
    name: "ResourceList of limits",
    keys: &[
        ("cpu", Honoured("processor time")),
        ("memory", Honoured("bytes. By default the guest has 512 MiB plus the sum of these")),
        (
            "ephemeral-storage",
            Honoured(
                "what containers write to their roots and to emptyDirs is on one disk, which they share. Its size is the \
                 sum of these limits. Without limits, it is in the guest's memory",
            ),
        ),
    ],
};

static REQUESTS: Schema = Schema {
    name: "ResourceList of requests",
    keys: &[
        ("cpu", Honoured("as above")),
        ("memory", Honoured("as above")),
        ("ephemeral-storage", Ignored("no other pod shares the disk")),
    ],
};

#[cfg(test)]
pub(super) static SCHEMAS: &[&Schema] = &[&RESOURCES, &LIMITS, &REQUESTS];

/// CPU in thousandths and memory in bytes.
pub(super) type Amounts = (Option<u64>, Option<u64>);

/// Limits, requests, and the limit of what is written; a request that is not there is as large as the limit.
pub(super) fn read(container: &Fields<'_>) -> (Amounts, Amounts, Option<u64>) {
    let Some(fields) = container.fields("resources", &RESOURCES) else { return Default::default() };
    let amounts = |key, schema| {
        let Some(fields) = fields.fields(key, schema) else { return Default::default() };
        let amount = |key, cpu| quantity(&fields.at(key)?, cpu).filter(|&amount| amount > 0);
        // Requests of storage are without effect.
        let storage = if key == "limits" { amount("ephemeral-storage", false) } else { None };
        ((amount("cpu", true), amount("memory", false)), storage)
    };
    let (limits, storage): (Amounts, Option<u64>) = amounts("limits", &LIMITS);
    let (requests, _): (Amounts, Option<u64>) = amounts("requests", &REQUESTS);
    for (name, request, limit) in [("cpu", requests.0, limits.0), ("memory", requests.1, limits.1)] {
        if let (Some(request), Some(limit)) = (request, limit)
            && request > limit
        {
            fields.wrong(format!("more {name} is requested than the limit allows"));
        }
    }
    (limits, (requests.0.or(limits.0), requests.1.or(limits.1)), storage)
}

/// A quantity: thousandths of a CPU, or bytes.
pub(super) fn quantity(at: &At<'_>, cpu: bool) -> Option<u64> {
    let text = at.word()?;
    at.checked(if cpu { quantity::millis(text) } else { quantity::memory(text) })
}
