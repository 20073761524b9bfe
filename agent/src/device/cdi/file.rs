//! A CDI spec as it is written.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Major version that is understood. Minor ones add fields, and one that is not known is refused.
const MAJOR: u32 = 1;

/// A spec file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    #[serde(skip)]
    pub(super) path: PathBuf,
    cdi_version: String,
    pub(super) kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: serde_json::Value,
    pub(super) devices: Vec<Device>,
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default, rename = "annotations")]
    _annotations: serde_json::Value,
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

/// What a device needs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ContainerEdits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) mounts: Vec<Mount>,
    pub(super) hooks: Vec<Hook>,
    pub(super) additional_gids: Vec<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct DeviceNode {
    pub(super) path: PathBuf,
    pub(super) host_path: Option<PathBuf>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) major: Option<i64>,
    pub(super) minor: Option<i64>,
    pub(super) file_mode: Option<u32>,
    pub(super) permissions: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Mount {
    pub(super) host_path: PathBuf,
    pub(super) container_path: PathBuf,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) options: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Hook {
    pub(super) hook_name: String,
    pub(super) path: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) timeout: Option<i64>,
}

impl File {
    /// Reads a spec; none for a file that is none. The error is what is wrong, with the file's name.
    pub(super) fn read(path: &Path) -> Result<Option<File>, String> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => {}
            Some("yaml" | "yml") => {
                let path = path.display();
                return Err(format!(
                    "{path} is passed over: this agent reads specs as JSON, in files named *.json"
                ));
            }
            _ => return Ok(None),
        }
        let wrong = |error: &dyn std::fmt::Display| format!("{} is passed over: {error}", path.display());
        let text = std::fs::read(path).map_err(|error| wrong(&error))?;
        let mut file: File = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
        let major = file.cdi_version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major > MAJOR) {
            return Err(wrong(&format!("cdiVersion {:?} is not known", file.cdi_version)));
        }
        path.clone_into(&mut file.path);
        Ok(Some(file))
    }
}
