//! Listens, and hands requests to whom they are for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::{Stream, StreamExt as _};
use sandbox_api::http::{self, Io, Limits, Request, Response, Service};
use tokio::sync::Semaphore;

use super::answer::not_found;
use super::sandbox::Sandbox;
use super::{extra, files, filesystem, freeze, init, metrics, ports, process};
use crate::config::{Cid, SANDBOX_PORT};
use crate::listen;

/// Most connections at once.
const CONNECTIONS: usize = 1024;
/// How long one too many may take to hear that.
const HEARING: Duration = Duration::from_secs(1);

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    /// On vsock, for the host only.
    Vsock,
    /// On vsock, and in the pod's network once a token was set over vsock.
    Tcp,
}

/// Starts to serve, in tasks of its own.
///
/// # Errors
/// When the vsock port is taken.
pub(crate) fn start(sandbox: &Arc<Sandbox>, listen: Listen) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let watcher = sandbox.parts.clock.watcher();
    let connections = listen::vsock(Cid::Any, SANDBOX_PORT.into(), Some(watcher))?;
    let entrance = Arc::new(Entrance { sandbox: Arc::clone(sandbox), is_host: true });
    tokio::spawn(accept(connections, entrance, Arc::clone(&room)));
    if listen == Listen::Tcp {
        let entrance = Arc::new(Entrance { sandbox: Arc::clone(sandbox), is_host: false });
        tokio::spawn(tcp(entrance, room));
    }
    tracing::info!(port = SANDBOX_PORT, tcp = listen == Listen::Tcp, "the sandbox API listens");
    Ok(())
}

/// Serves the pod's network, once there is a token.
async fn tcp(entrance: Arc<Entrance>, room: Arc<Semaphore>) {
    entrance.sandbox.auth.wait().await;
    let listener = match tokio::net::TcpListener::bind(("::", SANDBOX_PORT)).await {
        Ok(listener) => listener,
        // A kernel without IPv6.
        Err(_) => match tokio::net::TcpListener::bind(("0.0.0.0", SANDBOX_PORT)).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, port = SANDBOX_PORT, "the sandbox API is not served in the pod's network");
                return;
            }
        },
    };
    tracing::info!(port = SANDBOX_PORT, "the sandbox API listens in the pod's network");
    accept(listen::tcp(listener), entrance, room).await;
}

async fn accept<S: Io + 'static>(
    connections: impl Stream<Item = io::Result<S>>,
    entrance: Arc<Entrance>,
    room: Arc<Semaphore>,
) {
    let mut connections = std::pin::pin!(connections);
    while let Some(connection) = connections.next().await {
        let Ok(stream) = connection else { continue };
        let place = Arc::clone(&room).try_acquire_owned();
        let entrance = Arc::clone(&entrance);
        drop(tokio::spawn(async move {
            match place {
                Ok(_place) => http::serve(Box::new(stream), &*entrance, &Limits::default()).await,
                Err(_) => drop(tokio::time::timeout(HEARING, http::refuse_all(Box::new(stream))).await),
            }
        }));
    }
}

/// A way in: who comes by it has some rights or others.
struct Entrance {
    sandbox: Arc<Sandbox>,
    /// Whether only the host comes this way.
    is_host: bool,
}

impl Service for Entrance {
    fn call(&self, request: Request) -> BoxFuture<'static, Response> {
        let (sandbox, is_host) = (Arc::clone(&self.sandbox), self.is_host);
        async move { answer(&sandbox, request, is_host).await }.boxed()
    }
}

async fn answer(sandbox: &Arc<Sandbox>, request: Request, is_host: bool) -> Response {
    #[cfg(feature = "policy")]
    if let Some(refused) = judge(sandbox, &request.head).await {
        return refused;
    }
    let port = ports::wanted(&request.head);
    if request.head.method == "OPTIONS" && port.is_none() {
        return cors(Response::empty(204)).with("access-control-allow-methods", "*");
    }
    // The answers of a port are its own.
    let is_asked = port.is_none() && request.head.headers.get("origin").is_some();
    let response = routed(sandbox, request, is_host).await;
    if is_asked { cors(response) } else { response }
}

/// What browsers want to be told, as envd tells them.
fn cors(response: Response) -> Response {
    response
        .with("access-control-allow-origin", "*")
        .with("access-control-allow-headers", "*")
        .with("access-control-expose-headers", "*")
        .with("access-control-max-age", "7200")
}

async fn routed(sandbox: &Arc<Sandbox>, request: Request, is_host: bool) -> Response {
    let port = ports::wanted(&request.head);
    if let Err(response) = sandbox.auth.check(&request.head, port.is_some()) {
        return response;
    }
    if let Some(port) = port {
        return ports::forward(sandbox, request, port).await;
    }
    let (method, path) = (request.head.method.clone(), request.head.path.clone());
    if let Some(name) = path.strip_prefix("/process.Process/") {
        return process::call(sandbox, name, request).await;
    }
    if let Some(name) = path.strip_prefix("/filesystem.Filesystem/") {
        return filesystem::call(sandbox, name, request).await;
    }
    if path == "/files" || path.starts_with("/files/") {
        return files::call(sandbox, request).await;
    }
    if let Some(name) = path.strip_prefix("/pith/") {
        return extra::call(sandbox, name, request).await;
    }
    match (method.as_str(), path.as_str()) {
        ("GET" | "HEAD", "/health") => Response::empty(204),
        ("GET" | "HEAD", "/metrics") => metrics::metrics(sandbox, &request.head).await,
        ("GET" | "HEAD", "/envs") => init::envs(sandbox),
        ("POST", "/init") => init::init(sandbox, request, is_host).await,
        ("POST", "/freeze") => freeze::freeze(sandbox).await,
        ("POST", "/unfreeze") => freeze::unfreeze(sandbox).await,
        (_, "/health" | "/metrics" | "/envs" | "/init" | "/freeze" | "/unfreeze") => {
            Response::failure(405, &format!("{path} has no {method}"))
        }
        _ => not_found(),
    }
}

/// Asks the policy, in builds that have one.
#[cfg(feature = "policy")]
async fn judge(sandbox: &Arc<Sandbox>, head: &http::Head) -> Option<Response> {
    let input = serde_json::json!({ "method": head.method, "path": head.path });
    let judged = sandbox.parts.policy.judge("SandboxApiRequest", input).await;
    judged.err().map(|error| Response::failure(403, &crate::error::chain(&error)))
}
