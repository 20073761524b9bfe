//! The metadata of objects of all kinds.

use super::fields::{Honoured, Ignored, Schema};

pub(super) static METADATA: Schema = Schema {
    name: "ObjectMeta",
    keys: &[
        ("name", Honoured("a DNS label")),
        (
            "generateName",
            Honoured("is used as the name if there is no `name`. Hyphens at its end are removed"),
        ),
        ("namespace", Honoured("containers can read it (`fieldRef`). Default: `default`")),
        ("uid", Honoured("containers can read it. Default: a new one for each run")),
        ("labels", Honoured("containers can read them")),
        (
            "annotations",
            Honoured(
                "containers can read them. `pith/main-containers: a,b` names the main containers: when these have ended, the pod ends",
            ),
        ),
        ("creationTimestamp", Ignored("only a cluster uses it")),
        ("deletionGracePeriodSeconds", Ignored("only a cluster uses it")),
        ("deletionTimestamp", Ignored("only a cluster uses it")),
        ("finalizers", Ignored("only a cluster uses it")),
        ("generation", Ignored("only a cluster uses it")),
        ("managedFields", Ignored("only a cluster uses it")),
        ("ownerReferences", Ignored("only a cluster uses it")),
        ("resourceVersion", Ignored("only a cluster uses it")),
        ("selfLink", Ignored("only a cluster uses it")),
    ],
};
