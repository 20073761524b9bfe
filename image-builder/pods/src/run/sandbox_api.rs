//! The guest's sandbox API at an address of this host.
//!
//! The API is an HTTP server in the agent, at a vsock port that only the host reaches. Programs on the host speak TCP, so
//! each of their connections is passed on to that port as it is: half-closes and resets included.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::RunError;
use super::network::NetworkError;
use machine::vm::{DialError, Endpoint};

/// The vsock port of the API, and the TCP port that its clients take by default.
pub const PORT: u16 = 49983;
/// The word of the kernel's command line that switches the API on.
pub(super) const SWITCH: &str = "agent.sandbox_api=vsock";
/// The most connections that are passed on at once; others wait.
const CONNECTIONS: usize = 512;
/// The longest answer to the request that sets the token.
const ANSWER: u64 = 16 << 10;
/// How long the guest may take to answer it, and to hang up once its client has.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are moved at once.
const CHUNK: usize = 64 << 10;
/// How long the guest has to be silent until it is told that its client sends no more.
const SILENCE: Duration = Duration::from_secs(1);
/// How long nothing is accepted after the host ran out of descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Where the API is wanted, and who may use it.
#[derive(Clone, PartialEq, Eq)]
pub struct SandboxApi {
    /// The address to listen at; port 0 takes any that is free.
    pub address: SocketAddr,
    /// What clients have to send as `X-Access-Token`; none lets everybody in who reaches the address.
    pub token: Option<String>,
}

impl std::fmt::Debug for SandboxApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SandboxApi").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The address, taken before the guest boots, so that one that cannot be had is known at once.
pub(super) struct Taken {
    listener: StdTcpListener,
    address: SocketAddr,
    token: Option<String>,
}

impl Taken {
    /// Takes the address.
    pub(super) fn take(wanted: &SandboxApi) -> Result<Self, NetworkError> {
        let taken = StdTcpListener::bind(wanted.address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address, token: wanted.token.clone() })
        });
        taken.map_err(|source| NetworkError::SandboxApi { address: wanted.address, source })
    }

    /// The address, with the port that was found for port 0.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes connections on to a guest from now on, until the answer is dropped. Sets the token first, if there is one.
    pub(super) async fn serve(self, guest: Endpoint) -> Result<Serving, RunError> {
        let stream = guest.dial(PORT.into()).await.map_err(|error| match error {
            DialError::Refused { .. } => RunError::NoSandboxApi,
            other => RunError::Dial(other),
        })?;
        if let Some(token) = &self.token {
            tokio::time::timeout(PATIENCE, set_token(stream, token))
                .await
                .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")))
                .map_err(|source| RunError::io("set the token of", "the guest's sandbox API", source))?;
        }
        let listener = TcpListener::from_std(self.listener)
            .map_err(|source| RunError::io("listen at", self.address, source))?;
        Ok(Serving(tokio::spawn(accept(listener, guest))))
    }
}

/// Connections that are passed on. All of them end when this is dropped.
pub(super) struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Has the guest ask everybody for `token` from now on.
async fn set_token(mut stream: UnixStream, token: &str) -> io::Result<()> {
    let body = serde_json::json!({ "accessToken": token }).to_string();
    let request = format!(
        "POST /init HTTP/1.1\r\nHost: sandbox\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("204" | "200") => Ok(()),
        _ => Err(io::Error::other(format!("it answered {status:?}"))),
    }
}

async fn accept(listener: TcpListener, guest: Endpoint) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let guest = guest.clone();
        connections.spawn(async move {
            let _place = place;
            pass_on(client, &guest).await;
        });
    }
}

/// Passes bytes on both ways until both sides have ended. Where one fails, the client sees a reset: without it, what was cut
/// off would look complete.
async fn pass_on(mut client: TcpStream, guest: &Endpoint) {
    let dialled = async {
        // Small messages are answered by small messages.
        client.set_nodelay(true)?;
        guest.dial(PORT.into()).await.map_err(io::Error::other)
    };
    let passed = match dialled.await {
        Ok(mut guest) => {
            let passed = both_ways(&mut client, &mut guest).await;
            if passed.is_err() {
                hang_up(&mut guest).await;
            }
            passed
        }
        Err(error) => Err(error),
    };
    if passed.is_err() {
        // Where even that fails, the client is gone.
        drop(client.set_zero_linger());
    }
}

/// See [`pass_on`].
///
/// That the client sends no more is not passed on at once. Devices that serve a Unix socket tell the guest in the same word
/// that nobody reads its answer either (vhost-device-vsock 0.3, Firecracker 1.13), so the guest is not told while it answers.
async fn both_ways(client: &mut TcpStream, guest: &mut UnixStream) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_guest, mut to_guest) = guest.split();
    let (sent, heard) = (AtomicU64::new(0), AtomicU64::new(0));
    let there = async {
        one_way(&mut from_client, &mut to_guest, &sent).await?;
        until_silent(&heard, SILENCE).await;
        to_guest.shutdown().await
    };
    let back = async {
        one_way(&mut from_guest, &mut to_client, &heard).await?;
        to_client.shutdown().await
    };
    tokio::pin!(there, back);
    tokio::select! {
        told = &mut there => {
            told?;
            tokio::select! {
                ended = back => ended,
                () = until_silent(&heard, PATIENCE) => Err(io::ErrorKind::TimedOut.into()),
            }
        }
        ended = &mut back => {
            ended?;
            tokio::select! {
                told = there => told,
                // The guest has hung up, and the client stays for nothing.
                () = until_silent(&sent, PATIENCE) => Ok(()),
            }
        }
    }
}

/// Moves all that comes, and counts it.
async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
        moved.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// Waits until nothing was moved for so long.
