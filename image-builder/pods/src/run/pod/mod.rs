//! A pod: what is left of a manifest once every default is filled in and every value is checked.
//!
//! Must never touch the file system; image and host paths stay text relative to the manifest.

mod env;
mod handler;
mod volume;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use env::{EnvValue, Field, ResourceField};
pub use handler::{Handler, HttpGet, Lifecycle, Probe, Probes};
pub use volume::{Content, FileData, HostPathKind, Propagation, Volume, VolumeFile, VolumeKind, VolumeMount};

/// Something that is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// Where in the manifest, for example `spec.containers[0].image`.
    pub place: String,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place.as_str() {
            "" => write!(f, "line {}: {}", self.line, self.text),
            place => write!(f, "line {}: {place}: {}", self.line, self.text),
        }
    }
}

/// Why a manifest is not a pod that can be run.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// Not YAML.
    #[error("the manifest cannot be read: {0}")]
    Yaml(String),
    /// The file does not have the one pod that is wanted.
    #[error("{0}")]
    Choice(String),
    /// Everything that is wrong with it, in the order of its lines.
    #[error("{}", listed(.0))]
    Refused(Vec<Problem>),
}

fn listed(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        several => several
            .iter()
            .fold(format!("{} problems:", several.len()), |text, problem| format!("{text}\n  {problem}")),
    }
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pod {
    /// What it is called and known by.
    pub meta: Meta,
    /// What `hostname` says in its containers.
    pub hostname: String,
    /// Its name in the domain of a subdomain, which stands in `/etc/hosts` before the host name.
    pub fqdn: Option<String>,
    /// How long containers may take to end.
    pub grace: Duration,
    /// How long it may run.
    pub deadline: Option<Duration>,
    /// Containers that run before the others, in their order.
    pub init: Vec<Container>,
    /// Its containers, in the order in which they start.
    pub containers: Vec<Container>,
    /// What its containers can mount.
    pub volumes: Vec<Volume>,
    /// How names are looked up.
    pub dns: Dns,
    /// Lines of `/etc/hosts`: an address and its names.
    pub host_aliases: Vec<(String, Vec<String>)>,
    /// Kernel settings of its namespaces.
    pub sysctls: Vec<(String, String)>,
    /// Whether its containers see each other's processes.
    pub share_processes: bool,
    /// Who owns the files of its volumes.
    pub fs_group: Option<u32>,
    /// The containers whose end is the pod's.
    pub main: Vec<String>,
    /// What the manifest says without effect, in words for the user.
    pub notes: Vec<String>,
}

/// What a pod is called and known by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Its name, a DNS label.
    pub name: String,
    /// The namespace that it says it is in.
    pub namespace: String,
    /// Its uid, where the manifest names one.
    pub uid: Option<String>,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Its annotations.
    pub annotations: Vec<(String, String)>,
    /// The node it says it runs on.
    pub node: Option<String>,
    /// The service account that it says it has.
    pub service_account: String,
}

/// How names are looked up: `resolv.conf(5)`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    /// Only what stands here counts; else it comes after what the network says.
    pub alone: bool,
    /// Addresses of servers.
    pub servers: Vec<String>,
    /// Domains to search.
    pub searches: Vec<String>,
    /// Options, each `name` or `name:value`.
    pub options: Vec<String>,
}

/// When a container that has ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// Never.
    #[default]
    Never,
    /// When it did not end with 0.
    OnFailure,
    /// Each time.
    Always,
}

/// What part a container has in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// The pod is there for it.
    #[default]
    Main,
    /// Ends before the next one starts.
    Init,
    /// Starts before the ones behind it, and runs as long as they do.
    Sidecar,
}

/// When an image is fetched from its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pull {
    /// Never: it must be there.
    Never,
    /// When it is not there.
    Missing,
    /// Each time.
    Always,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    /// Its name, a DNS label.
    pub name: String,
    /// Its part in the pod.
    pub role: Role,
    /// When it is started again.
    pub restart: Restart,
    /// Where its image is.
    pub image: String,
    /// When its image is fetched, if the manifest says so.
    pub pull: Option<Pull>,
    /// Replaces the image's entry point and its arguments.
    pub command: Option<Vec<String>>,
    /// Replaces the image's arguments.
    pub args: Option<Vec<String>>,
    /// Environment on top of the image's, in the order in which values may refer to each other.
    pub env: Vec<(String, EnvValue)>,
    /// Replaces the image's working directory.
    pub working_dir: Option<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether its standard input stays open.
    pub stdin: bool,
    /// Whether its standard input ends with the first client's.
    pub stdin_once: bool,
    /// CPU limit in thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// Memory limit in bytes.
    pub memory: Option<u64>,
    /// Limit of what it writes, in bytes.
    pub storage: Option<u64>,
    /// What it asks for: CPU in thousandths, and memory in bytes. Only told to itself.
    pub requests: (Option<u64>, Option<u64>),
    /// Volumes it sees.
    pub mounts: Vec<VolumeMount>,
    /// Who it runs as and what it may do.
    pub security: Security,
    /// What tells how it is.
    pub probes: Probes,
    /// What is done after its start and before its end.
    pub lifecycle: Lifecycle,
    /// The file in which it leaves its last words.
    pub termination_path: String,
    /// Whether the end of its output counts when it leaves none.
    pub termination_from_log: bool,
}

/// Who a container runs as and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// Replaces the image's user id.
    pub user: Option<u32>,
    /// Replaces the image's user, by names or numbers: `USER` or `USER:GROUP`. No manifest has this.
    pub account: Option<String>,
    /// Replaces the image's group id.
    pub group: Option<u32>,
    /// Supplementary groups besides the image's.
    pub groups: Vec<u32>,
    /// Whether the image's own supplementary groups count.
    pub only_own_groups: bool,
    /// Whether user 0 is refused.
    pub not_root: bool,
    /// All capabilities, all devices, nothing masked.
    pub privileged: bool,
    /// Whether nothing of /proc and /sys is masked.
    pub unmasked: bool,
    /// Whether its root cannot be written to.
    pub readonly_root: bool,
    /// Whether it may not gain privileges through set-id programs.
    pub no_new_privileges: bool,
    /// Capabilities beyond the default ones, without `CAP_`.
    pub add_capabilities: Vec<String>,
    /// Default capabilities it does not get, without `CAP_`; `ALL` for none.
    pub drop_capabilities: Vec<String>,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Seccomp {
    /// All of them.
    #[default]
    Unconfined,
    /// Those of the usual profile.
    RuntimeDefault,
    /// Those of a profile in a file, relative to the manifest.
    Localhost(String),
}

impl Pod {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.meta.name
    }

    /// All containers, those that start first in front.
    pub fn all(&self) -> impl Iterator<Item = &Container> {
        self.init.iter().chain(&self.containers)
    }

    /// Files and directories of the host that it uses. Relative ones are below `base`.
    pub fn folders(&self, base: &Path) -> Vec<PathBuf> {
        let of = |volume: &Volume| match &volume.kind {
            VolumeKind::HostPath { path, .. } => Some(base.join(path)),
            _ => None,
        };
        self.volumes.iter().filter_map(of).collect()
    }

    /// The container of a name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.all().find(|container| container.name == name)
    }
}
