//! Storages: what a request wants mounted in the guest before a container can use it.
//!
//! [`StorageRegistry`] counts users per mount point: the second one only counts, the last one unmounts. What kinds
//! there are is a list of [`StorageDriver`]s, one file each. All calls block (devices are waited for).

mod bind;
mod block;
mod ephemeral;
mod local;
mod overlay;
mod virtiofs;

use std::collections::HashMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oci_spec::runtime::{Mount, MountBuilder};
use rustjail::mount::{self, MountError};
use rustjail::plan::{MountPlan, PlanError};

use crate::device::DeviceError;
use crate::error::{ErrorKind, Kind, kind_of_errno};

/// A storage of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Storage {
    /// Which driver.
    pub(crate) driver: String,
    /// Settings of the driver.
    pub(crate) driver_options: Vec<String>,
    /// Device, tag or other source.
    pub(crate) source: String,
    /// File system type.
    pub(crate) fstype: String,
    /// Mount options.
    pub(crate) options: Vec<String>,
    /// Where it goes: absolute, without `..`.
    pub(crate) mount_point: PathBuf,
    /// Whether a group was given that is to own the files.
    pub(crate) fs_group: Option<u32>,
    /// Whether it stays until the sandbox ends.
    pub(crate) shared: bool,
}

impl Storage {
    /// The error for a request that cannot be right.
    fn invalid(&self, reason: String) -> StorageError {
        StorageError::Invalid {
            driver: self.driver.clone(),
            mount_point: self.mount_point.display().to_string(),
            reason,
        }
    }
}

