//! A client of registries, according to the OCI distribution spec.
//!
//! A [`Reference`] is a name. A [`Repository`] is what the name leads to. The [`Library`] keeps pulled container images on this
//! host, as an OCI layout, so that other programs can read it. Promises that everything kept matches its digest. Must never
//! send a password to any host but the one that it is for.

mod challenge;
mod error;
mod image;
mod library;
mod login;
mod platform;
mod reference;
mod repository;
mod watch;

pub use error::RegistryError;
pub use image::{Limits, Moved, Pulled, pull};
pub use library::{Kept, Library};
pub use reference::Reference;
pub use repository::Repository;
pub use watch::{Watch, on_thread};
