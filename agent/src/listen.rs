//! Listening: on vsock for the host only, or on a unix socket for clients without a VM in between.
//!
//! Containers share the guest and could reach its vsock ports over loopback, so a connection from any other context id
//! than the host's is refused. And no write to a vsock is larger than [`LARGEST_WRITE`]: current guest kernels cut larger
//! ones into several descriptors, which some VMMs' vsock devices lose.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(feature = "sandbox-api")]
use tokio::net::{TcpListener, TcpStream};
use tokio::net::{UnixListener, UnixStream};
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

use crate::config::Cid;
use crate::sys;

/// Most bytes in one write to a vsock. Kernels take some 31 KiB for one piece (`virtio_vsock_alloc_skb` of Linux 6.12). A device
/// that is told to have room for less than that, as `vhost-device-vsock` must be, takes 28 KiB: of a larger write the rest waits
/// until the device has told that there is room again.
pub(crate) const LARGEST_WRITE: usize = 28 * 1024;
/// Connections that wait to be accepted, at most: as many as the sandbox API serves at once.
const BACKLOG: i32 = 1024;
/// Pause after a failed accept, as when descriptors have run out.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What a connection of the host's tells about the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// The host has made one.
    Arrived,
    /// One was reset. A host that hangs up does not do that, only a vsock device that begins anew: after a restore, and with
    /// some monitors after a save (`virtio_vsock_reset_sock` of Linux 6.12).
    Reset,
}

/// Is told of signs. Must be quick: it is called on the runtime's thread.
pub(crate) type Watcher = Arc<dyn Fn(Sign) + Send + Sync>;

/// Connections of the host to a vsock port. The watcher is told of an arrival before anybody reads from the connection.
pub(crate) fn vsock(
    cid: Cid,
    port: u32,
    watcher: Option<Watcher>,
) -> io::Result<impl Stream<Item = io::Result<Limited<UnixStream>>> + Send> {
    let cid = match cid {
        Cid::Any => tokio_vsock::VMADDR_CID_ANY,
        Cid::Is(cid) => cid,
    };
    let listener = VsockListener::bind(VsockAddr::new(cid, port))?;
    deepen(&listener)?;
    Ok(from_the_host(listener, watcher))
}

/// Lets [`BACKLOG`] connections wait. A vsock resets those that find no place, and the library asks for 128.
fn deepen(listener: impl AsFd) -> io::Result<()> {
    // The kernel takes another number for a socket that listens already (`vsock_listen` of Linux 6.12).
    Ok(rustix::net::listen(listener, BACKLOG)?)
}

/// Whether a host could reach this guest by vsock: whether a device gave it a context id. One may still be plugged in.
pub(crate) fn has_vsock_device() -> bool {
    vsock::get_local_cid().is_ok_and(|cid| cid != tokio_vsock::VMADDR_CID_ANY)
}

/// Connections to a unix socket. A socket file that an earlier run left is replaced.
pub(crate) fn unix(path: &Path) -> io::Result<impl Stream<Item = io::Result<UnixStream>> + Send + use<>> {
    // Anything else at the path stays; then it cannot be had.
    if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    Ok(local(UnixListener::bind(path)?))
}

/// Connections to a TCP port.
#[cfg(feature = "sandbox-api")]
pub(crate) fn tcp(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> + Send {
    stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Answers are written as a whole, so there is nothing to wait for.
                    drop(stream.set_nodelay(true));
                    return Some((Ok(stream), listener));
                }
                Err(error) => back_off(&error).await,
            }
        }
    })
}

fn from_the_host(
    listener: VsockListener,
    watcher: Option<Watcher>,
) -> impl Stream<Item = io::Result<Limited<UnixStream>>> + Send {
    stream::unfold((listener, watcher), |(listener, watcher)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) if peer.cid() == VMADDR_CID_HOST => {
                    let reset = reset_of(&stream);
                    let taken = over(stream).map(|stream| {
                        let port = peer.port();
                        let stream = Limited { stream, port, watcher: watcher.clone(), reset };
                        stream.tell(Sign::Arrived);
                        stream
                    });
                    return Some((taken, (listener, watcher)));
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

/// The runtime's own type for streams over a vsock: it only polls, reads and writes, which is the same for all. It has what
/// the library's type lacks: writes of several pieces, and no second read after one that brought all there was.
fn over(stream: VsockStream) -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(stream.as_fd().try_clone_to_owned()?);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

async fn back_off(error: &io::Error) {
    tracing::error!(%error, "cannot accept a connection");
    tokio::time::sleep(BACK_OFF).await;
}

/// A stream that writes at most [`LARGEST_WRITE`] bytes at once, and whose readers hear of a reset.
pub(crate) struct Limited<S> {
    stream: S,
    /// The host's port of this connection.
    port: u32,
    watcher: Option<Watcher>,
    reset: Reset,
}

/// Whether a connection was reset.
enum Reset {
    /// Not yet, when last asked. Ready when it is.
    Watched(Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
    /// It was.
    Seen,
    /// Nobody can tell before the connection is used.
    Unwatched,
}

/// Watches a connection for a reset.
///
/// After a reset, vsock reports EPOLLERR and EPOLLOUT but not EPOLLIN (`vsock_poll`, Linux 6.12; TCP reports all three), and
/// the runtime wakes readers for EPOLLIN and EPOLLHUP only. Without this a reader would wait for ever. The descriptor is a
/// copy, because a descriptor can be registered with the runtime once only.
fn reset_of(stream: &VsockStream) -> Reset {
    match stream.as_fd().try_clone_to_owned().and_then(sys::reset::error_pending) {
        Ok(reset) => Reset::Watched(Box::pin(reset)),
        Err(error) => {
            tracing::warn!(%error, "a reset of a connection may not be noticed");
            Reset::Unwatched
        }
    }
}

impl Reset {
    /// Whether it has happened. If not, the task is woken when it does.
    fn is_seen(&mut self, cx: &mut Context<'_>) -> bool {
        if let Reset::Watched(reset) = self
            && reset.as_mut().poll(cx).is_ready()
        {
            *self = Reset::Seen;
        }
        matches!(self, Reset::Seen)
    }
}

/// Whether a connection ended because its transport began anew. A reader that waits in the kernel gets ECONNRESET then; one
/// that asks afterwards, as an event loop does, gets ENOTCONN (net/vmw_vsock/af_vsock.c, Linux 6.12).
pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected)
}

impl<S> Limited<S> {
    /// The host's port of this connection.
    pub(crate) fn peer_port(&self) -> u32 {
        self.port
    }

    fn tell(&self, sign: Sign) {
        if let Some(watcher) = &self.watcher {
            watcher(sign);
        }
    }

    /// Tells the watcher, if that is what happened.
    fn notice<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result
            && is_reset(error)
        {
            self.tell(Sign::Reset);
        }
        result
    }
}

