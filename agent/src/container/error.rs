//! Why something could not be done with a container.

use rustjail::cgroup::{self, ErrorClass};
use rustjail::plan::PlanError;

use super::hook::HookError;
use super::id::ContainerId;
use super::shared_mount::SharedMountError;
use super::state::State;
use super::user::UserError;
use crate::device::DeviceError;
use crate::device::cdi::CdiError;
use crate::error::{ErrorKind, Kind};
use crate::process::ProcessError;
use crate::process::launch::LaunchError;
use crate::process::passfd::PassfdError;
use crate::process::stdio::StreamError;
use crate::storage::StorageError;

/// Why something could not be done with a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    /// It is not in the right state.
    #[error("container {id} is {state}: cannot {operation}")]
    State {
        /// Container.
        id: ContainerId,
        /// Where it is.
        state: State,
        /// What was asked.
        operation: &'static str,
    },
    /// It was removed while the command waited.
    #[error("container {0} not found: it was removed")]
    Removed(ContainerId),
    /// Its queue is full.
    #[error("container {0} has too much to do, try again")]
    Busy(ContainerId),
    /// What was done was given up, since the container is being removed.
    #[error("work on container {0} was given up: it is being removed")]
    Cancelled(ContainerId),
    /// Its actor panicked.
    #[error("work on container {0} panicked")]
    Panicked(ContainerId),
    /// It took longer than the caller allowed; the work goes on.
    #[error("ETIME: {operation} container {id} took longer than {seconds} s")]
    Timeout {
        /// What was asked.
        operation: &'static str,
        /// Container.
        id: ContainerId,
        /// The caller's limit.
        seconds: u32,
    },
    /// See [`StorageError`].
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// See [`PlanError`].
    #[error("spec of {0}")]
    Plan(ContainerId, #[source] PlanError),
    /// See [`cgroup::Error`].
    #[error("cgroup of {0}")]
    Cgroup(ContainerId, #[source] cgroup::Error),
    /// See [`StreamError`].
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// See [`PassfdError`].
    #[error(transparent)]
    Passfd(#[from] PassfdError),
    /// See [`LaunchError`].
    #[error("start a process in {0}")]
    Launch(ContainerId, #[source] LaunchError),
    /// See [`ProcessError`].
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// See [`DeviceError`].
    #[error("devices of {0}")]
    Device(ContainerId, #[source] DeviceError),
    /// See [`CdiError`].
    #[error("devices of {0}")]
    Cdi(ContainerId, #[source] CdiError),
    /// See [`SharedMountError`].
    #[error("create {0}")]
    SharedMount(ContainerId, #[source] SharedMountError),
    /// See [`UserError`].
    #[error("user of a process in {0}")]
    User(ContainerId, #[source] UserError),
    /// See [`HookError`].
    #[error("create {0}")]
    Hook(ContainerId, #[source] Box<HookError>),
    /// A file or directory of the agent's own.
    #[error("{operation} {path}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Kind for ContainerError {
    fn kind(&self) -> ErrorKind {
        match self {
            ContainerError::State { .. } => ErrorKind::State,
            ContainerError::Removed(_) => ErrorKind::NotFound,
            ContainerError::Busy(_) => ErrorKind::Busy,
            ContainerError::Cancelled(_) => ErrorKind::Cancelled,
            ContainerError::Panicked(_) => ErrorKind::Internal,
            ContainerError::Timeout { .. } => ErrorKind::Timeout,
            ContainerError::Storage(error) => error.kind(),
            ContainerError::Plan(_, PlanError::Invalid(_)) => ErrorKind::Invalid,
            ContainerError::Plan(_, PlanError::Unsupported(_)) => ErrorKind::Unsupported,
            ContainerError::Cgroup(_, error) => match error.class() {
                ErrorClass::NotFound => ErrorKind::NotFound,
                ErrorClass::Exists => ErrorKind::Exists,
                ErrorClass::Invalid => ErrorKind::Invalid,
                ErrorClass::Exhausted => ErrorKind::Exhausted,
                ErrorClass::Timeout => ErrorKind::Timeout,
                ErrorClass::Unsupported => ErrorKind::Unsupported,
                ErrorClass::Internal => ErrorKind::Internal,
            },
            ContainerError::Stream(error) => error.kind(),
            ContainerError::Passfd(error) => error.kind(),
            ContainerError::Launch(_, error) => error.kind(),
            ContainerError::Process(error) => error.kind(),
            ContainerError::Device(_, error) => error.kind(),
            ContainerError::Cdi(_, error) => error.kind(),
            ContainerError::SharedMount(_, error) => error.kind(),
            ContainerError::User(_, error) => error.kind(),
            ContainerError::Hook(_, error) => error.kind(),
            ContainerError::Io { source, .. } => crate::error::kind_of_errno(source.raw_os_error()),
        }
    }
}
