//! Listening: on vsock for the host only, or on a unix socket for clients without a VM in between.
//!
//! Containers share the guest and could reach its vsock ports over loopback, so a connection from any other context id
//! than the host's is refused. And no write to a vsock is larger than [`LARGEST_WRITE`]: current guest kernels cut larger
//! ones into several descriptors, which some VMMs' vsock devices lose.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

use crate::config::Cid;

/// Most bytes in one write to a vsock.
const LARGEST_WRITE: usize = 28 * 1024;
/// Pause after a failed accept, as when descriptors have run out.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Connections of the host to a vsock port.
pub(crate) fn vsock(
    cid: Cid,
    port: u32,
) -> io::Result<impl Stream<Item = io::Result<Limited<VsockStream>>> + Send> {
    let cid = match cid {
        Cid::Any => tokio_vsock::VMADDR_CID_ANY,
        Cid::Is(cid) => cid,
    };
    Ok(from_the_host(VsockListener::bind(VsockAddr::new(cid, port))?))
}

/// Whether a host could reach this guest by vsock: whether a device gave it a context id. One may still be plugged in.
pub(crate) fn has_vsock_device() -> bool {
    vsock::get_local_cid().is_ok_and(|cid| cid != tokio_vsock::VMADDR_CID_ANY)
}

/// Connections to a unix socket. A socket file that an earlier run left is replaced.
pub(crate) fn unix(path: &Path) -> io::Result<impl Stream<Item = io::Result<UnixStream>> + Send + use<>> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok(local(UnixListener::bind(path)?))
}

fn from_the_host(listener: VsockListener) -> impl Stream<Item = io::Result<Limited<VsockStream>>> + Send {
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

fn local(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> + Send {
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
pub(crate) struct Limited<S>(S);

impl Limited<VsockStream> {
    /// The host's port of this connection.
    pub(crate) fn peer_port(&self) -> io::Result<u32> {
        Ok(self.0.peer_addr()?.port())
    }
}

impl<S: AsFd> AsFd for Limited<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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
