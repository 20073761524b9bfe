//! A pod: what is left of a manifest once every default is filled in and every value is checked.
//!
//! Must never touch the file system; image and host paths stay text relative to the manifest.

use std::path::PathBuf;
use std::time::Duration;

use super::manifest::Manifest;

/// Why a manifest is not a pod that can be run.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// Not YAML, or a key that has no meaning here.
    #[error("the manifest cannot be read: {0}")]
    Yaml(String),
    /// A value that makes no sense.
    #[error("{place}: {problem}")]
    Value {
        /// Where in the manifest, for example `spec.containers[0].image`.
        place: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name, a DNS label.
    pub name: String,
    /// What `hostname` says in its containers.
    pub hostname: String,
    /// How long containers may take to end.
    pub grace: Duration,
    /// Its containers, in the order in which they start.
    pub containers: Vec<Container>,
    /// What its containers can mount.
    pub volumes: Vec<Volume>,
    /// Lines of `/etc/resolv.conf`.
    pub dns: Vec<String>,
    /// The containers whose end is the pod's.
    pub main: Vec<String>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    /// Its name, a DNS label.
    pub name: String,
    /// Where its image is.
    pub image: String,
    /// Replaces the image's entry point and its arguments.
    pub command: Option<Vec<String>>,
    /// Replaces the image's arguments.
    pub args: Option<Vec<String>>,
    /// Environment on top of the image's.
    pub env: Vec<(String, String)>,
    /// Replaces the image's working directory.
    pub working_dir: Option<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether its standard input stays open.
    pub stdin: bool,
    /// CPU limit in thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// Memory limit in bytes.
    pub memory: Option<u64>,
    /// Volumes it sees.
    pub mounts: Vec<VolumeMount>,
    /// Replaces the image's user id.
    pub user: Option<u32>,
    /// Replaces the image's group id.
    pub group: Option<u32>,
    /// Supplementary groups besides the image's.
    pub groups: Vec<u32>,
    /// All capabilities, all devices, nothing masked.
    pub privileged: bool,
    /// Whether its root cannot be written to.
    pub readonly_root: bool,
    /// Whether it may gain privileges through set-id programs.
    pub may_gain_privileges: bool,
    /// Capabilities beyond the default ones, without `CAP_`.
    pub add_capabilities: Vec<String>,
    /// Default capabilities it does not get, without `CAP_`; `ALL` for none.
    pub drop_capabilities: Vec<String>,
}

/// Where a container sees a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// The volume.
    pub volume: String,
    /// The directory in the container.
    pub path: String,
    /// Whether it cannot be written to.
    pub readonly: bool,
}

/// Something that containers can mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: VolumeKind,
}

/// Kinds of volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeKind {
    /// An empty directory in the guest that lives as long as the pod.
    EmptyDir {
        /// A tmpfs of its own rather than a directory.
        memory: bool,
        /// The tmpfs's size in bytes.
        size: Option<u64>,
    },
    /// A directory of the host, shared with the guest.
    HostPath {
        /// Where it is; relative to the manifest.
        path: PathBuf,
        /// Whether it is made where it is missing.
        create: bool,
    },
}

impl Pod {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`PodError`] names the key and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PodError> {
        let manifest: Manifest = serde_saphyr::from_str(text)
            .map_err(|error| PodError::Yaml(error.to_string().trim_end().to_owned()))?;
        manifest.into_pod()
    }
}
