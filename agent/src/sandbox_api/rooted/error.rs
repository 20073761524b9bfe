//! What can go wrong with files of a container, and how the two protocols say it.

use std::io;

use rustix::io::Errno;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// Nothing has this path.
    #[error("path '{0}' does not exist")]
    Missing(String),
    /// A file that is to be joined with others is not there.
    #[error("source file not found: {0}")]
    NoSource(String),
    /// The path cannot be one.
    #[error("path '{path}' {reason}")]
    Path {
        /// As it was asked for.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Something else than a directory is, or would be, on the way.
    #[error("path is not a directory: {0}")]
    NoDirectory(String),
    /// A directory where a file is wanted.
    #[error("{0}")]
    Directory(String),
    /// Neither a file nor a directory: to open it could block, or do something.
    #[error("path '{0}' is not a regular file")]
    Special(String),
    /// The directory is there.
    #[error("directory already exists: {0}")]
    Exists(String),
    /// A file has the name that a directory is to have.
    #[error("path already exists but it is not a directory: {0}")]
    InTheWay(String),
    /// Links that lead to each other.
    #[error("path '{0}' passes too many symbolic links")]
    Loop(String),
    /// A watch of a file system of which not all changes are seen.
    #[error("cannot watch path on network filesystem: {0}")]
    Network(String),
    /// No watcher has this id.
    #[error("watcher with id {0} not found")]
    NoWatcher(String),
    /// The request is no good for another reason.
    #[error("{0}")]
    Invalid(String),
    /// There is too much of something.
    #[error("{0}")]
    Exhausted(String),
    /// The disk is full, or its inodes, or a quota.
    #[error("not enough disk space available: {operation} '{path}': {source}")]
    Space {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Who asked is gone.
    #[error("the request was given up")]
    Abandoned,
    /// The kernel refused.
    #[error("{operation} '{path}': {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: String,
        /// What it said.
        source: io::Error,
    },
}

/// How an error is to be told, in the terms of both protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileErrorKind {
    NotFound,
    Invalid,
    Exists,
    Precondition,
    Exhausted,
    Space,
    Denied,
    Cancelled,
    Internal,
}

impl FileError {
    /// The error of a call of the kernel.
    pub(crate) fn io(operation: &'static str, path: &str, source: impl Into<io::Error>) -> FileError {
        let (source, path) = (source.into(), path.to_owned());
        match errno(&source) {
            Some(Errno::NOENT) => FileError::Missing(path),
            Some(Errno::NOTDIR) => FileError::NoDirectory(path),
            Some(Errno::LOOP) => FileError::Loop(path),
            Some(Errno::NAMETOOLONG) => FileError::Path { path, reason: "is too long" },
            Some(Errno::NOSPC | Errno::DQUOT) => FileError::Space { operation, path, source },
            _ => FileError::Io { operation, path, source },
        }
    }

    /// A closure that makes the error of a call.
    pub(crate) fn during<E: Into<io::Error>>(
        operation: &'static str,
        path: &str,
    ) -> impl FnOnce(E) -> FileError {
        move |source| FileError::io(operation, path, source)
    }

    /// As [`FileError::during`], for what is only looked at: what would be below a file is not there.
    pub(crate) fn lookup(operation: &'static str, path: &str) -> impl FnOnce(Errno) -> FileError {
        move |errno| match errno {
            Errno::NOTDIR => FileError::Missing(path.to_owned()),
            errno => FileError::io(operation, path, errno),
        }
    }

    /// See [`FileErrorKind`].
    pub(crate) fn kind(&self) -> FileErrorKind {
        match self {
            FileError::Missing(_) | FileError::NoSource(_) | FileError::NoWatcher(_) => {
                FileErrorKind::NotFound
            }
            FileError::Path { .. }
            | FileError::NoDirectory(_)
            | FileError::Directory(_)
            | FileError::Special(_)
            | FileError::InTheWay(_)
            | FileError::Network(_)
            | FileError::Invalid(_) => FileErrorKind::Invalid,
            FileError::Exists(_) => FileErrorKind::Exists,
            FileError::Loop(_) => FileErrorKind::Precondition,
            FileError::Exhausted(_) => FileErrorKind::Exhausted,
            FileError::Space { .. } => FileErrorKind::Space,
            FileError::Abandoned => FileErrorKind::Cancelled,
            FileError::Io { source, .. } => match errno(source) {
                Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => FileErrorKind::Denied,
                Some(Errno::NOMEM | Errno::MFILE | Errno::NFILE) => FileErrorKind::Exhausted,
                _ => FileErrorKind::Internal,
            },
        }
    }

    /// The status of an answer in plain HTTP.
    pub(crate) fn status(&self) -> u16 {
        match self.kind() {
            FileErrorKind::NotFound => 404,
            FileErrorKind::Invalid | FileErrorKind::Precondition => 400,
            FileErrorKind::Exists => 409,
            FileErrorKind::Exhausted => 429,
            FileErrorKind::Space => 507,
            FileErrorKind::Denied => 403,
            FileErrorKind::Cancelled => 499,
            FileErrorKind::Internal => 500,
        }
    }
}

/// What the kernel said.
pub(crate) fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}
