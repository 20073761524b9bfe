//! Volumes whose files the manifest itself has: ConfigMaps, Secrets, and what the pod can be told about itself.

use super::document::{Data, SourceKind, Sources};
use super::env::{self, Told};
use super::fields::{At, Fields, Honoured, Refused, Schema};
use crate::run::pod::{Content, FileData, Meta, VolumeFile};

static CONFIG_MAP: Schema = Schema {
    name: "ConfigMapVolumeSource",
    keys: &[
        ("name", Honoured("a ConfigMap in the same file")),
        ("items", Honoured("only these keys, as files with these names")),
        ("defaultMode", Honoured("0644")),
        ("optional", Honoured("whether it may be absent")),
    ],
};

static SECRET: Schema = Schema {
    name: "SecretVolumeSource",
    keys: &[
        ("secretName", Honoured("a Secret in the same file")),
        ("items", Honoured("only these keys, as files with these names")),
        ("defaultMode", Honoured("0644")),
        ("optional", Honoured("whether it may be absent")),
    ],
};

static ITEM: Schema = Schema {
    name: "KeyToPath",
    keys: &[
        ("key", Honoured("the key")),
        ("path", Honoured("a path in the volume, without `..`")),
        ("mode", Honoured("replaces the volume's `defaultMode`")),
    ],
};

static DOWNWARD: Schema = Schema {
    name: "DownwardAPIVolumeSource",
    keys: &[
        ("items", Honoured("the files; written once, when the pod starts")),
        ("defaultMode", Honoured("0644")),
    ],
};

static DOWNWARD_ITEM: Schema = Schema {
    name: "DownwardAPIVolumeFile",
    keys: &[
        ("path", Honoured("a path in the volume, without `..`")),
        ("fieldRef", Honoured("a field of the pod")),
        ("resourceFieldRef", Honoured("a limit or request of a container")),
        ("mode", Honoured("replaces the volume's `defaultMode`")),
    ],
};

static PROJECTED: Schema = Schema {
    name: "ProjectedVolumeSource",
    keys: &[
        (
            "sources",
            Honoured("these sources, in one directory. If two have the same file, the later one wins"),
        ),
        ("defaultMode", Honoured("0644")),
    ],
};

static PROJECTION: Schema = Schema {
    name: "VolumeProjection",
    keys: &[
        ("configMap", Honoured("as a volume, without `defaultMode`")),
        ("secret", Honoured("as a volume, but `name` and not `secretName`, and without `defaultMode`")),
        ("downwardAPI", Honoured("as a volume, without `defaultMode`")),
        (
            "serviceAccountToken",
            Honoured(
                "there is no API server, so there is no token. The whole volume is empty, and a note says so",
            ),
        ),
        (
            "clusterTrustBundle",
            Refused("there is no cluster that has one; a ConfigMap can hold certificates"),
        ),
        (
            "podCertificate",
            Refused("there is no cluster that signs it; a Secret can hold a key and its certificate"),
        ),
    ],
};

static PROJECTED_SOURCE: Schema = Schema {
    name: "ConfigMapProjection, SecretProjection",
    keys: &[
        ("name", Honoured("a ConfigMap or Secret in the same file")),
        ("items", Honoured("only these keys, as files with these names")),
        ("optional", Honoured("whether it may be absent")),
    ],
};

static DOWNWARD_PROJECTION: Schema =
    Schema { name: "DownwardAPIProjection", keys: &[("items", Honoured("the files"))] };

#[cfg(test)]
pub(super) static SCHEMAS: &[&Schema] = &[
    &CONFIG_MAP,
    &SECRET,
    &ITEM,
    &DOWNWARD,
    &DOWNWARD_ITEM,
    &PROJECTED,
    &PROJECTION,
    &PROJECTED_SOURCE,
    &DOWNWARD_PROJECTION,
];

const USUAL_MODE: u32 = 0o644;

pub(super) fn config_map(at: &At<'_>, sources: &Sources) -> Option<Vec<VolumeFile>> {
    let fields = at.fields(&CONFIG_MAP)?;
    keyed(&fields, SourceKind::ConfigMap, "name", sources, default_mode(&fields))
}

pub(super) fn secret(at: &At<'_>, sources: &Sources) -> Option<Vec<VolumeFile>> {
    let fields = at.fields(&SECRET)?;
    keyed(&fields, SourceKind::Secret, "secretName", sources, default_mode(&fields))
}

pub(super) fn downward(at: &At<'_>, meta: &Meta) -> Option<Vec<VolumeFile>> {
    let fields = at.fields(&DOWNWARD)?;
    Some(told(&fields, meta, default_mode(&fields)))
}

