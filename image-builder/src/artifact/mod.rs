//! The whole guest as one OCI artifact: written as a layout, pushed to a registry, pulled from one.
//!
//! [`Guest`] is the artifact, [`Reference`] its name, [`push`] and [`pull`] move it. Promises that the same products
//! have the same digest, and that a pulled file is either whole and verified or not there. Must never write outside
//! the directory it was given, nor send a password to another host than the one it is for.

mod error;
mod guest;
mod transfer;

pub use error::ArtifactError;
pub use guest::{ARTIFACT_TYPE, FILE_TYPE, Guest, PackedFile, TITLE};
pub use registry::Reference;
pub use transfer::{Limits, Pushed, pull, push};
