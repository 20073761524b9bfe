//! Listens, and hands requests to whom they are for.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::{Stream, StreamExt as _};
use sandbox_api::http::{self, Io, Limits, Request, Response, Service};
use tokio::sync::Semaphore;

use super::answer::not_found;
use super::sandbox::Sandbox;
use super::{extra, files, filesystem, freeze, init, metrics, ports, process, task};
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
    task::spawn(accept(connections, entrance, Arc::clone(&room)));
    if listen == Listen::Tcp {
        let entrance = Arc::new(Entrance { sandbox: Arc::clone(sandbox), is_host: false });
        task::spawn(tcp(entrance, room));
    }
    tracing::info!(port = SANDBOX_PORT, tcp = listen == Listen::Tcp, "the sandbox API listens");
    Ok(())
}

/// Serves the pod's network, once there is a token.
async fn tcp(entrance: Arc<Entrance>, room: Arc<Semaphore>) {
    entrance.sandbox.auth.wait().await;
    let anywhere: [SocketAddr; 2] =
        [(Ipv6Addr::UNSPECIFIED, SANDBOX_PORT).into(), (Ipv4Addr::UNSPECIFIED, SANDBOX_PORT).into()];
    // The second for a kernel without IPv6.
    let listener = match tokio::net::TcpListener::bind(&anywhere[..]).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, port = SANDBOX_PORT, "the sandbox API is not served in the pod's network");
            return;
        }
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
        drop(task::spawn(async move {
            match place {
                Ok(_place) => {
                    http::serve(Box::new(stream), &*entrance, &Limits::default()).await;
                    entrance.sandbox.parts.trimmer.trim_soon();
                }
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
        // Browsers do not take the star for this one.
        .with("access-control-allow-headers", "*, Authorization")
        .with("access-control-expose-headers", "*")
        .with("access-control-max-age", "7200")
}

async fn routed(sandbox: &Arc<Sandbox>, request: Request, is_host: bool) -> Response {
    let port = ports::wanted(&request.head);
    if let Err(response) = sandbox.auth.check(&request.head, port.is_some(), is_host) {
        return response;
    }
    if let Some(port) = port {
        return ports::forward(sandbox, request, port).boxed().await;
    }
    // Each in a box of its own: one future for all of them would be code that is larger by half.
    let (method, path) = (request.head.method.clone(), request.head.path.clone());
    if let Some(name) = path.strip_prefix("/process.Process/") {
        return process::call(sandbox, name, request).boxed().await;
    }
    if let Some(name) = path.strip_prefix("/filesystem.Filesystem/") {
        return filesystem::call(sandbox, name, request).boxed().await;
    }
    if path == "/files" || path.starts_with("/files/") {
        return files::call(sandbox, request).boxed().await;
    }
    if let Some(name) = path.strip_prefix("/pith/") {
        return extra::call(sandbox, name, request).boxed().await;
    }
    match (method.as_str(), path.as_str()) {
        ("GET" | "HEAD", "/health") => Response::empty(204),
        ("GET" | "HEAD", "/metrics") => metrics::metrics(sandbox, &request.head).boxed().await,
        ("GET" | "HEAD", "/envs") => init::envs(sandbox),
        ("POST", "/init") => init::init(sandbox, request, is_host).boxed().await,
        ("POST", "/freeze") => freeze::freeze(sandbox, true).await,
        ("POST", "/unfreeze") => freeze::freeze(sandbox, false).await,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox_api::sandbox::empty;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[cfg(not(feature = "policy"))]
    async fn ask(sandbox: &Arc<Sandbox>, text: &str) -> String {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let entrance = Arc::new(Entrance { sandbox: Arc::clone(sandbox), is_host: true });
        tokio::spawn(async move { http::serve(Box::new(near), &*entrance, &Limits::default()).await });
        far.write_all(text.as_bytes()).await.unwrap();
        far.shutdown().await.unwrap();
        let mut all = String::new();
        far.read_to_string(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn connections_have_a_bound_and_one_too_many_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (first, mut client) = tokio::io::duplex(1024);
        let (second, mut refused) = tokio::io::duplex(1024);
        let entrance = Arc::new(Entrance { sandbox: empty(dir.path()), is_host: true });
        let connections = futures_util::stream::iter([Ok(first), Ok(second)]);
        accept(connections, entrance, Arc::new(Semaphore::new(1))).await;
        let mut all = String::new();
        refused.read_to_string(&mut all).await.unwrap();
        assert!(all.starts_with("HTTP/1.1 503 ") && all.contains("too many connections"), "{all}");
        client.write_all(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert!(all.starts_with("HTTP/1.1 204 ") || cfg!(feature = "policy"), "{all}");
        assert_eq!(CONNECTIONS, 1024);
    }

    #[cfg(not(feature = "policy"))]
    #[tokio::test]
    async fn paths_lead_where_they_should() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = empty(dir.path());
        for (request, status) in [
            ("GET /health", "204"),
            ("GET /envs", "200"),
            ("GET /metrics", "200"),
            ("GET /nosuch", "404"),
            ("POST /health", "405"),
            ("POST /unfreeze", "200"),
            ("POST /pith/nosuch", "404"),
            ("GET /pith/fstrim", "405"),
            ("POST /pith/fstrim", "400"),
            ("POST /process.Process/Nosuch", "404"),
            ("POST /process.Process/List", "415"),
            ("OPTIONS /process.Process/List", "204"),
        ] {
            let answer = ask(&sandbox, &format!("{request} HTTP/1.1\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
        let answer = ask(&sandbox, "GET /envs HTTP/1.1\r\nOrigin: http://x\r\n\r\n").await;
        assert!(answer.contains("access-control-allow-origin: *\r\n"), "{answer}");
        let answer =
            ask(&sandbox, "OPTIONS /process.Process/List HTTP/1.1\r\nOrigin: http://x\r\n\r\n").await;
        assert!(answer.contains("access-control-allow-headers: *, Authorization\r\n"), "{answer}");
    }

    #[cfg(not(feature = "policy"))]
    #[tokio::test]
    async fn a_token_is_set_by_the_host_and_then_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = empty(dir.path());
        let post = |body: &str, token: &str| {
            let fields =
                if token.is_empty() { String::new() } else { format!("X-Access-Token: {token}\r\n") };
            format!("POST /init HTTP/1.1\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
        };
        let body = r#"{"accessToken":"t1","envVars":{"A":"1"}}"#;
        let answer = ask(&sandbox, &post(body, "")).await;
        assert!(
            answer.starts_with("HTTP/1.1 204 ") && answer.contains("x-envd-version: 0.6.13\r\n"),
            "{answer}"
        );
        assert!(ask(&sandbox, "GET /envs HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 401 "));
        let answer = ask(&sandbox, "GET /envs HTTP/1.1\r\nX-Access-Token: t1\r\n\r\n").await;
        assert!(answer.ends_with(r#"{"A":"1","E2B_SANDBOX":"true"}"#), "{answer}");
        let refused = ask(&sandbox, &post(r#"{"accessToken":"t2"}"#, "")).await;
        assert!(
            refused.starts_with("HTTP/1.1 401 ") && refused.ends_with("access token validation failed"),
            "{refused}"
        );
        let refused = ask(&sandbox, &post("", "")).await;
        assert!(refused.ends_with("access token reset not authorized"), "{refused}");
        assert!(ask(&sandbox, &post(r#"{"accessToken":"t2"}"#, "t1")).await.starts_with("HTTP/1.1 204 "));
        assert!(sandbox.auth.is_right(Some("t2")) && !sandbox.auth.is_right(Some("t1")));
        assert!(ask(&sandbox, &post("{", "t2")).await.starts_with("HTTP/1.1 400 "));
        assert!(ask(&sandbox, &post("", "t2")).await.starts_with("HTTP/1.1 204 "));
        assert!(!sandbox.auth.is_set());
    }
}
