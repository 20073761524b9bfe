//! Why a tree cannot be made.

use std::io;
use std::path::PathBuf;

/// Why an entry does not fit into the tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// `..` has no business in an archive.
    #[error("the path {0:?} leads out of the image")]
    Escape(String),
    /// Something else than a directory has the root's path.
    #[error("only a directory can be the root of the image")]
    Root,
    /// Something on the way is no directory.
    #[error("{0:?} is not a directory")]
    NotDirectory(String),
    /// As the kernel, after 40 links.
    #[error("too many symbolic links in {0:?}")]
    Loop(String),
    /// A hard link to nothing.
    #[error("the hard link's target {0:?} does not exist")]
    NoTarget(String),
    /// A hard link to what can have one name only.
    #[error("the hard link's target {0:?} is a directory")]
    LinkToDirectory(String),
    /// A path is not absolute and plain.
    #[error("{0:?} is not a plain absolute path: it must begin with / and have no empty, `.` or `..` part")]
    Path(String),
    /// Two things want the same path.
    #[error("{0} is there twice")]
    Twice(String),
    /// Something that is not a directory has a child.
    #[error("{child} cannot be below {parent}, which is not a directory")]
    Parent {
        /// The entry.
        child: String,
        /// The one above it.
        parent: String,
    },
    /// A path is longer than Linux takes one, and so deep a tree is nobody's.
    #[error("the path of {0:?} has more than 4095 bytes")]
    TooLong(String),
    /// A host file cannot be taken in.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A host file is of a kind that overlays do not carry.
    #[error("{0} is neither a file, a directory nor a symlink; put device nodes into the recipe")]
    Kind(PathBuf),
}
