//! The JSON documents of an image, as the tools that write them understand each other.
//!
//! Those tools read JSON with Go's `encoding/json`, which takes keys in any case, and null for nothing; some writers count
//! on it (containerify writes docker's `Config` as `config`). So all documents are read in that way. One thing is stricter: a
//! key that is there twice is refused, since readers differ on which of the two counts.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::ImageError;

/// Below these keys, keys are data.
const MAPS: [&str; 4] = ["annotations", "labels", "volumes", "exposedports"];

/// An index: manifests of one image for several platforms, or of several images.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Index {
    #[serde(default, deserialize_with = "or_null")]
    pub(super) manifests: Vec<Descriptor>,
}

/// What is where.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(super) struct Descriptor {
    #[serde(default, rename = "mediatype", deserialize_with = "or_null")]
    pub(super) media_type: String,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) digest: String,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    /// Where content that must not be distributed with the image comes from.
    #[serde(default, deserialize_with = "or_null")]
    pub(super) urls: Vec<String>,
}

/// What a program needs to run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(super) struct Platform {
    #[serde(default, deserialize_with = "or_null")]
    pub(super) os: String,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) architecture: String,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) variant: String,
}

/// A manifest; of an image, or of something else.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Manifest {
    #[serde(default, rename = "schemaversion")]
    pub(super) schema_version: Option<u32>,
    #[serde(default, rename = "mediatype", deserialize_with = "or_null")]
    pub(super) media_type: String,
    #[serde(default, rename = "artifacttype", deserialize_with = "or_null")]
    pub(super) artifact_type: String,
    #[serde(default)]
    pub(super) config: Option<Descriptor>,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) layers: Vec<Descriptor>,
    /// An index has these; a document that is both is refused.
    #[serde(default)]
    pub(super) manifests: Option<Vec<Descriptor>>,
}

/// What an image is made for, how it is run, and what its layers hold.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Configuration {
    #[serde(flatten)]
    pub(super) platform: Platform,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) config: Settings,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) rootfs: Content,
}

/// How an image is run.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Settings {
    #[serde(default, deserialize_with = "or_null")]
    pub(super) entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) cmd: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) env: Vec<String>,
    #[serde(default, rename = "workingdir", deserialize_with = "or_null")]
    pub(super) working_dir: String,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) user: String,
    #[serde(default, rename = "stopsignal", deserialize_with = "or_null")]
    pub(super) stop_signal: String,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) volumes: BTreeMap<String, Value>,
}

/// The layers' content.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Content {
    #[serde(default, deserialize_with = "or_null")]
    pub(super) diff_ids: Vec<String>,
}

/// An entry of a docker archive's `manifest.json`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SavedImage {
    #[serde(default, deserialize_with = "or_null")]
    pub(super) config: String,
    #[serde(default, rename = "repotags", deserialize_with = "or_null")]
    pub(super) repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) layers: Vec<String>,
}

/// `config.json` of a runtime bundle, as far as an image has the same.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Bundle {
    #[serde(default)]
    pub(super) root: Option<BundleRoot>,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) process: BundleProcess,
}

/// Where a bundle's root file system is.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct BundleRoot {
    pub(super) path: String,
}

/// What a bundle runs.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct BundleProcess {
    #[serde(default, deserialize_with = "or_null")]
    pub(super) args: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) env: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) cwd: String,
    #[serde(default, deserialize_with = "or_null")]
    pub(super) user: BundleUser,
}

/// As whom a bundle runs.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct BundleUser {
    #[serde(default)]
    pub(super) uid: u32,
    #[serde(default)]
    pub(super) gid: u32,
}

/// Reads a document; `path` and `name` are for the error.
pub(super) fn parse<T: serde::de::DeserializeOwned>(
    path: &Path,
    name: &str,
    document: &[u8],
) -> Result<T, ImageError> {
    let wrong = |source| ImageError::Json { path: path.join(name), source };
    let value = serde_json::from_slice(document).map_err(wrong)?;
    let value = fold(value).map_err(|key| {
        wrong(serde::de::Error::custom(format!("the key {key:?} is there twice, in different case")))
    })?;
    serde_json::from_value(value).map_err(wrong)
}

/// Makes keys lower-case. The error is a key that comes twice then.
fn fold(value: Value) -> Result<Value, String> {
    Ok(match value {
        Value::Array(values) => Value::Array(values.into_iter().map(fold).collect::<Result<_, _>>()?),
        Value::Object(fields) => {
            let mut folded = serde_json::Map::new();
            for (key, value) in fields {
                let lower = key.to_ascii_lowercase();
                let value = if MAPS.contains(&lower.as_str()) { value } else { fold(value)? };
                if folded.insert(lower, value).is_some() {
                    return Err(key);
                }
            }
            Value::Object(folded)
        }
        other => other,
    })
}

/// Null is as good as nothing.
fn or_null<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ImageError> {
        parse(Path::new("image"), "document.json", text.as_bytes())
    }

    #[test]
    fn keys_come_in_any_case_and_data_stays_as_it_is() {
        let saved: Vec<SavedImage> =
            read(r#"[{"config": "c.json", "REPOTAGS": null, "layerS": ["l.tar"]}]"#).unwrap();
        assert_eq!(
            (saved[0].config.as_str(), saved[0].layers.len(), saved[0].repo_tags.len()),
            ("c.json", 1, 0)
        );
        let found: Configuration = read(
            r#"{"OS": "linux", "Architecture": "amd64", "Config": {"workingdir": "/W", "Volumes": {"/Data": {}},
                "Env": ["Path=/Bin"], "Labels": {"A": "1", "a": "2"}}, "RootFS": {"Diff_IDs": ["sha256:A"]}}"#,
        )
        .unwrap();
        assert_eq!((found.platform.os.as_str(), found.config.working_dir.as_str()), ("linux", "/W"));
        assert_eq!(found.config.volumes.keys().collect::<Vec<_>>(), ["/Data"]);
        assert_eq!(
            (found.config.env[0].as_str(), found.rootfs.diff_ids[0].as_str()),
            ("Path=/Bin", "sha256:A")
        );
        let index: Index = read(r#"{"Manifests": [{"Annotations": {"Some.Key": "Value"}}]}"#).unwrap();
        assert_eq!(index.manifests[0].annotations["Some.Key"], "Value");
    }

    #[test]
    fn a_key_that_comes_twice_is_refused() {
        let error = read::<Manifest>(r#"{"layers": [], "Layers": []}"#).unwrap_err();
        assert!(format!("{:?}", anyhow::Error::from(error)).contains("twice"));
        assert!(read::<Manifest>(r#"{"layers": 7}"#).is_err());
    }
}
