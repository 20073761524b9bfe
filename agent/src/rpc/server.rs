//! Serves the API on vsock, or on a unix socket for clients without a VM in between.
//!
//! On vsock only the host is let in: containers share the guest and could reach its ports over loopback. And no write is
//! larger than [`LARGEST_WRITE`]: current guest kernels cut larger ones into several descriptors, which some VMMs'
//! vsock devices lose.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use protocols::{agent_ttrpc, health_ttrpc};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixListener;
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockListener};
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use super::health::HealthService;
use super::service::Service;
use crate::app::Agent;
use crate::config::{Cid, ServerAddr};

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The address cannot be used.
    #[error("listen on {address}")]
    Listen {
        /// Address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The server does not start.
    #[error("start the API server")]
    Start(#[source] ttrpc::Error),
}

/// Most bytes in one write to a vsock.
const LARGEST_WRITE: usize = 28 * 1024;
/// Pause after a failed accept, as when descriptors have run out.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Starts to serve. Accepts calls when this returns.
pub(crate) async fn serve(agent: &Arc<Agent>, address: &ServerAddr) -> Result<Server, ServeError> {
    let failed = |source| ServeError::Listen { address: address.to_string(), source };
    let listener = match address {
        ServerAddr::Vsock { cid, port } => {
            let cid = match cid {
                Cid::Any => tokio_vsock::VMADDR_CID_ANY,
                Cid::Is(cid) => *cid,
            };
            let listener = VsockListener::bind(VsockAddr::new(cid, *port)).map_err(failed)?;
            Listener::new(from_the_host(listener))
        }
        ServerAddr::Unix(path) => {
            // A socket file that an earlier run left would be in the way.
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
            Listener::new(local(UnixListener::bind(path).map_err(failed)?))
        }
    };
    let service = agent_ttrpc::create_agent_service(Arc::new(Service::new(Arc::clone(agent))));
    let health = health_ttrpc::create_health(Arc::new(HealthService));
    let mut server = Server::new().add_listener(listener).register_service(service).register_service(health);
    server.start().await.map_err(ServeError::Start)?;
    Ok(server)
}

fn from_the_host(listener: VsockListener) -> impl Stream<Item = io::Result<Limited<tokio_vsock::VsockStream>>> + Send {
    stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) if peer.cid() == VMADDR_CID_HOST => {
                    return Some((Ok(Limited(stream)), listener));
                }
                Ok((_, peer)) => {
                    tracing::warn!(cid = peer.cid(), "refused a connection that is not the host's");
                }
                Err(error) => back_off(&error).await,
            }
        }
    })
}

fn local(listener: UnixListener) -> impl Stream<Item = io::Result<tokio::net::UnixStream>> + Send {
    stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(stream), listener)),
                Err(error) => back_off(&error).await,
            }
        }
    })
}

async fn back_off(error: &io::Error) {
    tracing::error!(%error, "cannot accept a connection");
    tokio::time::sleep(BACK_OFF).await;
}

/// A stream that writes at most [`LARGEST_WRITE`] bytes at once.
struct Limited<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let part = &data[..data.len().min(LARGEST_WRITE)];
        Pin::new(&mut self.0).poll_write(cx, part)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn writes_are_cut_and_nothing_is_lost() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut limited = Limited(near);
        let data: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        assert_eq!(limited.write(&data).await.unwrap(), LARGEST_WRITE);
        limited.write_all(&data[LARGEST_WRITE..]).await.unwrap();
        drop(limited);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert!(all == data);
    }
}
