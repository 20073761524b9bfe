//! EROFS: a file system that is only read. Written without compression, and mountable without options; read as anybody wrote it.
//!
//! Promises that the same tree gives the same bytes, and that nothing needs privileges. The format is the one of
//! Linux 5.4 (no compression, no chunks), so that every kernel with EROFS reads it.
//!
//! Blocks are of 4 KiB, unless [`Parameters`] say otherwise. Kernels on 64-bit Arm may have pages of 16 or 64 KiB. Since Linux
//! 6.4 they mount blocks of 4 KiB all the same; before, blocks had to be as large as pages.
//!
//! ```text
//! block 0      1024 bytes of nothing, the superblock, nothing
//! block 1 ..   inodes in 32-byte slots: 64 bytes each, then extended attributes, then the tail of the content
//! then         whole blocks of content of files and directories
//! ```
//! An inode's number is the number of its first slot. Content is laid out *flat*: its whole blocks are contiguous,
//! and its last partial block follows the inode when that fits into the inode's block.
//!
//! Cannot hold: names of more than 255 bytes; more than 64 KiB of extended attributes of one file; attributes whose names begin
//! with none of `user.`, `trusted.`, `security.` and `system.posix_acl_` (see [`is_attribute`]); 2³² blocks and
//! more, which are 16 TiB of the usual ones.
//!
//! Reads superblock, inodes and directories, and what links say. The content of files is not looked at, so compressed ones are
//! listed as well. Compressed directories are damage to it: no tool writes them.

mod read;
mod write;

pub use read::{is, read};
pub use write::{BlockSize, Parameters, is_attribute, write};

#[cfg(test)]
mod tests;
