//! Clients that have said all they want: they send requests, shut their sending side down, and read the answers.
//!
//! The server takes the end of what it reads for the end of the connection: it drops the calls that run and what it has yet
//! to write. So the end is held back here, as long as the client is owed an answer and is there to read it. A client that is
//! gone as a whole is known at once, so its calls end as ever.
//!
//! And requests are held back while answers wait, see [`admission`](super::admission).
//!
//! ```text
//!   client          Answered                            server
//!   request   ────► reads a frame: one owed      ────►  call
//!   end       ────► held back while one is owed
//!             ◄──── passes a response: none owed ◄────  answer
//!                   end                          ────►  closes
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Interval, MissedTickBehavior};

use super::admission::{Admission, BEGINNING};
use crate::heap::Trimmer;

/// How often a client is looked for from which nothing is read.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes that are read at once where less is wanted: more than most requests have.
const AHEAD: usize = 2048;
/// Bytes of a frame's header: length 4, stream id 4, type 1, flags 1; big-endian.
const HEADER: usize = 10;
/// Type of a frame with a request.
pub(super) const REQUEST: u8 = 1;
/// Type of a frame with a response.
const RESPONSE: u8 = 2;

/// A connection whose end is seen only when all requests that were read are answered.
pub(crate) struct Answered<S> {
    stream: S,
    asked: Frames,
    answered: Frames,
    admission: Admission,
    /// What was read from the stream and not asked for yet: small requests come with one read in place of two or three.
    ahead: Vec<u8>,
    /// How much of it the server has.
    taken: usize,
    /// For the end: calls and what they carried leave holes.
    trimmer: Trimmer,
    /// Set from the end of file on.
    has_ended: bool,
    /// Set while nothing is read.
    looks: Option<Interval>,
    reader: Option<Waker>,
}

impl<S> Answered<S> {
    pub(crate) fn new(stream: S, trimmer: Trimmer) -> Answered<S> {
        Answered {
            stream,
            asked: Frames::default(),
            answered: Frames::default(),
            admission: Admission::default(),
            ahead: Vec::new(),
            taken: 0,
            trimmer,
            has_ended: false,
            looks: None,
            reader: None,
        }
    }

    fn was_asked(&mut self, bytes: &[u8]) {
        let admission = &mut self.admission;
        self.asked.pass(bytes, |frame| {
            if frame.kind == REQUEST {
                admission.asked(frame.stream, frame.length, frame.beginning);
            }
        });
    }

    fn has_answered(&mut self, bytes: &[u8]) {
        let admission = &mut self.admission;
        self.answered.pass(bytes, |frame| {
            if frame.kind == RESPONSE {
                admission.answered(frame.stream);
            }
        });
    }

    /// Whether the server may go on to read: the next bytes, or the end.
    fn may_read(&self) -> bool {
        if self.has_ended {
            self.admission.is_clear()
        } else {
            !self.asked.is_between() || self.admission.is_open()
        }
    }
}

impl<S> Drop for Answered<S> {
    fn drop(&mut self) {
        self.trimmer.trim_soon();
    }
}

impl<S: AsFd> Answered<S> {
    /// Waits until the server may go on to read; tells whether the client is gone instead.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while !self.may_read() {
            let looks = self.looks.get_or_insert_with(|| {
                let mut looks = tokio::time::interval(LOOK);
                looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                looks
            });
            if looks.poll_tick(cx).is_pending() {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if is_gone(self.stream.as_fd()) {
                return Poll::Ready(true);
            }
        }
        self.looks = None;
        Poll::Ready(false)
    }
}

