//! `/pith/socket`: a connection to a Unix socket of the container.

use std::io;
use std::sync::Arc;

use rustix::fs::FileType;
use sandbox_api::http::{Io, Request, Response};
use tokio::net::UnixStream;

use super::place::named;
use super::rooted::{Root, magic};
use super::sandbox::Sandbox;
use super::splice;
use super::task;

/// Joins the connection with the socket at the parameter `path`, after an answer 101.
pub(super) async fn socket(sandbox: &Arc<Sandbox>, request: Request) -> Response {
    let Request { head, body } = request;
    drop(body);
    if !head.headers.has_word("connection", "upgrade") {
        return Response::failure(400, "ask with the fields Connection: Upgrade and Upgrade: unix-socket");
    }
    let (root, path) = match named(sandbox, &head, "the socket's path in the container").await {
        Ok(named) => named,
        Err(refused) => return refused,
    };
    match connect(root, path.clone()).await {
        Ok(stream) => Response::takeover(move |mut peer| async move {
            let stream: Box<dyn Io> = Box::new(stream);
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
async fn connect(root: Root, path: String) -> io::Result<UnixStream> {
    let found = task::blocking(move || root.find(&path, true)).await.map_err(io::Error::other)??;
    if found.kind() != FileType::Socket {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a socket"));
    }
    // By the descriptor: what is at the path may be another one by now.
    UnixStream::connect(magic(&found.fd)).await
}
