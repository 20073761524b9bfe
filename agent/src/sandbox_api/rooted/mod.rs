//! Files of a container, worked on from outside of it by a descriptor of its root.
//!
//! Owns how paths are understood ([`Owner`]) and resolved ([`Root`]), what is told of an entry ([`Entry`]), and the threads
//! that do it ([`Workers`]). Promises that nothing outside of the root is reached, whatever links there are or appear, and
//! that nothing but regular files and directories is opened. Needs no program of the container.

mod entry;
mod error;
mod path;
mod root;
mod stop;
#[cfg(test)]
mod tests;
mod unfinished;

pub(crate) use entry::{Entry, PREFIX, texts_to_json};
pub(crate) use error::{FileError, FileErrorKind, errno};
pub(crate) use path::{Owner, base, join, last_first};
pub(crate) use root::{Found, Root, below, give, is_gone, magic, make_directory, reopen};
pub(crate) use stop::{Stop, Workers};
pub(crate) use unfinished::{Unfinished, replace};
