//! What this user has on this host: the cache, the directory of products, and how both are named, read and shown.
//!
//! Everything else in `image-builder/` stands on this. Promises that a file of another user is never trusted, and that what
//! is written is there as a whole or not at all. Must never know what a product or an image is made of.

pub mod cache;
pub mod digest;
pub mod layout;
pub mod plain;
pub mod private;
pub mod product;
pub mod progress;
pub mod segments;
pub mod text;
