//! Builds what a VM boots (kernel, static agent, initrd), and boots it.
//!
//! Two halves that meet in the product directory ([`layout`]): [`kernel`], [`agent`] and [`initrd`] make products out
//! of the source tree's data files; `image`, `vm` and the rest boot them. Everything here is a library; the
//! `image-builder` program only parses arguments.
//!
//! Must never need root, a loop device or a container to make a product.

pub use fs_image;

pub mod agent;
pub mod artifact;
pub mod bootchart;
pub mod cache;
pub mod deploy;
pub mod digest;
pub mod disk;
pub mod elf;
pub mod format;
pub mod host;
pub mod image;
pub mod initrd;
pub mod inspect;
pub mod install;
pub mod kernel;
pub mod layout;
pub mod manifest;
pub mod pack;
mod plain;
mod private;
pub mod product;
pub mod program;
pub mod progress;
pub mod recipe;
pub mod run;
pub mod sbom;
mod segments;
pub mod size;
pub mod source;
mod svg;
pub mod text;
pub mod uki;
pub mod verify;
pub mod vm;
