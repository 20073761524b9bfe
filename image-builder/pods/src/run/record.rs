//! The record of a pod, `pod.json`, which other processes read.
//!
//! Must never hold anything that only the process that runs the pod needs.

use std::net::SocketAddr;
use std::path::PathBuf;

use machine::vm::{Endpoint, Forward};
use serde::{Deserialize, Serialize};

use super::state_error::StateError;
use super::timing::Timings;

/// How far a pod has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Images are prepared, the guest boots, containers start.
    Starting,
    /// All containers have started.
    Running,
    /// The main containers have ended, and the pod is kept.
    Finished,
    /// Containers are being ended.
    Stopping,
    /// It is over: only its record and its logs are left.
    Ended,
}

/// How far a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerPhase {
    /// Not started yet, or not yet again.
    #[default]
    Waiting,
    /// Running.
    Running,
    /// Ended for good.
    Exited,
}

/// What part a container has in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerRole {
    /// The pod is there for it.
    #[default]
    Main,
    /// Ends before the next one starts.
    Init,
    /// Runs beside the others.
    Sidecar,
}

/// What another process must know to run something in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Environment, each `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Whether it may not gain privileges.
    pub no_new_privileges: bool,
    /// Whether the home directory in its environment is the user's, and nobody's wish.
    #[serde(default)]
    pub home_is_default: bool,
}

/// Something of the guest's that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MountRecord {
    /// Where the guest has it.
    pub source: String,
    /// Where the container sees it; `/` is its root.
    pub target: String,
    /// Whether the container cannot write to it.
    pub readonly: bool,
}

/// A container of a running pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Name in the pod.
    pub name: String,
    /// Id in the guest.
    pub id: String,
    /// Image reference.
    pub image: String,
    /// How far it has come.
    pub phase: ContainerPhase,
    /// Its part in the pod.
    #[serde(default)]
    pub role: ContainerRole,
    /// Exit status, once it has ended; of the last time, if it is started again.
    pub exit_code: Option<i32>,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u32,
    /// Whether it is ready to serve, as its readiness probe says; without one whether it runs.
    #[serde(default)]
    pub ready: bool,
    /// Whether a startup or readiness probe decides about that.
    #[serde(default)]
    pub probed: bool,
    /// Its last words, if it left any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether it has a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Whether its input stays open.
    #[serde(default)]
    pub stdin: bool,
    /// Whether its input ends with the first client's.
    #[serde(default)]
    pub stdin_once: bool,
    /// The defaults for further processes.
    pub process: ProcessRecord,
    /// Its root, and what is mounted in it, for copies. Empty until it is started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountRecord>,
}

/// How a pod was started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The arguments of the program.
    pub arguments: Vec<String>,
    /// The directory it was started in.
    pub directory: PathBuf,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Its name.
    pub name: String,
    /// The process that runs it.
    pub pid: u32,
    /// How far it has come.
    pub phase: Phase,
    /// How many seconds its end takes at the most once it is asked to stop.
    #[serde(default)]
    pub stop_within: u64,
    /// When it was started, in seconds since 1970.
    pub started: u64,
    /// When it was over, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// The status of the run, once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What went wrong with the run as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How it was started, for whoever starts it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// `kvm` or `tcg`.
    pub accel: Option<String>,
    /// Where its guest is reached.
    pub endpoint: Option<Endpoint>,
    /// Ports of the host that lead into it.
    #[serde(default)]
    pub ports: Vec<Forward>,
    /// Those of them that are closed until somebody in the pod answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_ports: Vec<Forward>,
    /// Where its sandbox API is reached.
    #[serde(default)]
    pub sandbox_api: Option<SocketAddr>,
    /// Files and directories of the host that it uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<PathBuf>,
    /// Its containers.
    pub containers: Vec<ContainerRecord>,
    /// What was measured so far.
    pub timings: Timings,
}

impl PodRecord {
    /// The container that is meant by the word that led to this pod: none if that is the pod's name, else the word itself, which
    /// is then a container's id.
    pub fn container_in<'a>(&self, word: &'a str) -> Option<&'a str> {
        (self.name != word).then_some(word)
    }

    /// The container of that name or id, or the only one that is not there for others.
    ///
    /// # Errors
    /// Names the containers there are.
    pub fn container(&self, name: Option<&str>) -> Result<&ContainerRecord, StateError> {
        let found = match name {
            Some(name) => {
                self.containers.iter().find(|container| container.name == name || container.id == name)
            }
            None => {
                let mut main =
                    self.containers.iter().filter(|container| container.role == ContainerRole::Main);
                main.next().filter(|_| main.next().is_none())
            }
        };
        found.ok_or_else(|| StateError::NoContainer {
            pod: self.name.clone(),
            name: name.unwrap_or_default().to_owned(),
            containers: self.containers.iter().map(|container| container.name.clone()).collect(),
        })
    }

    /// Where the guest is reached.
    ///
    /// # Errors
    /// [`StateError::NotUp`] before it has booted.
    pub fn endpoint(&self) -> Result<&Endpoint, StateError> {
        self.endpoint.as_ref().ok_or_else(|| StateError::NotUp(self.name.clone()))
    }
}

#[cfg(test)]
impl PodRecord {
    /// One of a pod that runs, without containers.
    pub(super) fn sample(name: &str) -> Self {
        Self {
            name: name.into(),
            pid: 1,
            phase: Phase::Running,
            stop_within: 0,
            started: 0,
            ended: None,
            exit_code: None,
            error: None,
            origin: None,
            accel: None,
            endpoint: None,
            ports: Vec::new(),
            waiting_ports: Vec::new(),
            sandbox_api: None,
            folders: Vec::new(),
            containers: Vec::new(),
            timings: Timings::default(),
        }
    }
}