/// Why a storage could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// No such driver.
    #[error("storage driver {0:?} is unknown (this guest has: {1})")]
    UnknownDriver(String, String),
    /// The request cannot be right.
    #[error("storage {driver} on {mount_point}: {reason}")]
    Invalid {
        /// Driver.
        driver: String,
        /// Mount point.
        mount_point: String,
        /// What is wrong.
        reason: String,
    },
    /// Its options cannot be understood.
    #[error("storage on {0}")]
    Options(String, #[source] PlanError),
    /// Its device did not come.
    #[error("storage on {0}")]
    Device(String, #[source] DeviceError),
    /// It could not be mounted.
    #[error("storage on {0}")]
    Mount(String, #[source] MountError),
    /// A file or directory could not be made or changed.
    #[error("{operation} {path}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no such storage to be changed.
    #[error("no ephemeral storage is mounted on {0}")]
    NotMounted(String),
    /// It is mounted already, from something else.
    #[error("{0} is in use by another storage ({1})")]
    Conflict(String, String),
}

impl Kind for StorageError {
    fn kind(&self) -> ErrorKind {
        match self {
            StorageError::UnknownDriver(..) => ErrorKind::Unsupported,
            StorageError::Invalid { .. } => ErrorKind::Invalid,
            StorageError::Options(_, PlanError::Unsupported(_)) => ErrorKind::Unsupported,
            StorageError::Options(_, PlanError::Invalid(_)) => ErrorKind::Invalid,
            StorageError::Device(_, error) => error.kind(),
            StorageError::Mount(_, error) => match mount::errno(error) {
                Some(nix::libc::ENOENT | nix::libc::EINVAL | nix::libc::ENODEV | nix::libc::ENOTDIR) => {
                    ErrorKind::Invalid
                }
                // The device is mounted already, as something else.
                Some(nix::libc::EBUSY) => ErrorKind::State,
                errno => kind_of_errno(errno),
            },
            StorageError::Io { source, .. } => kind_of_errno(source.raw_os_error()),
            StorageError::NotMounted(_) => ErrorKind::NotFound,
            StorageError::Conflict(..) => ErrorKind::State,
        }
    }
}

/// One kind of storage.
trait StorageDriver: Send + Sync {
    /// Name in a request.
    fn name(&self) -> &'static str;
    /// Makes the storage usable at its mount point. Leaves nothing behind on failure.
    fn acquire(&self, storage: &Storage, hotplug_timeout: Duration) -> Result<(), StorageError>;
    /// Undoes `acquire`. `is_ours` says whether the mount point was not there before: what was, stays.
    fn release(&self, mount_point: &Path, is_ours: bool) -> Result<(), StorageError>;
}

static DRIVERS: [&dyn StorageDriver; 7] = [
    &bind::Bind,
    &block::Block("blk"),
    &block::Block("mmioblk"),
    &ephemeral::Ephemeral,
    &local::Local,
    &overlay::Overlay,
    &virtiofs::VirtioFs,
];

/// Names of all drivers, sorted.
pub(crate) fn driver_names() -> Vec<&'static str> {
    let mut names: Vec<_> = DRIVERS.iter().map(|driver| driver.name()).collect();
    names.sort_unstable();
    names
}

/// A mount point in use.
struct Used {
    driver: &'static dyn StorageDriver,
    storage: Storage,
    users: usize,
    /// Whether its mount point was not there before.
    is_ours: bool,
}

type Slot = Arc<Mutex<Option<Used>>>;

/// Counts the users of each mount point.
#[derive(Default)]
pub(crate) struct StorageRegistry {
    /// A slot has a lock of its own, so that one slow device does not hold up the others.
    slots: Mutex<HashMap<PathBuf, Slot>>,
}

impl StorageRegistry {
    fn slot(&self, mount_point: &Path) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(mount_point.to_owned()).or_default())
    }

    /// Forgets a slot that nobody uses, or is about to use: requests may name any number of mount points.
    fn forget_idle(&self, mount_point: &Path, slot: &Slot) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // Two references are the map's and ours.
        if Arc::strong_count(slot) == 2 && slot.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            slots.remove(mount_point);
        }
    }

    /// Mounts a storage, or counts one more user of it.
    pub(crate) fn acquire(&self, storage: &Storage, hotplug_timeout: Duration) -> Result<(), StorageError> {
        check(storage)?;
        let slot = self.slot(&storage.mount_point);
        let acquired = Self::acquire_in(&slot, storage, hotplug_timeout);
        if acquired.is_err() {
            self.forget_idle(&storage.mount_point, &slot);
        }
        acquired
    }

    fn acquire_in(slot: &Slot, storage: &Storage, hotplug_timeout: Duration) -> Result<(), StorageError> {
        let mut used = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = used.as_mut() {
            let same = (&used.storage.driver, &used.storage.source) == (&storage.driver, &storage.source);
            if !same {
                let other = format!("{} {}", used.storage.driver, used.storage.source);
                return Err(StorageError::Conflict(storage.mount_point.display().to_string(), other));
            }
            used.users += 1;
            return Ok(());
        }
        let driver = *DRIVERS
            .iter()
            .find(|driver| driver.name() == storage.driver)
            .ok_or_else(|| StorageError::UnknownDriver(storage.driver.clone(), driver_names().join(", ")))?;
        let is_ours = !storage.mount_point.exists();
        driver.acquire(storage, hotplug_timeout)?;
        // A shared storage has the sandbox as one more user.
        let users = if storage.shared { 2 } else { 1 };
        *used = Some(Used { driver, storage: storage.clone(), users, is_ours });
        Ok(())
    }

    /// Gives the file systems of ephemeral storages new options, as when the pod's memory has grown: all of them, or none
    /// when one of them cannot be right.
    pub(crate) fn update(&self, storages: &[Storage]) -> Result<(), StorageError> {
        let mut changes = Vec::new();
        for storage in storages {
            check(storage)?;
            if storage.driver != ephemeral::NAME {
                return Err(storage.invalid("only ephemeral storages can be changed".to_owned()));
            }
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = slots.get(&storage.mount_point).map(Arc::clone);
            drop(slots);
            let before = slot.as_ref().and_then(|slot| {
                let used = slot.lock().unwrap_or_else(PoisonError::into_inner);
                used.as_ref()
                    .filter(|used| used.storage.driver == ephemeral::NAME)
                    .map(|used| used.storage.clone())
            });
            let (Some(before), Some(slot)) = (before, slot) else {
                return Err(StorageError::NotMounted(storage.mount_point.display().to_string()));
            };
            changes.push((slot, storage, ephemeral::change(storage)?, ephemeral::change(&before)?));
        }
        for (at, (_, _, plan, _)) in changes.iter().enumerate() {
            let Err(error) = mount::reconfigure(plan) else { continue };
            for (_, _, _, before) in changes[..at].iter().rev() {
                if let Err(error) = mount::reconfigure(before) {
                    tracing::error!(%error, "a storage keeps options of a change that failed");
                }
            }
            return Err(StorageError::Mount(plan.destination.display().to_string(), error));
        }
        for (slot, storage, ..) in changes {
            let mut used = slot.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(used) = used.as_mut() {
                used.storage.options.clone_from(&storage.options);
            }
        }
        Ok(())
    }

    /// Counts one user less; the last one unmounts. A mount point that is not in use is no error: it was released.
    pub(crate) fn release(&self, mount_point: &Path) -> Result<(), StorageError> {
        let slot = self.slot(mount_point);
        let mut used = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = used.as_mut() {
            if now.users > 1 {
                now.users -= 1;
            } else {
                // What cannot be unmounted stays known: nothing else is mounted over it, and a release can be tried again.
                now.driver.release(mount_point, now.is_ours)?;
                *used = None;
            }
        }
        drop(used);
        self.forget_idle(mount_point, &slot);
        Ok(())
    }
}

