//! One file tree, and a module for each format of file systems that a kernel mounts or unpacks. Each has a function `write`, which
//! makes one of a tree, and a function `read`, which lists what is in one.
//!
//! ```text
//! recipe, layers of tar, directory ──► Tree ─┬─► cpio    the initramfs that Linux unpacks as it boots
//!   (content in memory or on disk)           ├─► erofs   read-only, mounted without options by Linux 5.4 and later
//!                                            └─► ext4    by mke2fs and debugfs of e2fsprogs
//! ```
//!
//! Promises that the same tree gives the same bytes, whoever writes it and whenever; that nothing needs root, a mount or a loop
//! device; and that a file's content is in memory only if the tree was given it so. Must never leave something out in
//! silence: what a format cannot hold is a [`WriteError::CannotHold`] with the name of the entry.
//!
//! | | [`cpio`] | [`erofs`] | [`ext4`] |
//! |---|---|---|---|
//! | hard links | yes; those of a symbolic link become links of their own when Linux unpacks it | yes | yes |
//! | extended attributes | none | `user.`, `trusted.`, `security.` and ACLs, 64 KiB per file | the same, one block (4 KiB) per file |
//! | sockets | yes | yes | none |
//! | a file's size | 4 GiB - 1 | the file system's | 16 TiB - 1 |
//! | a name | a path of 4095 bytes | 255 bytes | 255 bytes, a path of 4095; no line break and no double quote in either, nor in a link's target |
//! | times | whole seconds until 2106 | nanoseconds | whole seconds until 2446 |
//! | all together | 4294967295 inodes | 16 TiB | as mke2fs has it |
//! | blocks | none | 4 KiB, or [16 or 64](erofs::BlockSize) | 4 KiB, which kernels of every page size mount |
//!
//! What is read may come from anybody: damage is a [`ReadError`] that says where, and takes no more memory than the bytes could
//! describe. The content of files is not read.
//!
//! Layers of images (tar) and directories of the host have their readers in the crate `images`: the one needs decompressors and
//! knows whiteouts, the other opens files in a way that nobody can swap them meanwhile. Both fill a [`Tree`].
//!
//! None holds a device number beyond 4095:1048575 or a link's target of more than 4095 bytes, as Linux does not. Nothing is
//! compressed: an initramfs is compressed as a whole, by others.
//!
//! ```
//! use fs_image::{Inode, Kind, Tree, cpio, erofs};
//!
//! let mut tree = Tree::new();
//! tree.insert("/etc/motd", Inode::new(0o644, Kind::File("hello\n".into())))?;
//! tree.link("/etc/issue", "/etc/motd")?;
//! let mut initramfs = Vec::new();
//! cpio::write(&tree, &mut initramfs)?;
//! let disk = tempfile::tempfile()?;
//! erofs::write(&tree, [7; 16], &disk)?;
//! assert_eq!(disk.metadata()?.len() % 4096, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A new format is one module with `write` and `read`, and its column above.

mod content;
mod counted;
pub mod cpio;
pub mod entry;
pub mod erofs;
mod error;
pub mod ext4;
pub mod sample;
pub mod tree;

pub use content::{Content, Extent, Later, Open};
pub use entry::{Entry, ReadError};
pub use error::WriteError;
pub use tree::{Inode, InodeId, Kind, Meta, Tree, TreeError};
