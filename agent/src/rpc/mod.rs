//! The wire: decodes a request, validates it, makes one call, encodes the answer. Nothing below this module knows of
//! ttrpc or protobuf, and nothing here decides.

mod admission;
mod api;
mod connection;
mod container;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod guest;
mod health;
mod incoming;
mod memory;
mod network;
mod policy;
mod process;
mod sandbox;
mod server;
mod service;
mod status;
mod validate;

use crate::patience::Patience;
use crate::pod::Pod;

pub(crate) use api::Api;
pub(crate) use server::{ServeError, serve_somewhere};

/// Version of the API, as the shims know it.
pub(crate) const API_VERSION: &str = "0.0.1";

/// Work that waits for a device or a file system, on a thread that may wait. Nobody waits for it any more when the pod goes.
async fn patiently<T: Send + 'static>(
    pod: &Pod,
    patience: &Patience,
    work: impl FnOnce() -> Result<T, status::Failure> + Send + 'static,
) -> Result<T, status::Failure> {
    tokio::select! {
        biased;
        // What was done counts, also if both are so.
        done = patience.run(work) => done.unwrap_or_else(|_| Err(status::Failure::internal("the work panicked"))),
        () = pod.is_going() => Err(status::Failure::cancelled()),
    }
}

/// Work that waits for the kernel, on a thread of its own.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, status::Failure> + Send + 'static,
) -> Result<T, status::Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(status::Failure::internal("the work panicked")))
}
