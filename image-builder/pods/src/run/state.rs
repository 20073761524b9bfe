//! The records of pods on this host.
//!
//! Each pod has a directory below the state directory. It has `pod.json`, a log for each container, sockets, and a lock. The
//! process that runs the pod holds the lock as long as it lives. Promises that a pod whose process has died is noticed: the
//! next process that looks removes its directory. When a pod has ended in order, its record and logs stay until somebody
//! removes them, until a new pod gets its name, or until there are too many. Nothing else of a pod may stay.
//!
//! ```text
//! STATE/<pod>/lock  pod.json  <container>.log.<bytes before it>  vm/{vsock.sock,console.log.0,…}
//! ```
//!
//! If others can write to the directory above, they may have created the state directory first, or put a FIFO in place of a
//! lock. So the directory is used only if it belongs to this user and nobody else can enter it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use store::{cache, plain, private};

const LOCK: &str = "lock";
const RECORD: &str = "pod.json";
/// The largest record that is read.
const MAX_RECORD: u64 = 16 << 20;
/// Pods that have ended and are kept; the oldest go when there are more.
pub const MOST_ENDED: usize = 64;
/// Two processes that make and sweep the same pod's directory at the same time meet at most this often.
const TRIES: u32 = 10;
/// After this it is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// How often somebody who removes a pod waits for the process of one that has ended.
const LINGERS: u32 = 500;

pub use super::record::{
    ContainerPhase, ContainerRecord, ContainerRole, MountRecord, Origin, Phase, PodRecord, ProcessRecord,
};
pub use super::state_error::StateError;
use super::state_error::{io_error, place_error};

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
            let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                // Somebody may be looking at it, or the one that has ended is on its way out.
                Err(_) if record(&path).is_none_or(|record| record.phase == Phase::Ended) => {
                    std::thread::sleep(AGAIN);
                    continue;
                }
                Err(_) => return Err(StateError::Running(name.to_owned())),
            };
            if is_still_at(&lock, &lock_path) {
                let dir = PodDir { path, kept: AtomicBool::new(false), _lock: lock };
                dir.clear();
                return Ok(dir);
            }
        }
        Err(StateError::Running(name.to_owned()))
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All running pods by name. Directories of pods whose process died are removed.
    ///
    /// # Errors
    /// When the state directory is not this user's alone.
    pub fn pods(&self) -> Result<Vec<PodRecord>, StateError> {
        let mut pods = self.all()?;
        pods.retain(|pod| pod.phase != Phase::Ended);
        Ok(pods)
    }

    /// As [`StateDir::pods`], with those that have ended.
    ///
    /// # Errors
    /// As [`StateDir::pods`].
    pub fn all(&self) -> Result<Vec<PodRecord>, StateError> {
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
    /// As [`StateDir::pods`]; [`StateError::Ended`] for one that was; [`StateError::NoPod`] names the pods there are.
    pub fn find(&self, name: &str) -> Result<(PathBuf, PodRecord), StateError> {
        match self.find_any(name)? {
            (_, pod) if pod.phase == Phase::Ended => Err(StateError::Ended(pod.name)),
            found => Ok(found),
        }
    }

    /// As [`StateDir::find`], also one that has ended. A container's id finds its pod.
    ///
    /// # Errors
    /// As [`StateDir::pods`]; [`StateError::NoPod`] names the pods there are.
    pub fn find_any(&self, name: &str) -> Result<(PathBuf, PodRecord), StateError> {
        let pods = self.all()?;
        let names = pods.iter().map(|pod| pod.name.clone()).collect();
        let by_name = pods.iter().position(|pod| pod.name == name);
        let by_id =
            || pods.iter().position(|pod| pod.containers.iter().any(|container| container.id == name));
        match by_name.or_else(by_id).and_then(|at| pods.into_iter().nth(at)) {
            Some(pod) => Ok((self.root.join(&pod.name), pod)),
            None => Err(StateError::NoPod { name: name.to_owned(), pods: names }),
        }
    }

    /// Removes what is left of a pod that has ended.
    ///
    /// # Errors
    /// [`StateError::StillRunning`]; as [`StateDir::find_any`]; when a file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        let (path, pod) = self.find_any(name)?;
        let lock = path.join(LOCK);
        let mut file = plain::open_no_link(File::options().append(true), &lock)
            .map_err(|error| io_error("open", &lock, error))?;
        let mut tries = 0;
        // Held while it goes, so that nobody takes the name in between.
        let _held = loop {
            tries += 1;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => break held,
                Err((same, _)) if pod.phase == Phase::Ended && tries < LINGERS => file = same,
                Err(_) => return Err(StateError::StillRunning(pod.name.clone())),
            }
            std::thread::sleep(AGAIN);
        };
        fs::remove_dir_all(&path).map_err(|error| io_error("remove", &path, error))
    }

    fn look_at(&self, path: &Path) -> Option<PodRecord> {
        let is_running = is_running(path)?;
        let record = record(path);
        // Looked at again: it may have ended, or begun, in between.
        match record {
            Some(record) if is_running || record.phase == Phase::Ended => Some(record),
            _ => {
                if !is_running {
                    sweep(path);
                }
                None
            }
        }
    }
}

