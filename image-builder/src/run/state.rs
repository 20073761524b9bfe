//! What is known on this host about running pods.
//!
//! Every pod has a directory below the state directory: `pod.json`, one log per container, sockets, and a lock that
//! the process which runs the pod holds for as long as it lives. Promises that a pod whose process died is noticed
//! and its directory removed by whoever looks next. Must never hold anything that outlives the pod.
//!
//! ```text
//! STATE/<pod>/lock  pod.json  <container>.log.<bytes before it>  vm/{vsock.sock,console.log.0,…}
//! ```
//!
//! Where the place is one that others can write to, somebody may have made the directory before, or a FIFO in the place of a
//! lock. So it is used only if it is a directory of this user's that nobody else can enter.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::timing::Timings;
use crate::vm::{Endpoint, Forward};
use crate::{cache, plain, private};

const LOCK: &str = "lock";
const RECORD: &str = "pod.json";
/// The largest record that is read.
const MAX_RECORD: u64 = 16 << 20;
/// Two processes that make and sweep the same pod's directory at the same time meet at most this often.
const TRIES: u32 = 10;

/// Why state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The place is not this user's alone.
    #[error("cannot keep pods in {}; PITH_STATE names another place", path.display())]
    Place {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// The name is taken by a pod that runs.
    #[error("a pod {0:?} is running already; `image-builder stop {0}` ends it")]
    Running(String),
    /// There is no such pod.
    #[error("no pod {name:?} is running{}", known(pods))]
    NoPod {
        /// The name asked for.
        name: String,
        /// The names there are.
        pods: Vec<String>,
    },
    /// The pod has no such container.
    #[error("pod {pod:?} has no container {name:?}; it has {}", containers.join(", "))]
    NoContainer {
        /// The pod.
        pod: String,
        /// The name asked for.
        name: String,
        /// The names there are.
        containers: Vec<String>,
    },
    /// The pod has not come far enough to be talked to.
    #[error("pod {0:?} is not up yet")]
    NotUp(String),
}

fn known(pods: &[String]) -> String {
    if pods.is_empty() { String::new() } else { format!("; running: {}", pods.join(", ")) }
}

fn io_error(operation: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { operation, path: path.to_path_buf(), source }
}

fn place_error(path: &Path, source: io::Error) -> StateError {
    StateError::Place { path: path.to_path_buf(), source }
}

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
}

/// A running pod.
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
    /// `kvm` or `tcg`.
    pub accel: Option<String>,
    /// Where its guest is reached.
    pub endpoint: Option<Endpoint>,
    /// Ports of the host that lead into it.
    #[serde(default)]
    pub ports: Vec<Forward>,
    /// Where its sandbox API is reached.
    #[serde(default)]
    pub sandbox_api: Option<SocketAddr>,
    /// Its containers.
    pub containers: Vec<ContainerRecord>,
    /// What was measured so far.
    pub timings: Timings,
}

