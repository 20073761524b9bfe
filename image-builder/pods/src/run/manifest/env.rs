//! Variables of a container: literal ones, and those taken from elsewhere.

use super::document::{Data, SourceKind, Sources};
use super::fields::{At, Fields, Honoured, Refused, Schema};
use super::resources;
use crate::run::pod::{EnvValue, Field, Meta, ResourceField};

static ENV: Schema = Schema {
    name: "EnvVar",
    keys: &[
        ("name", Honoured("any printable characters but `=`")),
        (
            "value",
            Honoured("`$(NAME)` stands for a variable of the manifest that comes before it, `$$` for `$`"),
        ),
        ("valueFrom", Honoured("one of the sources below")),
    ],
};

static VALUE_FROM: Schema = Schema {
    name: "EnvVarSource",
    keys: &[
        ("configMapKeyRef", Honoured("a key of a ConfigMap in the same file")),
        ("secretKeyRef", Honoured("a key of a Secret in the same file")),
        ("fieldRef", Honoured("a field of the pod")),
        ("resourceFieldRef", Honoured("a limit or request of a container")),
        ("fileKeyRef", Refused("variables are not read from files of a volume; a ConfigMap can hold them")),
    ],
};

static KEY_REF: Schema = Schema {
    name: "ConfigMapKeySelector, SecretKeySelector",
    keys: &[
        ("name", Honoured("the ConfigMap or Secret")),
        ("key", Honoured("its key")),
        ("optional", Honoured("with `true`, a missing key is no error, and the variable is not set")),
    ],
};

static FIELD_REF: Schema = Schema {
    name: "ObjectFieldSelector",
    keys: &[
        ("apiVersion", Honoured("`v1`")),
        (
            "fieldPath",
            Honoured(
                "`metadata.name`, `.namespace`, `.uid`, `.labels['K']`, `.annotations['K']`, `spec.nodeName`, \
                 `spec.serviceAccountName`, `status.podIP`, `.podIPs`, `.hostIP`, `.hostIPs`; in volumes also all \
                 `metadata.labels` and `.annotations`",
            ),
        ),
    ],
};

static RESOURCE_REF: Schema = Schema {
    name: "ResourceFieldSelector",
    keys: &[
        ("containerName", Honoured("the container; needed in volumes")),
        (
            "resource",
            Honoured("`limits.` or `requests.` `cpu` or `memory`; without a limit it is what the guest has"),
        ),
        ("divisor", Honoured("the unit. The number is rounded up")),
    ],
};

static ENV_FROM: Schema = Schema {
    name: "EnvFromSource",
    keys: &[
        ("prefix", Honoured("is put in front of each name")),
        ("configMapRef", Honoured("all keys of a ConfigMap in the same file")),
        ("secretRef", Honoured("all keys of a Secret in the same file")),
    ],
};

static REF: Schema = Schema {
    name: "ConfigMapEnvSource, SecretEnvSource",
    keys: &[
        ("name", Honoured("the ConfigMap or Secret")),
        ("optional", Honoured("whether it may be absent")),
    ],
};

#[cfg(test)]
pub(super) static SCHEMAS: &[&Schema] =
    &[&ENV, &VALUE_FROM, &KEY_REF, &FIELD_REF, &RESOURCE_REF, &ENV_FROM, &REF];

/// What a field or a resource comes to: a text that is known now, or something that is known later.
pub(super) enum Told {
    Text(String),
    Field(Field),
}

/// The variables of a container: those of whole sources first, then the named ones.
pub(super) fn read(container: &Fields<'_>, sources: &Sources, meta: &Meta) -> Vec<(String, EnvValue)> {
    let mut env: Vec<(String, EnvValue)> = Vec::new();
    container.each("envFrom", |at| {
        env.extend(from_source(&at, sources)?);
        Some(())
    });
    container.each("env", |at| {
        if let Some(variable) = variable(&at, sources, meta) {
            env.push(variable);
        }
        Some(())
    });
    env
}

fn from_source(at: &At<'_>, sources: &Sources) -> Option<Vec<(String, EnvValue)>> {
    let fields = at.fields(&ENV_FROM)?;
    let prefix = fields.text("prefix").unwrap_or_default().to_owned();
    let key = fields.exactly_one(&["configMapRef", "secretRef"])?;
    let kind = if key == "secretRef" { SourceKind::Secret } else { SourceKind::ConfigMap };
    let at = fields.at(key)?;
    let source = at.fields(&REF)?;
    let optional = source.flag("optional");
    let data: &Data = sources.find(kind, source.needed("name")?, optional, &at)?;
    let variables = data.iter().filter_map(|(key, bytes)| {
        let text = String::from_utf8(bytes.clone()).ok().filter(|text| !text.contains('\0'))?;
        Some((format!("{prefix}{key}"), EnvValue::Literal(text)))
    });
    Some(variables.collect())
}

