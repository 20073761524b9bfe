//! Mounting by descriptor (`fsopen(2)`, `open_tree(2)`, `move_mount(2)`): a mount is made detached, given its
//! attributes, and only then attached to a place that was resolved beforehand.

use std::ffi::c_int;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::plan::{MountAttributes, MountPlan, MountSource, Propagation};
use crate::sys;

/// Why a mount could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{operation}{}", log.as_ref().map(|log| format!(" (kernel: {log})")).unwrap_or_default())]
pub struct MountError {
    /// What was being done, with its subject.
    pub operation: String,
    /// What the file system itself had to say.
    pub log: Option<String>,
    /// Why it failed.
    pub source: io::Error,
}

impl MountError {
    fn new(operation: impl Into<String>, source: impl Into<io::Error>) -> MountError {
        MountError { operation: operation.into(), log: None, source: source.into() }
    }
}

/// File systems that no device backs, or whose one instance is shared: a read-only *instance* would be refused, or be
/// forced on others, or keep us from making mount points. Their mounts are made read-only instead.
const NO_READONLY_INSTANCE: [&str; 7] = ["tmpfs", "proc", "sysfs", "cgroup2", "mqueue", "devpts", "devtmpfs"];

/// Longest value `fsconfig(2)` takes, in bytes.
const LONGEST_VALUE: usize = 255;

/// Makes the mount of a plan, attached to nothing yet.
///
/// # Errors
/// [`MountError`], with the file system's own message where it has one.
pub fn detached(plan: &MountPlan) -> Result<OwnedFd, MountError> {
    let refused = |what: &str| {
        let source = io::Error::from(rustix::io::Errno::OPNOTSUPP);
        Err(MountError::new(format!("{what} {}", plan.destination.display()), source))
    };
    if plan.owners.is_some() {
        return refused("show other owners on");
    }
    match &plan.source {
        MountSource::Bind { path, recursive } => {
            let mount = clone_tree(path, *recursive)?;
            attributed(&mount, plan)?;
            Ok(mount)
        }
        MountSource::Filesystem { fstype, source, options } => {
            let mount = filesystem(fstype, source, options, plan.attributes)?;
            change(&mount, plan.recursive_attributes, true, &plan.destination)?;
            Ok(mount)
        }
        MountSource::Remount { .. } => refused("remount"),
    }
}

/// Gives a bind that is attached to nothing yet the attributes of its plan.
pub(crate) fn attributed(mount: &OwnedFd, plan: &MountPlan) -> Result<(), MountError> {
    change(mount, plan.attributes, false, &plan.destination)?;
    change(mount, plan.recursive_attributes, true, &plan.destination)
}

/// Sets the plan's propagation on an attached mount.
///
/// # Errors
/// [`MountError`] when the kernel refuses.
pub fn propagate(mount: BorrowedFd<'_>, plan: &MountPlan) -> Result<(), MountError> {
    for change in &plan.propagation {
        sys::mount::set_attributes(mount, 0, 0, propagation_bits(*change), change.recursive).map_err(
            |error| MountError::new(format!("set propagation of {}", plan.destination.display()), error),
        )?;
    }
    Ok(())
}

/// A detached copy of the mount tree at a path of the guest.
pub(crate) fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd, MountError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    rustix::mount::open_tree(CWD, path, flags)
        .map_err(|errno| MountError::new(format!("bind {}", path.display()), errno))
}

/// A detached copy of the mount behind a descriptor, seen from there.
pub(crate) fn clone_at(place: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    rustix::mount::open_tree(place, c"", flags)
}

/// A new file system instance, mounted nowhere.
///
/// # Errors
/// [`MountError`] naming the type and the option that was refused.
pub fn filesystem(
    fstype: &str,
    source: &str,
    options: &[(String, Option<String>)],
    attributes: MountAttributes,
) -> Result<OwnedFd, MountError> {
    let context = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| MountError::new(format!("open file system type {fstype}"), errno))?;
    let failed = |operation: String, errno: rustix::io::Errno| MountError {
        operation,
        log: messages(&context),
        source: errno.into(),
    };
    rustix::mount::fsconfig_set_string(&context, "source", source)
        .map_err(|errno| failed(format!("set source {source} of a {fstype}"), errno))?;
    configure(&context, fstype, options)?;
    rustix::mount::fsconfig_create(&context)
        .map_err(|errno| failed(format!("make a {fstype} from {source}"), errno))?;
    let bits = MountAttrFlags::from_bits_retain(attributes.set as u32);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, bits)
        .map_err(|errno| failed(format!("mount a {fstype} from {source}"), errno))
}

/// Gives a mounted file system the options and attributes of a plan for its place; what the plan does not say stays.
///
/// # Errors
/// [`MountError`] naming the place and the option that was refused. Options are taken all or not at all.
pub fn reconfigure(plan: &MountPlan) -> Result<(), MountError> {
    let MountSource::Filesystem { fstype, options, .. } = &plan.source else {
        let source = io::Error::from(rustix::io::Errno::INVAL);
        return Err(MountError::new(format!("reconfigure {}", plan.destination.display()), source));
    };
    let place = place(&plan.destination)?;
    pick(place.as_fd(), plan, fstype, options)?;
    change(&place, plan.attributes, false, &plan.destination)
}