impl PodRecord {
    /// The container called `name`, or the only one that is not there for others.
    ///
    /// # Errors
    /// Names the containers there are.
    pub fn container(&self, name: Option<&str>) -> Result<&ContainerRecord, StateError> {
        let found = match name {
            Some(name) => self.containers.iter().find(|container| container.name == name),
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

/// The state directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// Uses `root`, which need not exist yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// `PITH_STATE`, else `pith` below `XDG_RUNTIME_DIR`, else `/run/pith` for root, else a directory in `/tmp` that
    /// only this user can enter.
    pub fn locate(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let uid = nix::unistd::geteuid();
        let root = absolute("PITH_STATE")
            .or_else(|| Some(absolute("XDG_RUNTIME_DIR")?.join("pith")))
            .unwrap_or_else(|| {
                if uid.is_root() { "/run/pith".into() } else { format!("/tmp/pith-{uid}").into() }
            });
        Self { root }
    }

    /// Takes a pod's name, for as long as the answer lives.
    ///
    /// # Errors
    /// [`StateError::Running`] when a pod of that name runs.
    pub fn reserve(&self, name: &str) -> Result<PodDir, StateError> {
        let path = self.root.join(name);
        for _ in 0..TRIES {
            private::make(&self.root).map_err(|error| place_error(&self.root, error))?;
            private::make(&path).map_err(|error| place_error(&path, error))?;
            let lock_path = path.join(LOCK);
            let options = File::options().create(true).append(true).mode(0o600).clone();
            let file = match plain::open_no_link(&mut options.clone(), &lock_path) {
                Ok(file) => file,
                // A sweeper removed the directory in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io_error("open", &lock_path, error)),
            };
            let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
                .map_err(|_| StateError::Running(name.to_owned()))?;
            if is_still_at(&lock, &lock_path) {
                let dir = PodDir { path, _lock: lock };
                dir.clear();
                return Ok(dir);
            }
        }
        Err(StateError::Running(name.to_owned()))
    }

    /// All running pods by name. Directories of pods whose process died are removed.
    ///
    /// # Errors
    /// When the state directory is not this user's alone.
    pub fn pods(&self) -> Result<Vec<PodRecord>, StateError> {
        match private::check(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            checked => checked.map_err(|error| place_error(&self.root, error))?,
        }
        let mut pods: Vec<PodRecord> = fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .filter_map(|entry| self.look_at(&entry.ok()?.path()))
            .collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(pods)
    }

    /// A running pod and its directory.
    ///
    /// # Errors
    /// As [`StateDir::pods`]; [`StateError::NoPod`] names the pods there are.
    pub fn find(&self, name: &str) -> Result<(PathBuf, PodRecord), StateError> {
        let pods = self.pods()?;
        let names = pods.iter().map(|pod| pod.name.clone()).collect();
        pods.into_iter()
            .find(|pod| pod.name == name)
            .map(|pod| (self.root.join(name), pod))
            .ok_or_else(|| StateError::NoPod { name: name.to_owned(), pods: names })
    }

    fn look_at(&self, path: &Path) -> Option<PodRecord> {
        if !is_running(path)? {
            return None;
        }
        let record = plain::open_no_link(File::options().read(true), &path.join(RECORD)).ok()?;
        serde_json::from_reader(io::BufReader::new(record.take(MAX_RECORD))).ok()
    }
}

/// Whether a pod's process is alive. If it is not, the directory is removed. Nothing when there is no such pod.
pub(super) fn is_running(path: &Path) -> Option<bool> {
    let file = plain::open_no_link(File::options().append(true), &path.join(LOCK)).ok()?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Err(_) => Some(true),
        Ok(lock) => {
            if is_still_at(&lock, &path.join(LOCK)) {
                drop(fs::remove_dir_all(path));
            }
            Some(false)
        }
    }
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// The directory of a pod that this process runs. Dropping it removes the directory and frees the name.
#[derive(Debug)]
pub struct PodDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl PodDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where QEMU's sockets and logs go.
    pub fn vm(&self) -> PathBuf {
        self.path.join("vm")
    }

    /// Writes the record for others to read.
    ///
    /// # Errors
    /// When the file cannot be replaced.
    pub fn write(&self, record: &PodRecord) -> Result<(), StateError> {
        let path = self.path.join(RECORD);
        let bytes =
            serde_json::to_vec_pretty(record).map_err(|error| io_error("write", &path, error.into()))?;
        // What it tells is nothing after the next boot of the host.
        cache::replace(&path, &bytes).map_err(|error| io_error("write", &path, io::Error::other(error)))
    }

    /// Removes what an earlier pod of this name left.
    fn clear(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name() == LOCK {
                continue;
            }
            let path = entry.path();
            drop(if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) });
        }
    }
}

impl Drop for PodDir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.path));
    }
}

pub use crate::segments::{Piece, Reader};

/// How many segments of a container's log are kept, each of 1 MiB.
pub const LOG_SEGMENTS: usize = 8;