pub(super) fn projected(at: &At<'_>, sources: &Sources, meta: &Meta) -> Option<Vec<VolumeFile>> {
    let fields = at.fields(&PROJECTED)?;
    let usual = default_mode(&fields);
    let wants_token = wants_token(at);
    let mut files: Vec<VolumeFile> = Vec::new();
    let mut has_token = false;
    let mut read = |at: At<'_>| -> Option<()> {
        let fields = at.fields(&PROJECTION)?;
        let key = fields.exactly_one(&["configMap", "secret", "downwardAPI", "serviceAccountToken"])?;
        let at = fields.at(key)?;
        let more = match key {
            "serviceAccountToken" => {
                has_token = true;
                Vec::new()
            }
            // What comes with a token is of no use without it, and need not be in the file.
            _ if wants_token => Vec::new(),
            "downwardAPI" => told(&at.fields(&DOWNWARD_PROJECTION)?, meta, usual),
            _ => {
                let kind = if key == "secret" { SourceKind::Secret } else { SourceKind::ConfigMap };
                keyed(&at.fields(&PROJECTED_SOURCE)?, kind, "name", sources, usual)?
            }
        };
        for file in more {
            files.retain(|known| known.path != file.path);
            files.push(file);
        }
        Some(())
    };
    fields.each("sources", &mut read);
    if has_token {
        at.report.ignored(format!("{} (there is no API server; it is empty)", at.place()));
    }
    Some(files)
}

fn wants_token(at: &At<'_>) -> bool {
    use super::yaml::Value;
    match at.node.get("sources").map(|sources| &sources.value) {
        Some(Value::List(list)) => list.iter().any(|source| source.get("serviceAccountToken").is_some()),
        _ => false,
    }
}

/// Files of the keys of a ConfigMap or Secret.
fn keyed(
    fields: &Fields<'_>,
    kind: SourceKind,
    name_key: &'static str,
    sources: &Sources,
    usual: u32,
) -> Option<Vec<VolumeFile>> {
    let optional = fields.flag("optional");
    let items = fields.at("items").map(|_| {
        fields.each("items", |at| {
            let fields = at.fields(&ITEM)?;
            let (key, path) = (fields.needed("key").map(str::to_owned), path(&fields));
            Some((key?, path?, mode(&fields, "mode").unwrap_or(usual), at.line))
        })
    });
    let name = fields.needed(name_key)?;
    let nothing = Data::new();
    let data = match sources.find(kind, name, optional, &fields.at(name_key)?) {
        Some(data) => data,
        None if optional => &nothing,
        None => return None,
    };
    let file = |path: String, mode: u32, bytes: &[u8]| VolumeFile {
        path,
        mode,
        data: FileData::Bytes(Content(bytes.to_vec())),
    };
    let Some(items) = items else {
        return Some(data.iter().map(|(key, bytes)| file(key.clone(), usual, bytes)).collect());
    };
    let mut files = Vec::new();
    for (key, path, mode, line) in items {
        match data.get(&key) {
            Some(bytes) => files.push(file(path, mode, bytes)),
            None if optional => {}
            None => fields.report.problem(
                line,
                format!("{}.items", fields.place),
                format!("the {} {name:?} has no key {key:?}", kind.name()),
            ),
        }
    }
    Some(files)
}

/// Files of what the pod can be told.
fn told(fields: &Fields<'_>, meta: &Meta, usual: u32) -> Vec<VolumeFile> {
    fields.each("items", |at| {
        let fields = at.fields(&DOWNWARD_ITEM)?;
        let (path, mode) = (path(&fields), mode(&fields, "mode").unwrap_or(usual));
        let data = match fields.exactly_one(&["fieldRef", "resourceFieldRef"])? {
            "fieldRef" => match env::field(&fields.at("fieldRef")?, meta, true)? {
                Told::Text(text) => FileData::Bytes(Content(text.into_bytes())),
                Told::Field(field) => FileData::Field(field),
            },
            _ => FileData::Resource(env::resource(&fields.at("resourceFieldRef")?, true)?),
        };
        Some(VolumeFile { path: path?, mode, data })
    })
}

fn path(fields: &Fields<'_>) -> Option<String> {
    let path = fields.needed("path")?;
    if is_below(path) {
        Some(path.to_owned())
    } else {
        fields.wrong(format!("path {path:?} is not one below the volume, without \"..\""));
        None
    }
}

fn default_mode(fields: &Fields<'_>) -> u32 {
    mode(fields, "defaultMode").unwrap_or(USUAL_MODE)
}

/// Permission bits: octal where they begin with 0, as YAML has it, else decimal, as JSON has it.
fn mode(fields: &Fields<'_>, key: &'static str) -> Option<u32> {
    let at = fields.at(key)?;
    let word = at.word()?;
    let digits = word.strip_prefix("0o").or_else(|| word.strip_prefix('0').filter(|rest| !rest.is_empty()));
    let mode = match digits {
        Some(octal) => u32::from_str_radix(octal, 8).ok(),
        None => word.parse().ok(),
    };
    let mode = mode.filter(|&mode| mode <= 0o777);
    if mode.is_none() {
        at.wrong(format!("{word} is no mode from 0 to 0777 (decimal: 511)"));
    }
    mode
}

/// Whether a path leads to something below where it begins.
pub(super) fn is_below(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with('/')
        && !path.contains('\0')
        && path.split('/').all(|part| part != "..")
}