/// Gives what is mounted at a place the attributes of a plan, and its file system these options.
pub(crate) fn change_at(
    place: BorrowedFd<'_>,
    plan: &MountPlan,
    options: &[(String, Option<String>)],
) -> Result<(), MountError> {
    // Whether it is writable is the mount's affair first: the file system may be shared.
    let options: Vec<_> =
        options.iter().filter(|(name, _)| !matches!(name.as_str(), "ro" | "rw")).cloned().collect();
    if !options.is_empty() {
        pick(place, plan, "file system", &options)?;
    }
    change(place, plan.attributes, false, &plan.destination)?;
    change(place, plan.recursive_attributes, true, &plan.destination)
}

/// Reconfigures the file system that is mounted at a place.
fn pick(
    place: BorrowedFd<'_>,
    plan: &MountPlan,
    fstype: &str,
    options: &[(String, Option<String>)],
) -> Result<(), MountError> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = rustix::mount::fspick(place, c"", flags)
        .map_err(|errno| MountError::new(format!("reconfigure {}", plan.destination.display()), errno))?;
    configure(&context, fstype, options)?;
    rustix::mount::fsconfig_reconfigure(&context).map_err(|errno| MountError {
        operation: format!("reconfigure {}", plan.destination.display()),
        log: messages(&context),
        source: errno.into(),
    })
}

/// Hands options to a file system's context.
fn configure(
    context: &OwnedFd,
    fstype: &str,
    options: &[(String, Option<String>)],
) -> Result<(), MountError> {
    for (name, value) in options {
        let result = match value {
            None if matches!(name.as_str(), "ro" | "rw") && NO_READONLY_INSTANCE.contains(&fstype) => Ok(()),
            None => rustix::mount::fsconfig_set_flag(context, name.as_str()),
            Some(value) if value.len() > LONGEST_VALUE && name == "lowerdir" => value
                .split(':')
                .try_for_each(|lower| rustix::mount::fsconfig_set_string(context, "lowerdir+", lower)),
            Some(value) => rustix::mount::fsconfig_set_string(context, name.as_str(), value.as_str()),
        };
        result.map_err(|errno| {
            let value = value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
            MountError {
                operation: format!("set option {name}{value} of a {fstype}"),
                log: messages(context),
                source: errno.into(),
            }
        })?;
    }
    Ok(())
}

/// What the file system wrote to its context (`fsopen(2)`, "the message retrieval interface").
fn messages(context: impl AsFd) -> Option<String> {
    let mut text = String::new();
    let mut line = [0; 512];
    while let Ok(count @ 1..) = rustix::io::read(&context, &mut line) {
        let message = String::from_utf8_lossy(&line[..count]);
        let separator = if text.is_empty() { "" } else { "; " };
        // A message begins with its level and a space: "e overlay: ...".
        let body = message.trim_end().get(2..).unwrap_or_default().to_owned();
        if write!(text, "{separator}{body}").is_err() {
            break;
        }
    }
    (!text.is_empty()).then_some(text)
}

fn change(
    mount: impl AsFd,
    attributes: MountAttributes,
    recursive: bool,
    subject: &Path,
) -> Result<(), MountError> {
    if attributes.is_empty() {
        return Ok(());
    }
    sys::mount::set_attributes(mount.as_fd(), attributes.set, attributes.clear, 0, recursive)
        .map_err(|error| MountError::new(format!("set mount attributes of {}", subject.display()), error))
}

/// `MS_*` bit of a propagation (`mount_setattr(2)`).
pub(crate) fn propagation_bits(change: Propagation) -> u64 {
    use crate::plan::PropagationMode;
    match change.mode {
        PropagationMode::Unbindable => 1 << 17,
        PropagationMode::Private => 1 << 18,
        PropagationMode::Slave => 1 << 19,
        PropagationMode::Shared => 1 << 20,
    }
}

/// Attaches a detached mount to the place behind a descriptor.
///
/// # Errors
/// The kernel's, as `ENOTDIR` when one is a directory and the other is not.
pub fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::mount::move_mount(
        mount,
        c"",
        place,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

/// Opens a place of the guest, resolved below `/` without magic links, to mount on.
///
/// # Errors
/// [`MountError`] naming the path.
pub fn place(path: &Path) -> Result<OwnedFd, MountError> {
    rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        .map_err(|errno| MountError::new(format!("open mount point {}", path.display()), errno))
}

/// Unmounts a path of the guest at once, its users notwithstanding. A path that is no mount point is no error.
///
/// # Errors
/// The kernel's, naming the path.
pub fn detach(path: &Path) -> Result<(), MountError> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(MountError::new(format!("unmount {}", path.display()), errno)),
    }
}

/// Error number of a mount error.
pub fn errno(error: &MountError) -> Option<c_int> {
    error.source.raw_os_error()
}