/// The log of a container, from the beginning of what is kept.
pub fn log(pod: &Path, container: &str) -> Reader {
    Reader::new(pod, container)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> PodRecord {
        PodRecord {
            name: name.into(),
            pid: 1,
            phase: Phase::Running,
            stop_within: 1,
            started: 0,
            accel: None,
            endpoint: None,
            ports: Vec::new(),
            sandbox_api: None,
            containers: vec![ContainerRecord {
                name: "a".into(),
                id: "web-a".into(),
                image: "./a".into(),
                phase: ContainerPhase::Exited,
                exit_code: Some(7),
                ..ContainerRecord::default()
            }],
            timings: Timings::default(),
        }
    }

    #[test]
    fn a_name_is_taken_once_and_freed() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("state"));
        let pod = state.reserve("web").unwrap();
        assert!(matches!(state.reserve("web"), Err(StateError::Running(_))));
        assert!(state.pods().unwrap().is_empty(), "no record yet");
        pod.write(&record("web")).unwrap();
        assert_eq!(state.find("web").unwrap().1, record("web"));
        let path = pod.path().to_path_buf();
        drop(pod);
        assert!(!path.exists());
        let error = state.find("web").unwrap_err().to_string();
        assert_eq!(error, "no pod \"web\" is running");
    }

    #[test]
    fn a_dead_pod_is_swept_and_its_name_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        private::make(&root).unwrap();
        let state = StateDir::new(root.clone());
        for step in ["sweep", "reserve"] {
            let dead = root.join("dead");
            private::make(&dead.join("vm")).unwrap();
            fs::write(dead.join(LOCK), "").unwrap();
            fs::write(dead.join(RECORD), serde_json::to_vec(&record("dead")).unwrap()).unwrap();
            if step == "sweep" {
                assert!(state.pods().unwrap().is_empty());
                assert!(!dead.exists());
            } else {
                let pod = state.reserve("dead").unwrap();
                assert_eq!(fs::read_dir(pod.path()).unwrap().count(), 1, "only the lock is left");
            }
        }
    }

    #[test]
    fn a_place_of_somebody_elses_is_refused_and_nothing_in_it_is_waited_for() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("open")).unwrap();
        symlink(dir.path(), at("link")).unwrap();
        fs::write(at("file"), "").unwrap();
        for (name, mode) in [("open", 0o777), ("open", 0o755), ("open", 0o710), ("link", 0), ("file", 0)] {
            if mode > 0 {
                fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
            }
            let state = StateDir::new(at(name));
            let refused = |error: StateError| {
                let text = format!("{:#}", anyhow::Error::from(error));
                assert!(
                    text.contains(&at(name).display().to_string()) && text.contains("PITH_STATE"),
                    "{text}"
                );
            };
            refused(state.reserve("web").unwrap_err());
            refused(state.pods().unwrap_err());
            refused(state.find("web").unwrap_err());
        }
        // A pod's directory that is a link, or whose lock is a FIFO or a link.
        let state = StateDir::new(at("state"));
        drop(state.reserve("web").unwrap());
        fs::create_dir(at("state/fifo")).unwrap();
        fs::set_permissions(at("state/fifo"), fs::Permissions::from_mode(0o700)).unwrap();
        nix::unistd::mkfifo(&at("state/fifo/lock"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink(at("state/fifo"), at("state/away")).unwrap();
        fs::create_dir(at("state/linked")).unwrap();
        fs::set_permissions(at("state/linked"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink(at("file"), at("state/linked/lock")).unwrap();
        assert!(state.pods().unwrap().is_empty());
        for name in ["fifo", "away", "linked"] {
            assert!(state.reserve(name).is_err(), "{name}");
        }
        assert!(at("file").exists() && at("state/linked").exists());
    }

    #[test]
    fn containers_are_found_by_name_or_when_alone() {
        let mut pod = record("web");
        assert_eq!(pod.container(None).unwrap().name, "a");
        assert_eq!(pod.container(Some("a")).unwrap().id, "web-a");
        let init =
            ContainerRecord { name: "i".into(), role: ContainerRole::Init, ..ContainerRecord::default() };
        pod.containers.insert(0, init);
        assert_eq!(pod.container(None).unwrap().name, "a", "an init container is not the only one");
        pod.containers.remove(0);
        pod.containers.push(ContainerRecord { name: "b".into(), ..pod.containers[0].clone() });
        assert!(pod.container(None).unwrap_err().to_string().contains("it has a, b"));
    }

    #[test]
    fn the_place_follows_the_variables() {
        let with = |name: &'static str, value: &'static str| {
            StateDir::locate(move |asked| (asked == name).then(|| value.into()))
        };
        assert_eq!(with("PITH_STATE", "/s").root, Path::new("/s"));
        assert_eq!(with("XDG_RUNTIME_DIR", "/run/user/1").root, Path::new("/run/user/1/pith"));
    }
}