fn check(storage: &Storage) -> Result<(), StorageError> {
    let invalid = |reason: &str| storage.invalid(reason.to_owned());
    let point = &storage.mount_point;
    if !point.is_absolute() || point == Path::new("/") {
        return Err(invalid("the mount point is not an absolute path below /"));
    }
    if point.components().any(|part| part == Component::ParentDir) {
        return Err(invalid("the mount point contains \"..\""));
    }
    if storage.fs_group.is_some() {
        return Err(invalid("fs_group is not supported by this guest"));
    }
    Ok(())
}

/// Mounts a file system at a directory that is made where it is missing.
fn mount_at(fstype: &str, source: &str, options: &[String], point: &Path) -> Result<(), StorageError> {
    let made = make_directory(point)?;
    mount_on(fstype, source, options, point).inspect_err(|_| {
        if made {
            remove_mount_point(point);
        }
    })
}

/// What a mount with these options is, as in a container's spec.
fn plan(fstype: &str, source: &str, options: &[String], point: &Path) -> Result<MountPlan, StorageError> {
    let name = point.display().to_string();
    let spec: Mount = MountBuilder::default()
        .destination(point)
        .typ(fstype)
        .source(source)
        .options(options.to_vec())
        .build()
        .map_err(|error| StorageError::Options(name.clone(), PlanError::Invalid(error.to_string())))?;
    MountPlan::of_spec(&spec).map_err(|error| StorageError::Options(name.clone(), error))
}

/// Mounts on what is there.
fn mount_on(fstype: &str, source: &str, options: &[String], point: &Path) -> Result<(), StorageError> {
    use std::os::fd::AsFd as _;
    let plan = plan(fstype, source, options, point)?;
    let attached = || -> Result<(), MountError> {
        let mount = mount::detached(&plan)?;
        let place = mount::place(point)?;
        mount::attach(mount.as_fd(), place.as_fd()).map_err(|errno| MountError {
            operation: format!("attach a {fstype}"),
            log: None,
            source: errno.into(),
        })?;
        mount::propagate(mount.as_fd(), &plan)
    };
    attached().map_err(|error| StorageError::Mount(point.display().to_string(), error))
}

/// Makes a directory and its parents; tells whether the last one is new.
fn make_directory(path: &Path) -> Result<bool, StorageError> {
    let is_new = !path.exists();
    std::fs::create_dir_all(path).map_err(|source| StorageError::Io {
        operation: "make directory",
        path: path.display().to_string(),
        source,
    })?;
    Ok(is_new)
}

/// Unmounts and removes a mount point.
fn unmount(point: &Path) -> Result<(), StorageError> {
    detach(point)?;
    remove_mount_point(point);
    Ok(())
}

fn detach(point: &Path) -> Result<(), StorageError> {
    mount::detach(point).map_err(|error| StorageError::Mount(point.display().to_string(), error))
}

