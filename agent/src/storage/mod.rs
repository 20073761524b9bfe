//! Storages: what a request wants mounted in the guest before a container can use it.
//!
//! [`StorageRegistry`] counts users per mount point: the second one only counts, the last one unmounts. What kinds
//! there are is a list of [`StorageDriver`]s. All calls block (devices are waited for).

mod bind;
mod block;
mod ephemeral;
mod group;
mod hugepages;
mod local;
mod overlay;
mod registry;
mod shared_folder;
mod stack;
mod verity;
mod watchable;

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};
use rustjail::mount::{self, MountError};
use rustjail::plan::{MountPlan, PlanError};

pub(crate) use self::group::{ChangePolicy, Group};
pub(crate) use self::registry::StorageRegistry;
pub(crate) use self::stack::combine;
use crate::device::DeviceError;
use crate::device::watch::DeviceWatch;
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
    /// The group that is to own the files.
    pub(crate) fs_group: Option<Group>,
    /// Whether it stays until the sandbox ends.
    pub(crate) shared: bool,
    /// What it is made of, where it is a stack of layers.
    pub(crate) layers: Vec<Storage>,
}

impl Storage {
    /// Whether nothing can be written to it.
    fn is_readonly(&self) -> bool {
        self.mount_options().iter().any(|option| option == "ro")
    }

    /// Its mount options, one by one: shims join some with commas, as mount(8) does.
    fn mount_options(&self) -> Vec<String> {
        let words = self.options.iter().flat_map(|option| option.split(','));
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// Refuses driver options, of which most drivers have none.
    fn no_driver_options(&self) -> Result<(), StorageError> {
        match self.driver_options.first() {
            Some(option) => Err(self.invalid(format!("driver option {option:?} is not supported"))),
            None => Ok(()),
        }
    }

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
    /// Its blocks cannot be checked.
    #[error("storage on {0}")]
    Verity(String, #[source] verity::VerityError),
    /// There are not that many huge pages.
    #[error("{got} of {wanted} huge pages of {size} KiB could be had; {path} has what there are")]
    HugePages {
        /// How many there are now.
        got: u64,
        /// How many there should be.
        wanted: u64,
        /// Size of one, in KiB.
        size: u64,
        /// Where they are counted.
        path: String,
    },
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
            StorageError::Verity(_, error) => error.kind(),
            StorageError::HugePages { .. } => ErrorKind::Exhausted,
            StorageError::Mount(_, error) => match mount::errno(error) {
                Some(nix::libc::ENOENT | nix::libc::EINVAL | nix::libc::ENODEV | nix::libc::ENOTDIR) => {
                    ErrorKind::Invalid
                }
                // Writable, of what is read-only.
                Some(nix::libc::EROFS | nix::libc::EACCES) => ErrorKind::Invalid,
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
    fn acquire(&self, storage: &Storage, devices: &DeviceWatch) -> Result<(), StorageError>;
    /// What works on the storage as long as it is there, and ends when it is dropped.
    fn keep(&self, _storage: &Storage) -> Option<Keeper> {
        None
    }
    /// Undoes `acquire`. `is_ours` says whether the mount point was not there before: what was, stays.
    fn release(&self, storage: &Storage, is_ours: bool) -> Result<(), StorageError>;
}

/// Something that works on a storage.
type Keeper = Box<dyn Send>;

static DRIVERS: [&dyn StorageDriver; 13] = [
    &bind::Bind,
    &block::Block("blk"),
    &block::Block("mmioblk"),
    &block::Block("nvdimm"),
    &block::Block("scsi"),
    &ephemeral::Ephemeral,
    &local::Local,
    &overlay::Overlay,
    &shared_folder::PLAN9,
    &shared_folder::VIRTIO_FS,
    &stack::Stack,
    &verity::Verified,
    &watchable::WatchableBind,
];

/// Names of all drivers, sorted.
pub(crate) fn driver_names() -> Vec<&'static str> {
    let mut names: Vec<_> = DRIVERS.iter().map(|driver| driver.name()).collect();
    names.sort_unstable();
    names
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
