//! The sandbox: the pod that this VM is.
//!
//! Owns what its containers share: the IPC and UTS namespaces (held open by descriptor), the pid namespace where they
//! share one, storages, DNS. [`registry`] maps container ids to handles.

pub(crate) mod registry;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sched::CloneFlags;

use crate::error::{ErrorKind, Kind};
use crate::guest::modules::{Module, ModuleError};
use crate::storage::{Storage, StorageError};

/// Why the sandbox cannot do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    /// CreateSandbox has not been called.
    #[error("there is no sandbox yet")]
    NotCreated,
    /// CreateSandbox was called before.
    #[error("the sandbox exists already")]
    Exists,
    /// DestroySandbox was called.
    #[error("the sandbox is shutting down")]
    Destroyed,
    /// The shared namespaces could not be made.
    #[error("{operation}")]
    Namespaces {
        /// What was being done.
        operation: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("write {path}")]
    Write {
        /// Which.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A storage could not be had.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A kernel module is not there.
    #[error(transparent)]
    Module(#[from] ModuleError),
}

impl Kind for SandboxError {
    fn kind(&self) -> ErrorKind {
        match self {
            SandboxError::NotCreated => ErrorKind::State,
            SandboxError::Exists => ErrorKind::Exists,
            SandboxError::Destroyed => ErrorKind::Busy,
            SandboxError::Namespaces { .. } | SandboxError::Write { .. } => ErrorKind::Internal,
            SandboxError::Storage(error) => error.kind(),
            SandboxError::Module(error) => error.kind(),
        }
    }
}

/// What CreateSandbox asks for.
#[derive(Debug, Default)]
pub(crate) struct SandboxRequest {
    /// Id, also that of the pod's infrastructure container.
    pub(crate) id: String,
    /// Host name of the shared UTS namespace; empty for the guest's own.
    pub(crate) hostname: String,
    /// Lines of `resolv.conf`.
    pub(crate) dns: Vec<String>,
    /// Storages that live as long as the sandbox.
    pub(crate) storages: Vec<Storage>,
    /// Kernel modules that have to be there.
    pub(crate) modules: Vec<Module>,
    /// Directory of hooks for every container.
    pub(crate) hooks: Option<PathBuf>,
}

/// Namespaces that the containers share.
#[derive(Debug, Clone)]
pub(crate) struct SharedNamespaces {
    /// System V IPC and POSIX message queues.
    pub(crate) ipc: Arc<OwnedFd>,
    /// Host name.
    pub(crate) uts: Arc<OwnedFd>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    None,
    /// CreateSandbox is at work.
    Creating,
    Running(Running),
    Destroyed,
}

#[derive(Debug)]
struct Running {
    id: String,
    namespaces: SharedNamespaces,
    storages: Vec<PathBuf>,
    hooks: Option<PathBuf>,
    pid: Option<Arc<OwnedFd>>,
}

/// See the module. Its lock is held for look-ups only.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    state: Mutex<State>,
}

impl Sandbox {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the sandbox. Blocks. A failure leaves nothing behind, and another call may follow; what `prepare` did, its
    /// caller takes back.
    pub(crate) fn create(
        &self,
        request: &SandboxRequest,
        directory: &Path,
        mut prepare: impl FnMut() -> Result<(), ModuleError>,
        mut acquire: impl FnMut(&Storage) -> Result<(), StorageError>,
        mut release: impl FnMut(&Path),
    ) -> Result<(), SandboxError> {
        {
            let mut state = self.state();
            match *state {
                State::None => *state = State::Creating,
                State::Creating | State::Running(_) => return Err(SandboxError::Exists),
                State::Destroyed => return Err(SandboxError::Destroyed),
            }
        }
        let mut storages = Vec::new();
        let mut build = || -> Result<SharedNamespaces, SandboxError> {
            prepare()?;
            let namespaces = shared_namespaces(&request.hostname)?;
            for storage in &request.storages {
                acquire(storage)?;
                storages.push(storage.mount_point.clone());
            }
            write_resolv_conf(&request.dns, directory)?;
            Ok(namespaces)
        };
        let built = build();
        let error = {
            let mut state = self.state();
            // Only what this call began may it end: a DestroySandbox in between stands.
            let is_ours = matches!(*state, State::Creating);
            match built {
                Ok(namespaces) if is_ours => {
                    let (id, hooks) = (request.id.clone(), request.hooks.clone());
                    *state = State::Running(Running { id, namespaces, storages, hooks, pid: None });
                    return Ok(());
                }
                Ok(_) => SandboxError::Destroyed,
                Err(error) => {
                    if is_ours {
                        *state = State::None;
                    }
                    error
                }
            }
        };
        for point in storages.iter().rev() {
            release(point);
        }
        Err(error)
    }

    /// Whether containers can be created, and the namespaces they share then.
    pub(crate) fn namespaces(&self) -> Result<SharedNamespaces, SandboxError> {
        self.running(|running| running.namespaces.clone())
    }

    /// Id of the sandbox.
    pub(crate) fn id(&self) -> Result<String, SandboxError> {
        self.running(|running| running.id.clone())
    }

    /// Directory of hooks for every container.
    pub(crate) fn hook_path(&self) -> Result<Option<PathBuf>, SandboxError> {
        self.running(|running| running.hooks.clone())
    }

    /// The pid namespace of the first container, for those that share it.
    pub(crate) fn pid_namespace(&self) -> Result<Option<Arc<OwnedFd>>, SandboxError> {
        self.running(|running| running.pid.clone())
    }

