//! Container images, as the tools of the world save them, made into disks.
//!
//! Must never ask a registry: an image is a file or a directory here.

pub mod image;
