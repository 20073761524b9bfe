//! `/pith/socket`: a connection to a Unix socket of the container.

use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use sandbox_api::http::{Request, Response};
use tokio::net::UnixStream;

use super::sandbox::{Caller, Sandbox};
use super::splice;

/// Joins the connection with the socket at the parameter `path`, after an answer 101.
pub(super) async fn socket(sandbox: &Arc<Sandbox>, request: Request) -> Response {
    let Request { head, body } = request;
    drop(body);
    if !head.headers.has_word("connection", "upgrade") {
        return Response::failure(400, "ask with the fields Connection: Upgrade and Upgrade: unix-socket");
    }
    let Some(path) = head.query.get("path").filter(|path| !path.is_empty()) else {
        return Response::failure(400, "the parameter path is missing: the socket's path in the container");
    };
    let caller = match sandbox.caller(&head, head.query.get("username")).await {
        Ok(caller) => caller,
        Err(error) => return error.to_response(),
    };
    let path = match caller.path(path) {
        Ok(path) => path,
        Err(text) => return Response::failure(400, &text),
    };
    match connect(caller, path.clone()).await {
        Ok(stream) => Response::takeover(move |mut peer| async move {
            use tokio::io::AsyncWriteExt as _;
            let head =
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: unix-socket\r\n\r\n";
            if peer.writer.write_all(head).await.is_ok() {
                splice::join(peer, stream, Vec::new()).await;
            }
        }),
        Err(error) => {
            let status = match error.kind() {
                io::ErrorKind::NotFound => 404,
                io::ErrorKind::InvalidInput => 400,
                _ => 502,
            };
            Response::failure(status, &format!("connect to '{path}': {error}"))
        }
    }
}

/// Connects to a socket inside of the container's root.
async fn connect(caller: Caller, path: String) -> io::Result<UnixStream> {
    let open = move || -> io::Result<std::os::fd::OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found =
            rustix::fs::openat2(&*caller.root, path.trim_start_matches('/'), flags, Mode::empty(), resolve)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::Socket {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a socket"));
        }
        Ok(found)
    };
    let found = tokio::task::spawn_blocking(open).await.map_err(io::Error::other)??;
    // By the descriptor: what is at the path may be another one by now.
    UnixStream::connect(format!("/proc/self/fd/{}", found.as_raw_fd())).await
}
