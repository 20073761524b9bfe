//! A client of registries, by OCI's distribution spec.
//!
//! [`Reference`] is a name, [`Repository`] what it leads to, [`Library`] the place on this host where container images that
//! were pulled are kept: an OCI layout, so that everything that reads one reads it. Promises that whatever is kept is what
//! its digest says. Must never send a password to another host than the one it is for.

mod challenge;
mod error;
mod image;
mod library;
mod login;
mod reference;
mod repository;
mod watch;

pub use error::RegistryError;
pub use image::{Limits, Moved, Pulled, pull};
pub use library::{Kept, Library};
pub use reference::Reference;
pub use repository::Repository;
pub use watch::{Watch, on_thread};
