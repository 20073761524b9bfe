//! The user's files on this host: the cache and the product directory. How they are named, read and shown.
//!
//! All other crates of `image-builder/` are built on this one. Promises that a file of another user is never trusted, and that
//! files are written whole or not at all. Must never know what a product or an image is made of.

pub mod arch;
pub mod cache;
pub mod digest;
pub mod layout;
pub mod plain;
pub mod private;
pub mod product;
pub mod progress;
pub mod segments;
pub mod text;
