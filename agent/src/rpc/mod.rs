//! The wire: decodes a request, validates it, makes one call, encodes the answer. Nothing below this module knows of
//! ttrpc or protobuf, and nothing here decides.

mod container;
mod decode;
mod guest;
mod health;
mod network;
mod process;
mod sandbox;
mod server;
mod service;
mod status;
mod validate;

pub(crate) use server::{ServeError, serve};

/// Version of the API, as the shims know it.
pub(crate) const API_VERSION: &str = "0.0.1";
