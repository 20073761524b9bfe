//! What all kinds of objects say of themselves.

use super::fields::{Honoured, Ignored, Schema};

pub(super) static METADATA: Schema = Schema {
    name: "ObjectMeta",
    keys: &[
        ("name", Honoured("a DNS label")),
        ("generateName", Honoured("the name where there is none, without hyphens at its end")),
        ("namespace", Honoured("told to containers that ask (`fieldRef`); `default`")),
        ("uid", Honoured("told to containers that ask; else a new one for each run")),
        ("labels", Honoured("told to containers that ask")),
        (
            "annotations",
            Honoured(
                "told to containers that ask; `pith/main-containers: a,b` names those whose end is the pod's",
            ),
        ),
        ("creationTimestamp", Ignored("a cluster's bookkeeping")),
        ("deletionGracePeriodSeconds", Ignored("a cluster's bookkeeping")),
        ("deletionTimestamp", Ignored("a cluster's bookkeeping")),
        ("finalizers", Ignored("a cluster's bookkeeping")),
        ("generation", Ignored("a cluster's bookkeeping")),
        ("managedFields", Ignored("a cluster's bookkeeping")),
        ("ownerReferences", Ignored("a cluster's bookkeeping")),
        ("resourceVersion", Ignored("a cluster's bookkeeping")),
        ("selfLink", Ignored("a cluster's bookkeeping")),
    ],
};
