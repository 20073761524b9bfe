//! What can go wrong with a cgroup, and how a caller should take it.
//!
//! Owns: [`Error`] and its [`ErrorClass`]. Promises: the text names the file and, for a write, the value. Must
//! never: repeat the source's text in its own.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::controller::{Controller, option_of_file};

/// What a kernel lacks that knows no device filters.
pub(super) const FILTER_OPTIONS: &str = "needs CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF";

/// An operation on a cgroup failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path in the spec cannot name a container's cgroup.
    #[error("linux.cgroupsPath {text:?}: {problem}")]
    Path {
        /// As given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The cgroup to be created is there already.
    #[error("cgroup {} already exists", path.display())]
    Exists {
        /// Its directory.
        path: PathBuf,
    },
    /// The cgroup to be opened is not there.
    #[error("no cgroup {}", path.display())]
    NotFound {
        /// Its directory.
        path: PathBuf,
    },
    /// A value in `linux.resources` that cannot be right.
    #[error("linux.resources.{field}: {problem}")]
    Resource {
        /// The field, as OCI spells it.
        field: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// A limit needs a controller that the kernel does not have.
    #[error("{file} needs the cgroup controller {controller}, which this kernel lacks: build it with {}", controller.kernel_option())]
    NoController {
        /// The file that was to be written.
        file: String,
        /// The controller.
        controller: Controller,
    },
    /// A limit needs a controller that an ancestor could not hand down.
    #[error("{file} needs the cgroup controller {controller}, which {} did not hand down", ancestor.display())]
    ControllerRefused {
        /// The file that was to be written.
        file: String,
        /// The controller.
        controller: Controller,
        /// The ancestor whose `cgroup.subtree_control` refused it.
        ancestor: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The controller is there, but not the file.
    #[error("{} is missing: needs {}", path.display(), option_of_file(name_of(path)))]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// The kernel refused a value.
    #[error("write {value:?} to {}", path.display())]
    Write {
        /// What was written.
        value: String,
        /// The file.
        path: PathBuf,
        /// Why it was refused.
        source: io::Error,
    },
    /// Another file operation failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// `open`, `read`, `create`, `remove`, `list`.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something awaited did not happen in time.
    #[error("{} {awaited} after {} ms", path.display(), waited.as_millis())]
    Timeout {
        /// The cgroup.
        path: PathBuf,
        /// What it still is or is not.
        awaited: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A bpf(2) operation of the device filter failed.
    #[error("{operation} the device filter of {}{}", path.display(), in_brackets(detail))]
    DeviceFilter {
        /// `load`, `attach`, `replace`, `query`, `detach`.
        operation: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// What the verifier said, or what the kernel seems to lack.
        detail: String,
        /// Why.
        source: io::Error,
    },
}

/// What kind of failure it is, for the caller's own error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The cgroup is not there, or not any more.
    NotFound,
    /// The cgroup is there already.
    Exists,
    /// The caller's values are wrong.
    Invalid,
    /// Out of memory, descriptors or cgroups.
    Exhausted,
    /// The processes did not do in time what they must.
    Timeout,
    /// The kernel was built without it.
    Unsupported,
    /// Everything else.
    Internal,
}

impl Error {
    /// The kind of failure.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::Path { .. } | Error::Resource { .. } => ErrorClass::Invalid,
            Error::Exists { .. } => ErrorClass::Exists,
            Error::NotFound { .. } => ErrorClass::NotFound,
            Error::NoController { .. } | Error::ControllerRefused { .. } | Error::NoFile { .. } => {
                ErrorClass::Unsupported
            }
            Error::Timeout { .. } => ErrorClass::Timeout,
            // A value the kernel calls invalid came from the spec; an invalid bpf(2) call is ours, or the kernel's
            // for want of an option.
            Error::Write { source, .. } => match errno(source) {
                Some(Errno::INVAL | Errno::RANGE) => ErrorClass::Invalid,
                other => class_of(other),
            },
            Error::Io { source, .. } => class_of(errno(source)),
            Error::DeviceFilter { detail, .. } if detail == FILTER_OPTIONS => ErrorClass::Unsupported,
            Error::DeviceFilter { source, .. } => class_of(errno(source)),
        }
    }

    /// Whether a directory went away under the operation: somebody removed the cgroup meanwhile.
    pub(super) fn vanished(&self) -> bool {
        match self {
            Error::Io { source, .. } | Error::Write { source, .. } => {
                matches!(errno(source), Some(Errno::NOENT | Errno::NODEV))
            }
            _ => false,
        }
    }

    pub(super) fn resource(field: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Resource { field: field.into(), problem: problem.into() }
    }
}

fn errno(source: &io::Error) -> Option<Errno> {
    Errno::from_io_error(source)
}

fn class_of(errno: Option<Errno>) -> ErrorClass {
    match errno {
        Some(Errno::NOENT | Errno::NODEV) => ErrorClass::NotFound,
        Some(Errno::EXIST) => ErrorClass::Exists,
        Some(Errno::NAMETOOLONG | Errno::NOTDIR | Errno::LOOP) => ErrorClass::Invalid,
        // EAGAIN is what mkdir(2) answers at cgroup.max.depth and cgroup.max.descendants.
        Some(
            Errno::NOMEM
            | Errno::NOSPC
            | Errno::MFILE
            | Errno::NFILE
            | Errno::AGAIN
            | Errno::DQUOT
            | Errno::TOOBIG,
        ) => ErrorClass::Exhausted,
        Some(Errno::TIMEDOUT) => ErrorClass::Timeout,
        _ => ErrorClass::Internal,
    }
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn in_brackets(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({})", detail.trim_end().replace('\n', "; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(errno: Errno) -> Error {
        Error::Write { value: "max".into(), path: "/sys/fs/cgroup/x/memory.max".into(), source: errno.into() }
    }

    #[test]
    fn a_refused_value_says_which() {
        assert_eq!(write(Errno::INVAL).to_string(), "write \"max\" to /sys/fs/cgroup/x/memory.max");
        assert_eq!(write(Errno::INVAL).class(), ErrorClass::Invalid);
        assert_eq!(write(Errno::NODEV).class(), ErrorClass::NotFound);
        assert_eq!(write(Errno::NOMEM).class(), ErrorClass::Exhausted);
        assert_eq!(write(Errno::IO).class(), ErrorClass::Internal);
    }

    #[test]
    fn a_missing_controller_names_the_kernel_option() {
        let error = Error::NoController { file: "pids.max".into(), controller: Controller::Pids };
        assert_eq!(error.class(), ErrorClass::Unsupported);
        assert!(error.to_string().contains("CONFIG_CGROUP_PIDS"), "{error}");
        let error = Error::NoFile { path: "/sys/fs/cgroup/x/cpu.max".into() };
        assert!(error.to_string().contains("CONFIG_CFS_BANDWIDTH"), "{error}");
    }
}