impl<S: AsFd> AsFd for Limited<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() && self.reset.is_seen(cx) {
            read = Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.notice(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let part = &data[..data.len().min(LARGEST_WRITE)];
        let written = Pin::new(&mut self.stream).poll_write(cx, part);
        self.notice(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut cut = [IoSlice::new(&[]); 8];
        let (mut left, mut count) = (LARGEST_WRITE, 0);
        for (slot, piece) in cut.iter_mut().zip(pieces) {
            let part = &piece[..piece.len().min(left)];
            *slot = IoSlice::new(part);
            left -= part.len();
            count += 1;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, &cut[..count]);
        self.notice(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn only_a_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (dir.path().join("agent.sock"), dir.path().join("file"));
        drop(unix(&socket).unwrap());
        drop(unix(&socket).unwrap());
        std::fs::write(&file, "something else").unwrap();
        assert_eq!(unix(&file).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "something else");
    }

    #[test]
    fn many_connections_can_wait() {
        // A unix socket refuses what finds no place, as a vsock does.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let flags = rustix::net::SocketFlags::NONBLOCK;
        let socket = || {
            let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
            rustix::net::socket_with(family, kind, flags, None).unwrap()
        };
        let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
        let listener = socket();
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 8).unwrap();
        let mut waiting = Vec::new();
        let mut connect = || {
            let client = socket();
            rustix::net::connect(&client, &address).map(|()| waiting.push(client))
        };
        while connect().is_ok() {}
        deepen(&listener).unwrap();
        assert!((0..200).all(|_| connect().is_ok()));
    }

    #[tokio::test]
    async fn writes_are_cut_and_nothing_is_lost() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut limited = Limited { stream: near, port: 0, watcher: None, reset: Reset::Unwatched };
        let data: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        assert_eq!(limited.write(&data).await.unwrap(), LARGEST_WRITE);
        limited.write_all(&data[LARGEST_WRITE..]).await.unwrap();
        drop(limited);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert!(all == data);
    }

    /// A connection whose device has begun anew.
    struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    /// Writes down what it is told.
    fn watcher() -> (Arc<Mutex<Vec<Sign>>>, Watcher) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&told);
        (told, Arc::new(move |sign| notes.lock().unwrap().push(sign)))
    }

    #[tokio::test]
    async fn a_reset_is_told_and_an_end_is_not() {
        let (told, watcher) = watcher();
        let mut ended = Limited {
            stream: &b""[..],
            port: 0,
            watcher: Some(Arc::clone(&watcher)),
            reset: Reset::Unwatched,
        };
        assert_eq!(ended.read(&mut [0]).await.unwrap(), 0);
        assert!(told.lock().unwrap().is_empty());
        let mut broken = Limited { stream: Broken, port: 0, watcher: Some(watcher), reset: Reset::Unwatched };
        assert!(broken.read(&mut [0]).await.is_err());
        assert_eq!(*told.lock().unwrap(), [Sign::Reset]);
    }

    #[tokio::test]
    async fn a_reader_that_the_runtime_does_not_wake_hears_of_a_reset() {
        let (told, watcher) = watcher();
        let (reset, happens) = tokio::sync::oneshot::channel::<()>();
        let reset_of_it = Reset::Watched(Box::pin(async move { drop(happens.await) }));
        let (near, mut far) = tokio::io::duplex(64);
        let mut limited = Limited { stream: near, port: 0, watcher: Some(watcher), reset: reset_of_it };
        far.write_all(b"a").await.unwrap();
        assert_eq!(limited.read(&mut [0; 4]).await.unwrap(), 1);
        let later = async {
            tokio::task::yield_now().await;
            far.write_all(b"before").await.unwrap();
            drop(reset);
        };
        let mut buffer = [0; 6];
        let (read, ()) = tokio::join!(limited.read_exact(&mut buffer), later);
        // What came before the reset is read before it.
        assert_eq!((read.unwrap(), &buffer), (6, b"before"));
        for time in 1..=2 {
            let error = limited.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(*told.lock().unwrap(), vec![Sign::Reset; time]);
        }
    }
}
