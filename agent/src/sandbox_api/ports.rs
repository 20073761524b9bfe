//! Ports of the pod: a request whose header names another port than the API's goes to that port of the pod's loopback, and the
//! connection with it.
//!
//! A client may use one connection for requests to several ports, so each is asked to end its connection with the answer. One
//! that is upgraded, as a WebSocket, stays as long as both sides want.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags};
use sandbox_api::http::{Head, Io, Request, Response};
use serde_json::json;
use tokio::net::TcpStream;

use super::sandbox::Sandbox;
use super::splice;
use super::target::Target;
use super::task;
use crate::config::SANDBOX_PORT;

/// How long a port may take to accept.
const CONNECTING: Duration = Duration::from_secs(5);

/// The port that a request is for, if it is another than the API's. What is no port is nobody's.
pub(super) fn wanted(head: &Head) -> Option<u16> {
    let port = head.headers.get("e2b-sandbox-port")?.trim().parse().ok()?;
    (port != SANDBOX_PORT && port != 0).then_some(port)
}

/// Gives a request, and its connection, to a port.
pub(super) async fn forward(sandbox: &Arc<Sandbox>, request: Request, port: u16) -> Response {
    let target = match sandbox.target(&request.head).await {
        Ok(target) => target,
        Err(error) => return Response::failure(503, &error.to_string()),
    };
    let id = target.id().to_owned();
    let Request { head, body } = request;
    // Nothing of it was read: it follows in the connection.
    drop(body);
    match connect(target, port).await {
        Ok(stream) => handed_over(head, stream),
        Err(error) => {
            tracing::debug!(port, %error, "a port of the pod is not open");
            let text = "The sandbox is running but port is not open";
            Response::json(502, &json!({ "sandboxId": id, "message": text, "port": port, "code": 502 }))
        }
    }
}

/// Gives a connection, with the request at its beginning, to a server.
fn handed_over(head: Head, server: TcpStream) -> Response {
    let server: Box<dyn Io> = Box::new(server);
    Response::takeover(move |peer| splice::join(peer, server, rewritten(&head)))
}

/// The head as the port's server gets it: without the token, which is not its business.
fn rewritten(head: &Head) -> Vec<u8> {
    let is_upgrade = head.headers.has_word("connection", "upgrade");
    let version = if head.is_11 { "1.1" } else { "1.0" };
    let mut text = format!("{} {} HTTP/{version}\r\n", head.method, head.target);
    for (name, value) in head.headers.iter() {
        let is_dropped = match name {
            "x-access-token" => true,
            "connection" | "keep-alive" | "proxy-connection" => !is_upgrade,
            _ => false,
        };
        if !is_dropped {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if !is_upgrade {
        text.push_str("connection: close\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Connects to a port of a container's loopback.
async fn connect(target: Target, port: u16) -> io::Result<TcpStream> {
    let addresses =
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    let elsewhere = task::blocking(move || other_network(&target));
    let stream = match elsewhere.await.map_err(io::Error::other)?? {
        None => {
            let mut last = Err(io::ErrorKind::ConnectionRefused.into());
            for address in addresses {
                last = tokio::time::timeout(CONNECTING, TcpStream::connect(address)).await?;
                if last.is_ok() {
                    break;
                }
            }
            last?
        }
        Some(network) => {
            // A thread of its own: it stays in that network until it ends.
            let (told, connected) = tokio::sync::oneshot::channel();
            std::thread::Builder::new().name("port".into()).spawn(move || {
                let connect = || -> io::Result<std::net::TcpStream> {
                    nix::sched::setns(&network, nix::sched::CloneFlags::CLONE_NEWNET)?;
                    let first = std::net::TcpStream::connect_timeout(&addresses[0], CONNECTING);
                    first.or_else(|_| std::net::TcpStream::connect_timeout(&addresses[1], CONNECTING))
                };
                // Who asked may be gone.
                drop(told.send(connect()));
            })?;
            let stream = connected.await.map_err(io::Error::other)??;
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The network namespace of a container, if it is another than the guest's. Blocks.
fn other_network(target: &Target) -> io::Result<Option<std::fs::File>> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let init = target.container.process("").map_err(|_| gone())?;
    let open = |path: String| rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let (its, ours) = (open(format!("/proc/{}/ns/net", init.pid()))?, open("/proc/self/ns/net".to_owned())?);
    init.signal(0).map_err(|_| gone())?;
    let identity = |fd: &std::os::fd::OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    Ok((identity(&its)? != identity(&ours)?).then(|| its.into()))
}

#[cfg(test)]
#[path = "ports_test.rs"]
mod tests;