async fn until_silent(moved: &AtomicU64, silence: Duration) {
    loop {
        let before = moved.load(Ordering::Relaxed);
        tokio::time::sleep(silence).await;
        if moved.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// Tells the guest that the client is gone. What the guest has still sent is read: vhost-device-vsock tells a guest nothing when
/// its socket is closed with something unread, and the guest's end would stay open.
async fn hang_up(guest: &mut UnixStream) {
    let rest = async {
        guest.shutdown().await?;
        tokio::io::copy(guest, &mut tokio::io::sink()).await
    };
    // It ends in any case.
    drop(tokio::time::timeout(PATIENCE, rest).await);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::net::UnixListener;

    use super::*;

    const ANY: SandboxApi = SandboxApi {
        address: SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0)),
        token: None,
    };

    /// A device whose port answers `serve` for each connection.
    fn guest<F: Future<Output = ()> + Send + 'static>(
        dir: &Path,
        serve: impl Fn(UnixStream) -> F + Send + 'static,
    ) -> Endpoint {
        let socket = dir.join("vsock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; "CONNECT 49983\n".len()];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(request, b"CONNECT 49983\n");
                stream.write_all(b"OK 1\n").await.unwrap();
                tokio::spawn(serve(stream));
            }
        });
        Endpoint::Hybrid { socket }
    }

    #[tokio::test]
    async fn a_half_close_passes_through() {
        let dir = tempfile::tempdir().unwrap();
        let guest = guest(dir.path(), async |mut stream: UnixStream| {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            all.reverse();
            stream.write_all(&all).await.unwrap();
        });
        let taken = Taken::take(&ANY).unwrap();
        let address = taken.address();
        let _serving = taken.serve(guest).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"abc").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "cba");
    }

    #[tokio::test]
    async fn a_guest_that_is_gone_resets_the_client() {
        let dir = tempfile::tempdir().unwrap();
        let guest = guest(dir.path(), async |_| {});
        let Endpoint::Hybrid { socket } = &guest else { unreachable!() };
        let socket = socket.clone();
        let taken = Taken::take(&ANY).unwrap();
        let address = taken.address();
        let _serving = taken.serve(guest).await.unwrap();
        std::fs::remove_file(socket).unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut answer = Vec::new();
        let error = client.read_to_end(&mut answer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn an_answer_that_takes_a_while_reaches_a_client_that_sends_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let guest = guest(dir.path(), async |mut stream: UnixStream| {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            // A device would end the connection as soon as it hears of an end.
            let answer = async {
                for piece in ["a", "b", "c"] {
                    tokio::time::sleep(SILENCE * 3 / 4).await;
                    stream.write_all(piece.as_bytes()).await.unwrap();
                }
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.unwrap();
            };
            answer.await;
        });
        let taken = Taken::take(&ANY).unwrap();
        let address = taken.address();
        let _serving = taken.serve(guest).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"x").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "abc");
    }

    #[tokio::test]
    async fn a_client_that_dies_amid_an_answer_is_an_end_for_the_guest_and_no_reset() {
        let dir = tempfile::tempdir().unwrap();
        let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let guest = guest(dir.path(), move |mut stream: UnixStream| {
            let told = told.clone();
            async move {
                let (mut reader, mut writer) = stream.split();
                let flood = async {
                    while writer.write_all(&[7; 64 << 10]).await.is_ok() {}
                    std::future::pending::<()>().await
                };
                let mut all = Vec::new();
                let read = tokio::select! {
                    read = reader.read_to_end(&mut all) => read,
                    () = flood => unreachable!(),
                };
                told.send((read.map_err(|error| error.kind()), all)).unwrap();
            }
        });
        let taken = Taken::take(&ANY).unwrap();
        let address = taken.address();
        let _serving = taken.serve(guest).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"x").await.unwrap();
        client.readable().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        // With something unread: a reset.
        drop(client);
        // The first connection was made to see whether the guest has the API.
        assert!(ended.recv().await.is_some());
        assert_eq!(ended.recv().await.unwrap(), (Ok(1), b"x".to_vec()));
    }

    #[tokio::test]
    async fn the_token_is_set_before_anybody_is_let_in() {
        for (answer, is_fine) in [("204 No Content", true), ("401 Unauthorized", false)] {
            let dir = tempfile::tempdir().unwrap();
            let guest = guest(dir.path(), move |mut stream: UnixStream| async move {
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8(request[..length].to_vec()).unwrap();
                assert!(request.starts_with("POST /init HTTP/1.1\r\n"), "{request}");
                assert!(request.ends_with("\r\n\r\n{\"accessToken\":\"s\\\"3\"}"), "{request}");
                stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await.unwrap();
            });
            let taken = Taken::take(&SandboxApi { token: Some("s\"3".into()), ..ANY }).unwrap();
            match taken.serve(guest).await {
                Ok(_) => assert!(is_fine),
                Err(error) => {
                    let error = std::error::Error::source(&error).unwrap().to_string();
                    assert!(!is_fine && error.contains("401 Unauthorized"), "{error}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_guest_without_the_api_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("vsock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let error = Taken::take(&ANY).unwrap().serve(Endpoint::Hybrid { socket }).await.err().unwrap();
        assert!(error.to_string().contains("flavour sandbox"), "{error}");
    }

    #[test]
    fn a_taken_address_is_named() {
        let holder = StdTcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();
        let error = Taken::take(&SandboxApi { address, token: None }).err().unwrap().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
    }

    #[test]
    fn the_token_is_not_in_debug_output() {
        let api = SandboxApi { token: Some("secret".into()), ..ANY };
        assert!(!format!("{api:?}").contains("secret"));
    }
}
