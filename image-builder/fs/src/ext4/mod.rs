//! ext4, written by the programs of e2fsprogs, and read by the crate `ext4-view`.
//!
//! ```text
//! tree ─┬─ size ─────────── mke2fs: an empty file system ─┐
//!       ├─ contents, staged under numbers ────────────────┼─ file
//!       └─ script ───────── debugfs: entries, then what every inode says of itself
//! ```
//! Promises that owners, modes, devices and times are the tree's, whoever builds, and that the same tree gives the same
//! bytes with the same e2fsprogs, whatever the host's clock, user, umask and mke2fs.conf. Must never need root, a loop
//! device or a mount.
//!
//! Cannot hold: sockets, which debugfs does not make; names of more than 255 bytes and paths of more than 4095; line breaks and
//! double quotes in names and in targets of symlinks, which a line of a script cannot say; more than a block of extended
//! attributes of one file; times after 2446. Fractions of seconds are cut off.
//!
//! What is read does not say which device a node is of: `ext4-view` does not tell.

mod read;
mod write;

pub use read::{is, read};
pub use write::{empty, version, write};

#[cfg(test)]
mod tests;
