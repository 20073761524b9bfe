//! `/pith/fsfreeze`, `/pith/fsthaw` and `/pith/fstrim`: the file system that a directory of the container is on.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use sandbox_api::http::{Head, Response};
use serde_json::{Value, json};

use super::place::named;
use super::rooted::Root;
use super::sandbox::Sandbox;
use super::task;
use crate::sys;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Write out what is pending, and hold writes up.
    Freeze,
    /// Let writes go on.
    Thaw,
    /// Tell the disk which blocks are free.
    Trim,
}

/// Does it to the file system that the directory of the parameter `path` is on.
pub(super) async fn work(sandbox: &Arc<Sandbox>, head: &Head, work: Work) -> Response {
    let (root, path) = match named(sandbox, head, "a directory of the container").await {
        Ok(named) => named,
        Err(refused) => return refused,
    };
    let shown = path.clone();
    let done = task::blocking(move || apply(&root, &path, work)).await;
    match done.unwrap_or_else(|error| Err(error.into())) {
        Ok(told) => Response::json(200, &told),
        Err(error) => {
            let status = match error.raw_os_error() {
                Some(nix::libc::ENOENT) => 404,
                Some(nix::libc::ENOTDIR | nix::libc::EOPNOTSUPP | nix::libc::ENOTTY | nix::libc::EINVAL) => {
                    400
                }
                Some(nix::libc::EBUSY) => 409,
                _ => 500,
            };
            Response::failure(status, &format!("{shown}: {error}"))
        }
    }
}

fn apply(root: &Root, path: &str, work: Work) -> io::Result<Value> {
    let directory = root.directory(path)?;
    match work {
        Work::Freeze => sys::fs::freeze(directory.as_fd()).map(|()| json!({})),
        Work::Thaw => sys::fs::thaw(directory.as_fd()).map(|()| json!({})),
        Work::Trim => sys::fs::trim(directory.as_fd()).map(|bytes| json!({ "trimmed": bytes })),
    }
}
