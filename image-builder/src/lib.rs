//! What `image-builder` does beside building: it moves the whole guest to a registry and back, and packs releases.
//!
//! Products are made by the crate `products`; the program only parses arguments.

pub mod artifact;
pub mod dist;
