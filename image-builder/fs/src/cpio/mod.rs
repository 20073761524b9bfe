//! `newc` cpio archives, the format of an initramfs (the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Entries come in the order of their paths, parents first, because the kernel creates them as it reads. Inode numbers count
//! from 1, and one trailer ends the archive, padded with zeros to 512 bytes as the format's tools do. Names of one file have
//! its number and how many they are; the content comes with the last of them, as GNU cpio writes and the kernel takes it.
//!
//! Cannot hold: extended attributes; files of 4 GiB and more; times after 2106; paths of more than 4095 bytes, which the
//! kernel skips without a word; a file `/TRAILER!!!`. Fractions of seconds are cut off, and the root has no entry.
//!
//! Reads archives one after the other, as the kernel unpacks them (`init/initramfs.c`). Compressed ones must be unpacked before.

mod read;
mod write;

pub use read::{Behind, is, read, read_on};
pub use write::{archive, write};

#[cfg(test)]
mod tests;