    /// Keeps the pid namespace of the first container; later ones change nothing.
    pub(crate) fn offer_pid_namespace(&self, namespace: &Arc<OwnedFd>) {
        if let State::Running(running) = &mut *self.state()
            && running.pid.is_none()
        {
            running.pid = Some(Arc::clone(namespace));
        }
    }

    fn running<T>(&self, read: impl FnOnce(&Running) -> T) -> Result<T, SandboxError> {
        match &*self.state() {
            State::Running(running) => Ok(read(running)),
            State::None | State::Creating => Err(SandboxError::NotCreated),
            State::Destroyed => Err(SandboxError::Destroyed),
        }
    }

    /// Ends the sandbox: no container can be created any more. Gives the mount points of its storages.
    pub(crate) fn destroy(&self) -> Result<Vec<PathBuf>, SandboxError> {
        match std::mem::replace(&mut *self.state(), State::Destroyed) {
            State::Running(running) => Ok(running.storages),
            // A shim that gives up early destroys what was never created: the VM is to end all the same.
            State::None | State::Creating => Ok(Vec::new()),
            State::Destroyed => Err(SandboxError::Destroyed),
        }
    }
}

/// Makes the IPC and UTS namespaces on a thread of its own, which leaves the agent's for good and ends.
fn shared_namespaces(hostname: &str) -> Result<SharedNamespaces, SandboxError> {
    let hostname = hostname.to_owned();
    let failed = |operation: &str, source: std::io::Error| SandboxError::Namespaces {
        operation: operation.to_owned(),
        source,
    };
    let thread = std::thread::Builder::new().name("namespaces".into()).spawn(move || {
        nix::sched::unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)
            .map_err(|errno| failed("make the sandbox's namespaces", errno.into()))?;
        if !hostname.is_empty() {
            nix::unistd::sethostname(&hostname).map_err(|errno| {
                failed(&format!("set the sandbox's hostname to {hostname:?}"), errno.into())
            })?;
        }
        let open = |name: &str| -> Result<Arc<OwnedFd>, SandboxError> {
            let path = format!("/proc/thread-self/ns/{name}");
            let file = std::fs::File::open(&path).map_err(|error| failed(&format!("open {path}"), error))?;
            Ok(Arc::new(file.into()))
        };
        Ok(SharedNamespaces { ipc: open("ipc")?, uts: open("uts")? })
    });
    let joined = thread.map_err(|error| failed("start a thread", error))?.join();
    joined.unwrap_or_else(|_| Err(failed("make the sandbox's namespaces", std::io::Error::other("panicked"))))
}

/// Writes the pod's `resolv.conf`, and makes it the guest's own where that has one.
fn write_resolv_conf(lines: &[String], directory: &Path) -> Result<(), SandboxError> {
    if lines.is_empty() {
        return Ok(());
    }
    let text = lines.iter().fold(String::new(), |text, line| text + line.trim() + "\n");
    let write = |path: &Path| {
        std::fs::write(path, &text)
            .map_err(|source| SandboxError::Write { path: path.display().to_string(), source })
    };
    std::fs::create_dir_all(directory)
        .map_err(|source| SandboxError::Write { path: directory.display().to_string(), source })?;
    let pods = directory.join("resolv.conf");
    write(&pods)?;
    let own = Path::new("/etc/resolv.conf");
    if !own.exists() || nix::unistd::getpid().as_raw() != 1 {
        return Ok(());
    }
    match write(own) {
        // The guest's root is a disk that nobody writes to.
        Err(SandboxError::Write { source, path })
            if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem =>
        {
            rustix::mount::mount_bind(&pods, own)
                .map_err(|errno| SandboxError::Write { path, source: errno.into() })
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_works_before_it_exists_or_after_its_end() {
        let sandbox = Sandbox::default();
        assert_eq!(sandbox.namespaces().unwrap_err().kind(), ErrorKind::State);
        assert!(sandbox.destroy().unwrap().is_empty());
        assert_eq!(sandbox.namespaces().unwrap_err().kind(), ErrorKind::Busy);
        assert!(matches!(sandbox.destroy(), Err(SandboxError::Destroyed)));
    }

    #[test]
    fn a_sandbox_destroyed_while_it_is_made_stays_destroyed() {
        let sandbox = Sandbox::default();
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage { mount_point: dir.path().join("volume"), ..Storage::default() };
        let request = SandboxRequest { storages: vec![storage], ..SandboxRequest::default() };
        let mut released = Vec::new();
        let destroy = |_: &Storage| {
            assert!(sandbox.destroy().unwrap().is_empty());
            Ok(())
        };
        // Namespaces need root; without it the create fails before, and is no less refused.
        let result =
            sandbox.create(&request, dir.path(), || Ok(()), destroy, |point| released.push(point.to_owned()));
        if matches!(result, Err(SandboxError::Namespaces { .. })) {
            return;
        }
        assert!(matches!(result, Err(SandboxError::Destroyed)));
        assert_eq!(released, [dir.path().join("volume")]);
        assert!(matches!(sandbox.namespaces(), Err(SandboxError::Destroyed)));
    }

    #[test]
    fn dns_lines_are_trimmed_and_joined() {
        let dir = tempfile::tempdir().unwrap();
        write_resolv_conf(&[" nameserver 10.0.0.2 ".into(), "search a b".into()], dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("resolv.conf")).unwrap();
        assert_eq!(text, "nameserver 10.0.0.2\nsearch a b\n");
    }
}
