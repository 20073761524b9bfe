//! Builds what a VM boots: kernel, static agent, initrd, disks, and what tells of them.
//!
//! [`kernel`], [`agent`], [`initrd`] and [`disk`] make products out of the source tree's data files and put them into the
//! product directory; [`verify`] makes them again, [`inspect`] and [`size`] look inside, [`deploy`] installs them.
//!
//! Must never need root, a loop device or a container to make a product.

pub mod agent;
pub mod bootchart;
pub mod daemon;
pub mod debian;
pub mod deploy;
pub mod disk;
pub mod elf;
pub mod format;
pub mod host;
pub mod initrd;
pub mod inspect;
pub mod install;
pub mod kernel;
pub mod manifest;
pub mod pack;
pub mod place;
pub mod program;
pub mod recipe;
pub mod sbom;
pub mod size;
pub mod source;
mod svg;
pub mod uki;
pub mod verify;