fn record(path: &Path) -> Option<PodRecord> {
    let record = plain::open_no_link(File::options().read(true), &path.join(RECORD)).ok()?;
    serde_json::from_reader(io::BufReader::new(record.take(MAX_RECORD))).ok()
}

/// Whether a pod's process is alive. Nothing when there is no such pod.
fn is_running(path: &Path) -> Option<bool> {
    let file = plain::open_no_link(File::options().append(true), &path.join(LOCK)).ok()?;
    Some(Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
}

/// Removes the directory of a pod whose process has died, unless another one has taken the name.
fn sweep(path: &Path) {
    let Ok(file) = plain::open_no_link(File::options().append(true), &path.join(LOCK)) else { return };
    if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        && is_still_at(&lock, &path.join(LOCK))
        && record(path).is_none_or(|record| record.phase != Phase::Ended)
    {
        drop(fs::remove_dir_all(path));
    }
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// The directory of a pod that this process runs. Dropping it removes the directory, unless it is kept, and frees the name.
#[derive(Debug)]
pub struct PodDir {
    path: PathBuf,
    kept: AtomicBool,
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

    /// Writes the last record, and has the directory stay with it and the logs.
    ///
    /// # Errors
    /// When the file cannot be replaced; then nothing stays.
    pub fn keep(&self, record: &PodRecord) -> Result<(), StateError> {
        drop(fs::remove_dir_all(self.vm()));
        self.write(record)?;
        self.kept.store(true, Ordering::Relaxed);
        if let Some(root) = self.path.parent() {
            let state = StateDir::new(root.to_path_buf());
            let mut ended = state.all().unwrap_or_default();
            ended.retain(|pod| pod.phase == Phase::Ended && pod.name != record.name);
            ended.sort_by_key(|pod| std::cmp::Reverse(pod.ended));
            for old in ended.iter().skip(MOST_ENDED - 1) {
                // Somebody else may have removed it, or taken its name.
                drop(state.remove(&old.name));
            }
        }
        Ok(())
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
        if !self.kept.load(Ordering::Relaxed) {
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

pub use store::segments::{Piece, Reader};

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
            stop_within: 1,
            containers: vec![ContainerRecord {
                name: "a".into(),
                id: "web-a".into(),
                image: "./a".into(),
                phase: ContainerPhase::Exited,
                exit_code: Some(7),
                ..ContainerRecord::default()
            }],
            ..PodRecord::sample(name)
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
        assert_eq!(error, "there is no pod \"web\"; there are no pods at all");
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
    fn what_a_pod_leaves_is_kept_until_it_is_removed_or_its_name_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("state"));
        let end = |name: &str, at: u64| {
            let pod = state.reserve(name).unwrap();
            fs::create_dir(pod.vm()).unwrap();
            fs::write(pod.path().join("a.log.0"), "said").unwrap();
            assert!(matches!(state.remove(name), Err(StateError::NoPod { .. })), "no record yet");
            pod.write(&record(name)).unwrap();
            assert!(matches!(state.remove(name), Err(StateError::StillRunning(_))));
            pod.keep(&PodRecord { phase: Phase::Ended, ended: Some(at), ..record(name) }).unwrap();
        };
        end("web", 1);
        assert!(state.pods().unwrap().is_empty());
        assert_eq!(state.all().unwrap().len(), 1);
        assert!(state.find("web").unwrap_err().to_string().contains("has ended"));
        let (path, found) = state.find_any("web-a").unwrap();
        assert_eq!(
            (found.name.as_str(), fs::read_to_string(path.join("a.log.0")).unwrap().as_str()),
            ("web", "said")
        );
        assert!(!path.join("vm").exists());
        // The name is free.
        let again = state.reserve("web").unwrap();
        assert!(!again.path().join("a.log.0").exists());
        drop(again);
        assert!(state.all().unwrap().is_empty());
        end("web", 2);
        state.remove("web").unwrap();
        assert!(!path.exists());
        for number in 0..MOST_ENDED as u64 + 3 {
            end(&format!("p{number}"), number);
        }
        let left = state.all().unwrap();
        assert_eq!(left.len(), MOST_ENDED);
        assert!(left.iter().all(|pod| pod.ended >= Some(3)), "the oldest went");
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
