//! Why a tree cannot be written.

use std::io;
use std::path::{Path, PathBuf};

use crate::tree::{Inode, Kind};

/// Why a tree cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The format has no room for something in the tree.
    #[error("{path:?} cannot be in {format}: {problem}")]
    CannotHold {
        /// The format's name.
        format: &'static str,
        /// Which file, directory or other entry.
        path: String,
        /// What is too much.
        problem: String,
    },
    /// All together is too much for the format.
    #[error("the tree is too large for {format}: {problem}")]
    TooLarge {
        /// The format's name.
        format: &'static str,
        /// Where the format ends.
        problem: &'static str,
    },
    /// The file system cannot be written, or a file's content not be read.
    #[error("cannot write the file system")]
    Write(#[from] io::Error),
    /// A file cannot be used.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A helper program is missing.
    #[error("cannot run {name}; install the Debian package {package}")]
    Missing {
        /// The program.
        name: &'static str,
        /// What has it.
        package: &'static str,
        /// Why it did not start.
        source: io::Error,
    },
    /// A helper program failed.
    #[error("{name} could not make the file system; it said:\n{said}")]
    Refused {
        /// The program.
        name: &'static str,
        /// What it said.
        said: String,
    },
}

impl WriteError {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }

    pub(crate) fn cannot_hold(format: &'static str, path: &[u8], problem: impl Into<String>) -> Self {
        let path = if path.is_empty() { b"/" } else { path };
        Self::CannotHold { format, path: String::from_utf8_lossy(path).into_owned(), problem: problem.into() }
    }
}

/// What Linux gives no entry of any file system, whatever the format had room for.
pub(crate) fn beyond_linux(inode: &Inode) -> Option<String> {
    /// Bytes of a symbolic link's target: PATH_MAX without the NUL.
    const TARGET: usize = 4095;
    match &inode.kind {
        Kind::Symlink(target) if target.len() > TARGET => {
            Some(format!("its target has more than {TARGET} bytes"))
        }
        &(Kind::Char { major, minor } | Kind::Block { major, minor })
            if major > 0xfff || minor > 0xf_ffff =>
        {
            Some(format!("the device number {major}:{minor} is beyond 4095:1048575"))
        }
        _ => None,
    }
}