impl<S: AsyncRead + Unpin> Answered<S> {
    /// Reads what is wanted, by way of a buffer if it is little.
    fn poll_ahead(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.taken == self.ahead.len() {
            // One that is idle costs no buffer.
            (self.ahead, self.taken) = (Vec::new(), 0);
            if buf.remaining() >= AHEAD {
                return Pin::new(&mut self.stream).poll_read(cx, buf);
            }
            let mut piece = [std::mem::MaybeUninit::uninit(); AHEAD];
            let mut piece = ReadBuf::uninit(&mut piece);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
            let (now, later) = piece.filled().split_at(piece.filled().len().min(buf.remaining()));
            buf.put_slice(now);
            self.ahead.extend_from_slice(later);
            return Poll::Ready(Ok(()));
        }
        let rest = &self.ahead[self.taken..];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsFd + Unpin> AsyncRead for Answered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.has_ended {
            if ready!(this.poll_held(cx)) {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            let room = buf.remaining();
            ready!(this.poll_ahead(cx, buf))?;
            let count = buf.filled().len() - before;
            if count > 0 || room == 0 {
                this.was_asked(&buf.filled()[before..]);
                return Poll::Ready(Ok(()));
            }
            this.has_ended = true;
        }
        this.poll_held(cx).map(|_| Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Answered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.stream).poll_write(cx, data);
        this.admission.wrote(written.is_pending());
        let count = ready!(written)?;
        this.has_answered(&data[..count]);
        if this.may_read()
            && let Some(reader) = this.reader.take()
        {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Whether nobody is left to read what would be sent. Sending nothing asks just that: unix sockets and vsocks look at the peer
/// first.
fn is_gone(socket: BorrowedFd<'_>) -> bool {
    let sent = rustix::net::send(socket, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    !matches!(sent, Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
}

/// Finds the frames in a stream of bytes that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER],
    /// Bytes of the header that are there.
    known: usize,
    /// Bytes of the payload that are yet to come.
    rest: usize,
    /// The payload's first bytes.
    beginning: Vec<u8>,
}

/// A frame that has gone by.
pub(super) struct Frame<'a> {
    pub(super) stream: u32,
    pub(super) kind: u8,
    /// Of its payload.
    pub(super) length: usize,
    pub(super) beginning: &'a [u8],
}

impl Frames {
    /// Whether no frame is under way.
    pub(super) fn is_between(&self) -> bool {
        self.known == 0
    }

    /// Takes the next bytes; `ended` hears of each frame that ends in them.
    pub(super) fn pass(&mut self, mut bytes: &[u8], mut ended: impl FnMut(Frame<'_>)) {
        while !bytes.is_empty() {
            if self.known < HEADER {
                let count = bytes.len().min(HEADER - self.known);
                self.header[self.known..self.known + count].copy_from_slice(&bytes[..count]);
                self.known += count;
                bytes = &bytes[count..];
                if self.known < HEADER {
                    return;
                }
                self.rest = self.length();
                self.beginning.clear();
            }
            let (part, later) = bytes.split_at(bytes.len().min(self.rest));
            self.beginning.extend_from_slice(&part[..part.len().min(BEGINNING - self.beginning.len())]);
            self.rest -= part.len();
            bytes = later;
            if self.rest == 0 {
                self.known = 0;
                let (stream, kind, length) = (self.word(4), self.header[8], self.length());
                ended(Frame { stream, kind, length, beginning: &self.beginning });
            }
        }
    }

    fn length(&self) -> usize {
        usize::try_from(self.word(0)).unwrap_or(usize::MAX)
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = self.header[at..].first_chunk().copied();
        u32::from_be_bytes(bytes.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use protocols::health_ttrpc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;
    use ttrpc::asynchronous::Server;
    use ttrpc::asynchronous::transport::Listener;

    use crate::rpc::health::HealthService;

    fn frame(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(stream.to_be_bytes());
        bytes.extend([kind, 0]);
        bytes.extend(payload);
        bytes
    }

    /// A connection whose agent's side has read a request, and the client's side, which has shut its sending down.
    async fn half_closed() -> (Answered<UnixStream>, UnixStream) {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(&frame(1, REQUEST, b"what?")).await.unwrap();
        far.shutdown().await.unwrap();
        let mut near = Answered::new(near, Trimmer::default());
        let mut request = [0; HEADER + 5];
        near.read_exact(&mut request).await.unwrap();
        (near, far)
    }

    async fn end_within(near: &mut Answered<UnixStream>, time: Duration) -> bool {
        matches!(tokio::time::timeout(time, near.read(&mut [0; 8])).await, Ok(Ok(0)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_comes_with_the_last_answer() {
        let (mut near, mut far) = half_closed().await;
        assert!(!end_within(&mut near, Duration::from_secs(3600)).await);
        near.write_all(&frame(1, RESPONSE, b"th")[..11]).await.unwrap();
        assert!(!end_within(&mut near, Duration::from_secs(3600)).await, "half an answer is none");
        near.write_all(b"h").await.unwrap();
        assert!(end_within(&mut near, LOOK / 4).await);
        drop(near);
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.len(), HEADER + 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_sleeps_is_woken_by_the_answer() {
        let (near, _far) = half_closed().await;
        let (mut read, mut write) = tokio::io::split(near);
        let reader = tokio::spawn(async move { read.read(&mut [0; 8]).await.unwrap() });
        tokio::time::sleep(Duration::from_millis(10)).await;
        write.write_all(&frame(1, RESPONSE, b"")).await.unwrap();
        assert_eq!(tokio::time::timeout(LOOK / 2, reader).await.unwrap().unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_gone_is_owed_nothing() {
        let (mut near, far) = half_closed().await;
        assert!(!end_within(&mut near, LOOK * 5).await);
        drop(far);
        assert!(end_within(&mut near, LOOK * 2).await);
        // One that leaves without a word in between is known at once.
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(&frame(1, REQUEST, b"")).await.unwrap();
        drop(far);
        let mut near = Answered::new(near, Trimmer::default());
        near.read_exact(&mut [0; HEADER]).await.unwrap();
        assert!(end_within(&mut near, LOOK / 4).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asked_nothing_ends_at_once() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(&frame(1, 3, b"data")).await.unwrap();
        far.shutdown().await.unwrap();
        let mut near = Answered::new(near, Trimmer::default());
        near.read_exact(&mut [0; HEADER + 4]).await.unwrap();
        assert!(end_within(&mut near, LOOK / 4).await);
    }

    #[test]
    fn frames_are_found_whatever_the_pieces() {
        let stream =
            [frame(1, REQUEST, b"abc"), frame(7, 3, b""), frame(u32::MAX, RESPONSE, &[9; 300])].concat();
        for size in 1..stream.len() {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for piece in stream.chunks(size) {
                frames.pass(piece, |frame| seen.push((frame.stream, frame.kind)));
            }
            assert_eq!(seen, [(1, REQUEST), (7, 3), (u32::MAX, RESPONSE)], "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn the_server_answers_all_that_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let listener = crate::listen::unix(&path).unwrap();
        let mut server = Server::new()
            .add_listener(Listener::new(super::super::server::answered(listener, Trimmer::default())))
            .register_service(health_ttrpc::create_health(Arc::new(HealthService)));
        server.start().await.unwrap();
        let request = ttrpc::proto::Request {
            service: "grpc.Health".into(),
            method: "Check".into(),
            ..Default::default()
        };
        let request = protobuf::Message::write_to_bytes(&request).unwrap();
        for count in [1, 1, 1, 20] {
            let mut client = UnixStream::connect(&path).await.unwrap();
            let all: Vec<u8> = (0..count).flat_map(|n| frame(2 * n + 1, REQUEST, &request)).collect();
            client.write_all(&all).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answers = Vec::new();
            client.read_to_end(&mut answers).await.unwrap();
            let (mut frames, mut seen) = (Frames::default(), 0);
            frames.pass(&answers, |frame| seen += u32::from(frame.kind == RESPONSE));
            assert_eq!(seen, count);
        }
    }

    /// Answers with much, and counts how often.
    struct Large(Arc<std::sync::atomic::AtomicUsize>);

    #[async_trait::async_trait]
    impl ttrpc::r#async::MethodHandler for Large {
        async fn handler(
            &self,
            _: ttrpc::r#async::TtrpcContext,
            _: ttrpc::proto::Request,
        ) -> ttrpc::Result<ttrpc::proto::Response> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(ttrpc::proto::Response { payload: vec![7; 40_000], ..Default::default() })
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_its_answers_lying_is_served_no_further() {
        const REQUESTS: u32 = 3000;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let handler: Box<dyn ttrpc::r#async::MethodHandler + Send + Sync> =
            Box::new(Large(Arc::clone(&calls)));
        let methods = [("GetMetrics".to_owned(), handler)].into();
        let service = ttrpc::r#async::Service { methods, streams: Default::default() };
        let listener = crate::listen::unix(&path).unwrap();
        let mut server = Server::new()
            .add_listener(Listener::new(super::super::server::answered(listener, Trimmer::default())))
            .register_service([("grpc.AgentService".to_owned(), service)].into());
        server.start().await.unwrap();
        let request = ttrpc::proto::Request {
            service: "grpc.AgentService".into(),
            method: "GetMetrics".into(),
            ..Default::default()
        };
        let request = protobuf::Message::write_to_bytes(&request).unwrap();
        let (mut answers, mut requests) = UnixStream::connect(&path).await.unwrap().into_split();
        let sent = tokio::spawn(async move {
            let all: Vec<u8> = (0..REQUESTS).flat_map(|n| frame(2 * n + 1, REQUEST, &request)).collect();
            requests.write_all(&all).await.unwrap();
            requests
        });
        let served = || calls.load(std::sync::atomic::Ordering::Relaxed);
        let mut before = usize::MAX;
        while served() != before {
            before = served();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        // What the socket's buffer takes, and what may run at once.
        assert!(served() < 40, "{} calls were made for a client that reads nothing", served());
        // It has only to read.
        let (mut frames, mut seen, mut buffer) = (Frames::default(), 0, vec![0; 1 << 16]);
        while seen < REQUESTS {
            let count = answers.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the connection ended after {seen} answers");
            frames.pass(&buffer[..count], |frame| seen += u32::from(frame.kind == RESPONSE));
        }
        assert_eq!(served(), REQUESTS as usize);
        drop(sent.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_gone_is_noticed_though_nothing_is_read() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut near = Answered::new(near, Trimmer::default());
        for stream in 0..8 {
            // Requests without a method count among the large.
            far.write_all(&frame(stream, REQUEST, b"")).await.unwrap();
            near.read_exact(&mut [0; HEADER]).await.unwrap();
        }
        far.write_all(&frame(9, REQUEST, b"")).await.unwrap();
        let read = tokio::time::timeout(LOOK * 5, near.read(&mut [0; HEADER])).await;
        assert!(read.is_err(), "a ninth was read");
        drop(far);
        assert!(end_within(&mut near, LOOK * 2).await);
    }
}
