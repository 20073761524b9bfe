//! The host's end of a guest's vsock.
//!
//! Two ways lead to a port: AF_VSOCK where the host has `/dev/vhost-vsock`, and the *hybrid* handshake over a Unix
//! socket (connect, `CONNECT <port>\n`, read `OK …\n`) that `vhost-device-vsock` shares with Firecracker, Cloud
//! Hypervisor and Dragonball. Both give a connected byte stream, and in principle the port that the guest sees it come
//! from. `vhost-device-vsock` 0.3 answers with the guest's own port instead. A third way has no ports: a Unix socket that
//! leads to the agent, for example through a proxy.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, getsockname, socket};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::error::DialError;

/// How long one dial may take.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// The longest answer to CONNECT that makes sense: `OK <u32>`.
const ANSWER: usize = 64;

/// Where a guest's vsock ports are reached from this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Endpoint {
    /// By the hybrid handshake over a Unix socket.
    Hybrid {
        /// The socket.
        socket: PathBuf,
    },
    /// By AF_VSOCK.
    Vsock {
        /// The guest's context id.
        cid: u32,
    },
    /// By a Unix socket at which the agent answers at once. There is no handshake, and every port is this one.
    Unix {
        /// The socket.
        socket: PathBuf,
    },
}

impl Endpoint {
    /// Opens a connection to a port. The stream is of the Unix type whichever way it was made: nothing but reading,
    /// writing and closing is done with it.
    ///
    /// # Errors
    /// [`DialError::Refused`] when nothing listens there; [`DialError::Timeout`] when nobody answers within 10 s.
    pub async fn dial(&self, port: u32) -> Result<UnixStream, DialError> {
        Ok(self.dial_from(port).await?.0)
    }

    /// As [`Endpoint::dial`], with the port from which the guest sees the connection come; none where the device does
    /// not tell.
    ///
    /// # Errors
    /// As [`Endpoint::dial`].
    pub async fn dial_from(&self, port: u32) -> Result<(UnixStream, Option<u32>), DialError> {
        let dialled = async {
            match self {
                Self::Hybrid { socket } => hybrid_handshake(connected(socket).await?, port).await,
                Self::Unix { socket } => Ok((connected(socket).await?, None)),
                Self::Vsock { cid } => vsock_connect(*cid, port).await,
            }
        };
        tokio::time::timeout(DIAL_DEADLINE, dialled)
            .await
            .unwrap_or(Err(DialError::Timeout { port, seconds: DIAL_DEADLINE.as_secs() }))
    }
}

async fn connected(socket: &Path) -> Result<UnixStream, DialError> {
    let stream = UnixStream::connect(socket).await;
    stream.map_err(|source| DialError::io("connect to", socket.display(), source))
}

/// Asks the device at the other end of `stream` for a guest port. Gives the host's port too, where it is told.
async fn hybrid_handshake(mut stream: UnixStream, port: u32) -> Result<(UnixStream, Option<u32>), DialError> {
    let failed = |source| DialError::io("dial", format!("vsock port {port}"), source);
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::with_capacity(ANSWER);
    // One byte at a time: whatever follows the newline belongs to the connection.
    loop {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(0) => return Err(DialError::Refused { port }),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(DialError::Refused { port });
            }
            Err(source) => return Err(failed(source)),
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => answer.push(byte[0]),
        }
        if answer.len() > ANSWER {
            break;
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if answer == "OK" || answer.starts_with("OK ") {
        let told = answer.strip_prefix("OK ").and_then(|number| number.trim().parse().ok());
        Ok((stream, told.filter(|told| *told != port)))
    } else {
        Err(DialError::Handshake { port, answer })
    }
}

async fn vsock_connect(cid: u32, port: u32) -> Result<(UnixStream, Option<u32>), DialError> {
    let connected = tokio::task::spawn_blocking(move || -> io::Result<(StdUnixStream, u32)> {
        let fd: OwnedFd = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        connect(fd.as_raw_fd(), &VsockAddr::new(cid, port))?;
        let from = getsockname::<VsockAddr>(fd.as_raw_fd())?.port();
        let stream = StdUnixStream::from(fd);
        stream.set_nonblocking(true)?;
        Ok((stream, from))
    })
    .await
    .unwrap_or_else(|_| Err(io::Error::other("the connecting thread died")));
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused => DialError::Refused { port },
        _ => DialError::io("dial", format!("vsock port {port} of CID {cid}"), source),
    };
    let (stream, from) = connected.map_err(failed)?;
    Ok((UnixStream::from_std(stream).map_err(failed)?, Some(from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that reads one line and answers `answer`, then echoes.
    async fn dialled(answer: &'static [u8]) -> (Result<(UnixStream, Option<u32>), DialError>, String) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let device = tokio::spawn(async move {
            let mut theirs = theirs;
            let mut request = vec![0; "CONNECT 1024\n".len()];
            theirs.read_exact(&mut request).await.unwrap();
            theirs.write_all(answer).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        let result = hybrid_handshake(ours, 1024).await;
        (result, device.await.unwrap())
    }

    #[tokio::test]
    async fn handshake_leaves_what_follows_to_the_reader() {
        let (result, request) = dialled(b"OK 1073741824\nhello").await;
        assert_eq!(request, "CONNECT 1024\n");
        let (mut stream, from) = result.unwrap();
        assert_eq!(from, Some(1_073_741_824));
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "hello");
    }

    #[tokio::test]
    async fn the_guests_own_port_is_not_taken_for_the_hosts() {
        for answer in [&b"OK 1024\n"[..], b"OK\n"] {
            let (result, _) = dialled(answer).await;
            assert_eq!(result.unwrap().1, None);
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let (result, _) = dialled(b"").await;
        assert!(matches!(result, Err(DialError::Refused { port: 1024 })));
    }

    #[tokio::test]
    async fn another_answer_is_an_error() {
        let (result, _) = dialled(b"EINVAL\n").await;
        assert!(matches!(result, Err(DialError::Handshake { answer, .. }) if answer == "EINVAL"));
    }

    #[tokio::test]
    async fn an_endless_answer_is_an_error() {
        let (result, _) = dialled(&[b'O'; 100]).await;
        assert!(matches!(result, Err(DialError::Handshake { .. })));
    }

    #[tokio::test]
    async fn a_missing_socket_is_named() {
        let endpoint = Endpoint::Hybrid { socket: "/nonexistent/vsock.sock".into() };
        let error = endpoint.dial(1024).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/vsock.sock"));
    }

    #[test]
    fn endpoints_survive_json() {
        let unix = Endpoint::Unix { socket: "/run/a".into() };
        for endpoint in [Endpoint::Hybrid { socket: "/run/v".into() }, Endpoint::Vsock { cid: 77 }, unix] {
            let text = serde_json::to_string(&endpoint).unwrap();
            assert_eq!(serde_json::from_str::<Endpoint>(&text).unwrap(), endpoint);
        }
    }
}