/// Asks every file system below a directory for the status of its root.
///
/// The host's virtio-fs daemon keeps what it has open for a path until the guest asks for that path again and it is gone:
/// after a container's share was removed on the host, this lets go of it. Whether a path is there is no matter.
pub(crate) fn touch_mounts(below: &Path) -> io::Result<usize> {
    let mounts = init::mountinfo::mounts()?;
    let points: Vec<_> =
        mounts.iter().map(|mount| &mount.point).filter(|point| point.starts_with(below)).collect();
    let gone = points.iter().filter(|point| point.metadata().is_err()).count();
    tracing::debug!(mounts = points.len(), gone, "asked for the shared mounts");
    Ok(points.len())
}

/// Removes an empty directory. One that is not empty was somebody's before, and stays.
fn remove_mount_point(point: &Path) {
    if let Err(error) = std::fs::remove_dir(point) {
        tracing::debug!(path = %point.display(), %error, "a mount point stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(point: &Path) -> Storage {
        Storage {
            driver: "local".into(),
            source: "local".into(),
            mount_point: point.into(),
            ..Storage::default()
        }
    }

    #[test]
    fn the_last_user_releases() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().join("a/b");
        let registry = StorageRegistry::default();
        let storage = local(&point);
        registry.acquire(&storage, Duration::ZERO).unwrap();
        registry.acquire(&storage, Duration::ZERO).unwrap();
        registry.release(&point).unwrap();
        assert!(point.is_dir());
        registry.release(&point).unwrap();
        assert!(!point.exists());
        registry.release(&point).unwrap();
        assert!(registry.slots.lock().unwrap().is_empty());
    }

    #[test]
    fn what_is_refused_is_not_remembered() {
        let registry = StorageRegistry::default();
        for number in 0..3 {
            let storage =
                Storage { driver: "none".into(), ..local(&PathBuf::from(format!("/none/{number}"))) };
            assert!(registry.acquire(&storage, Duration::ZERO).is_err());
            let ephemeral = Storage { driver: ephemeral::NAME.into(), ..storage };
            assert!(matches!(registry.update(&[ephemeral]), Err(StorageError::NotMounted(_))));
        }
        assert!(registry.slots.lock().unwrap().is_empty());
    }

    #[test]
    fn a_directory_that_was_there_stays_with_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "kept").unwrap();
        let registry = StorageRegistry::default();
        registry.acquire(&local(dir.path()), Duration::ZERO).unwrap();
        registry.release(dir.path()).unwrap();
        assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"kept");
    }

    #[test]
    fn a_shared_storage_outlives_its_users() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().join("s");
        let registry = StorageRegistry::default();
        registry.acquire(&Storage { shared: true, ..local(&point) }, Duration::ZERO).unwrap();
        registry.release(&point).unwrap();
        assert!(point.is_dir());
    }

    #[test]
    fn a_mount_point_has_one_source() {
        let dir = tempfile::tempdir().unwrap();
        let registry = StorageRegistry::default();
        let storage = local(&dir.path().join("x"));
        registry.acquire(&storage, Duration::ZERO).unwrap();
        let other = Storage { source: "other".into(), ..storage };
        assert_eq!(registry.acquire(&other, Duration::ZERO).unwrap_err().kind(), ErrorKind::State);
    }

    #[test]
    fn bad_requests_are_refused_before_anything_is_made() {
        let registry = StorageRegistry::default();
        let refuse = |storage: Storage| registry.acquire(&storage, Duration::ZERO).unwrap_err();
        assert_eq!(refuse(local(Path::new("/"))).kind(), ErrorKind::Invalid);
        assert_eq!(refuse(local(Path::new("rel"))).kind(), ErrorKind::Invalid);
        assert_eq!(refuse(local(Path::new("/run/../etc"))).kind(), ErrorKind::Invalid);
        let unknown = refuse(Storage { driver: "9p".into(), ..local(Path::new("/run/x")) });
        assert_eq!(unknown.kind(), ErrorKind::Unsupported);
        assert!(unknown.to_string().contains("overlayfs"), "{unknown}");
    }
}