fn variable(at: &At<'_>, sources: &Sources, meta: &Meta) -> Option<(String, EnvValue)> {
    let fields = at.fields(&ENV)?;
    let value = fields.text("value").map(str::to_owned);
    let from = fields.at("valueFrom");
    let name = fields.needed("name").map(str::to_owned);
    if let Some(name) = &name
        && (name.is_empty() || name.contains('=') || name.chars().any(char::is_control))
    {
        fields.wrong(format!("{name:?} cannot be a variable's name"));
        return None;
    }
    let value = match (value, from) {
        (Some(value), Some(_)) if !value.is_empty() => {
            fields.wrong("has both value and valueFrom");
            return None;
        }
        (_, Some(from)) => value_from(&from, sources, meta)?,
        (value, None) => EnvValue::Text(value.unwrap_or_default()),
    };
    if matches!(&value, EnvValue::Text(text) | EnvValue::Literal(text) if text.contains('\0')) {
        fields.wrong("a variable cannot hold a NUL byte");
        return None;
    }
    Some((name?, value))
}

fn value_from(at: &At<'_>, sources: &Sources, meta: &Meta) -> Option<EnvValue> {
    let fields = at.fields(&VALUE_FROM)?;
    let key = fields.exactly_one(&["configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef"])?;
    let at = fields.at(key)?;
    match key {
        "fieldRef" => match field(&at, meta, false)? {
            Told::Text(text) => Some(EnvValue::Literal(text)),
            Told::Field(field) => Some(EnvValue::Field(field)),
        },
        "resourceFieldRef" => resource(&at, false).map(EnvValue::Resource),
        _ => {
            let kind = if key == "secretKeyRef" { SourceKind::Secret } else { SourceKind::ConfigMap };
            let source = at.fields(&KEY_REF)?;
            let (optional, key) = (source.flag("optional"), source.needed("key"));
            let data = sources.find(kind, source.needed("name")?, optional, &at)?;
            let key = key?;
            let Some(bytes) = data.get(key) else {
                if !optional {
                    at.wrong(format!("the {} has no key {key:?}", kind.name()));
                }
                return None;
            };
            let text = String::from_utf8(bytes.clone());
            at.checked(
                text.map(EnvValue::Literal)
                    .map_err(|_| format!("the key {key:?} holds bytes that are no text")),
            )
        }
    }
}

/// A `fieldRef`.
pub(super) fn field(at: &At<'_>, meta: &Meta, in_volume: bool) -> Option<Told> {
    let fields = at.fields(&FIELD_REF)?;
    fields.choice("apiVersion", &[("v1", ())]);
    let path = fields.needed("fieldPath")?;
    let text = |text: &str| Some(Told::Text(text.to_owned()));
    let of_map = |map: &[(String, String)], rest: &str| {
        let key = rest.strip_prefix("['").and_then(|rest| rest.strip_suffix("']"))?;
        let found = map.iter().find(|(known, _)| known == key);
        // A label that the pod does not have is an empty text, as in Kubernetes.
        Some(Told::Text(found.map_or_else(String::new, |(_, value)| value.clone())))
    };
    let told = match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => match &meta.uid {
            Some(uid) => text(uid),
            None => Some(Told::Field(Field::Uid)),
        },
        "spec.nodeName" => match &meta.node {
            Some(node) => text(node),
            None => Some(Told::Field(Field::NodeName)),
        },
        "spec.serviceAccountName" => text(&meta.service_account),
        "status.podIP" => Some(Told::Field(Field::PodIp)),
        "status.podIPs" => Some(Told::Field(Field::PodIps)),
        "status.hostIP" | "status.hostIPs" => Some(Told::Field(Field::HostIp)),
        "metadata.labels" if in_volume => text(&super::labels::lines(&meta.labels)),
        "metadata.annotations" if in_volume => text(&super::labels::lines(&meta.annotations)),
        other => match (other.strip_prefix("metadata.labels"), other.strip_prefix("metadata.annotations")) {
            (Some(rest), _) => of_map(&meta.labels, rest),
            (_, Some(rest)) => of_map(&meta.annotations, rest),
            _ => None,
        },
    };
    if told.is_none() {
        fields.wrong(format!("there is no fieldPath {path:?} that can be told here"));
    }
    told
}

/// A `resourceFieldRef`.
pub(super) fn resource(at: &At<'_>, in_volume: bool) -> Option<ResourceField> {
    let fields = at.fields(&RESOURCE_REF)?;
    let container = fields.text("containerName").unwrap_or_default().to_owned();
    let divisor = fields.at("divisor");
    let path = fields.needed("resource")?;
    if in_volume && container.is_empty() {
        fields.wrong("containerName is missing");
    }
    let (limit, cpu) = match path {
        "limits.cpu" => (true, true),
        "limits.memory" => (true, false),
        "requests.cpu" => (false, true),
        "requests.memory" => (false, false),
        other => {
            fields.wrong(format!(
                "resource {other:?} is none of limits.cpu, limits.memory, requests.cpu, requests.memory"
            ));
            return None;
        }
    };
    let usual = if cpu { 1000 } else { 1 };
    let divisor = match divisor {
        Some(at) => resources::quantity(&at, cpu)?,
        None => 0,
    };
    Some(ResourceField { container, cpu, limit, divisor: if divisor == 0 { usual } else { divisor } })
}
