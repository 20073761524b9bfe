//! The course of one connection: head, body, answer, and again.
//!
//! ```text
//! wait for a head ─ too late, too large, malformed? ─ answer, close
//!   │ lend the reader to the body
//!   ▼
//! the service works ◄── body, read by whoever has it
//!   │ answer
//!   ▼
//! write it, meanwhile look whether the client hangs up ─ what nobody read of the body: a little is read, else close
//! ```

use std::io;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::body::{Body, Progress, Returned, discard};
use super::head::{Framing, Head, HeadError, MOST_BYTES, parse};
use super::reader::{CHUNK, Reader};
use super::response::{Chunks, Payload, Response, write_head};
use super::{Io, Request};

/// What answers requests.
pub trait Service: Send + Sync {
    /// Answers one. Dropped when the client has hung up: what must be finished is done by a task of its own.
    fn call(&self, request: Request) -> BoxFuture<'static, Response>;
}

/// How long things may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A kept connection, until its next request begins. Clients keep theirs for up to 300 s.
    pub idle: Duration,
    /// A head, from its first byte on.
    pub head: Duration,
    /// Silence inside of a body.
    pub body: Duration,
    /// Silence of a client that does not read an answer.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { idle: IDLE, head: HEAD, body: BODY, write: WRITE }
    }
}

const IDLE: Duration = Duration::from_secs(640);
const HEAD: Duration = Duration::from_secs(30);
const BODY: Duration = Duration::from_secs(640);
const WRITE: Duration = Duration::from_secs(640);
/// Bytes of a body that nobody wants which are read all the same, so that the connection can be kept.
const DISCARDED: usize = 256 * 1024;
/// How long that may take.
const DISCARDING: Duration = Duration::from_secs(2);
/// Bytes of pieces that are sent together.
const TOGETHER: usize = 16 * 1024;
/// How long a request of a client that said that it sends no more may still take to be answered.
const GRACE: Duration = Duration::from_secs(5);

/// A connection that was taken over.
pub struct Peer {
    /// The head of the request.
    pub head: Head,
    /// What the client has sent after the head, as far as it was read.
    pub buffered: Bytes,
    /// What it will send.
    pub reader: ReadHalf<Box<dyn Io>>,
    /// What it will get.
    pub writer: WriteHalf<Box<dyn Io>>,
}

/// Serves one connection until it ends.
pub async fn serve(io: Box<dyn Io>, service: &dyn Service, limits: &Limits) {
    let (half, mut writer) = tokio::io::split(io);
    let mut reader = Reader::new(half);
    loop {
        let next = next_head(&mut reader, limits).await;
        let (head, framing) = match next
            .and_then(|head| head.map(|head| Ok((head.framing()?, head))).transpose())
        {
            Ok(Some((framing, head))) => (head, framing),
            Ok(None) => return,
            Err(error) => return refuse(writer, reader, (error.status(), error.to_string()), limits).await,
        };
        if head.headers.has_word("expect", "100-continue")
            && framing != Framing::Length(0)
            && put(&mut writer, b"HTTP/1.1 100 Continue\r\n\r\n", limits.write).await.is_err()
        {
            return;
        }
        // Without a body there is nothing to lend, and a hang-up is noticed whatever the service does with the request.
        let (body, lent) = match framing {
            Framing::Length(0) => (Body::of(Bytes::new()), Lent::Back(reader, Progress::Done)),
            _ => {
                let (body, returned) = Body::lend(reader, framing, limits.body);
                (body, Lent::Out(returned))
            }
        };
        let mut connection = Connection { lent, writer, write: limits.write };
        let (keeps_alive, is_head, is_11) = (head.keeps_alive(), head.method == "HEAD", head.is_11);
        let Some(response) = connection.answer(service, Request { head: head.clone(), body }).await else {
            return;
        };
        if let Payload::Takeover(work) = response.payload {
            if let Some((reader, _)) = connection.lent.take().await {
                let (reader, buffered) = reader.into_parts();
                work(Peer { head, buffered: buffered.freeze(), reader, writer: connection.writer }).await;
            }
            return;
        }
        match connection.send(response, keeps_alive, is_head, is_11).await {
            Some((kept, back)) => (writer, reader) = (kept, back),
            None => return,
        }
    }
}

/// Tells a client that there are too many connections.
pub async fn refuse_all(io: Box<dyn Io>) {
    let (half, writer) = tokio::io::split(io);
    let text = "there are too many connections";
    refuse(writer, Reader::new(half), (503, text.to_owned()), &Limits::default()).await;
}

/// Waits for a head; none at the end of the connection.
async fn next_head(reader: &mut Reader, limits: &Limits) -> Result<Option<Head>, HeadError> {
    if reader.buffer.is_empty() && !matches!(timeout(limits.idle, reader.wait()).await, Ok(Ok(1..))) {
        return Ok(None);
    }
    let rest = async {
        let mut seen = 0;
        loop {
            // Read once it is complete: a client that sends it byte by byte must not cost a reading for each.
            if is_complete(&reader.buffer, seen) || reader.buffer.len() > MOST_BYTES {
                // Empty lines before a request are passed over (RFC 9112, section 2.2): httparse does.
                if let Some((head, length)) = parse(&reader.buffer)? {
                    drop(reader.buffer.split_to(length));
                    return Ok(Some(head));
                }
            }
            seen = reader.buffer.len();
            match reader.fill(4096).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Ok(None),
            }
        }
    };
    // A client that is too slow for a head would not read an answer either.
    timeout(limits.head, rest).await.unwrap_or(Ok(None))
}

/// Whether an empty line ends behind the first `seen` bytes.
fn is_complete(bytes: &[u8], seen: usize) -> bool {
    let from = seen.saturating_sub(2);
    bytes[from..].windows(2).any(|pair| pair == b"\n\n")
        || bytes[from..].windows(3).any(|end| end == b"\n\r\n")
}

/// The reader, or whoever has it.
enum Lent {
    Out(Returned),
    Back(Reader, Progress),
    Lost,
}

impl Lent {
    /// Waits until it is back. Nothing is lost if it is given up.
    async fn wait(&mut self) -> Option<(&mut Reader, &Progress)> {
        if let Lent::Out(returned) = self {
            *self = match returned.await {
                Ok((reader, progress)) => Lent::Back(reader, progress),
                Err(_) => Lent::Lost,
            };
        }
        match self {
            Lent::Back(reader, progress) => Some((reader, progress)),
            _ => None,
        }
    }

    /// It, if it is back or about to be.
    async fn take(mut self) -> Option<(Reader, Progress)> {
        self.wait().await?;
        match self {
            Lent::Back(reader, progress) => Some((reader, progress)),
            _ => None,
        }
    }

    /// Ends when the client has hung up: with the end of what it sends, or an error. Pending while its body is read by
    /// somebody, who sees that himself, and after it has sent more.
    async fn hung_up(&mut self) -> io::Result<()> {
        let Some((reader, progress)) = self.wait().await else { return std::future::pending().await };
        if !matches!(progress, Progress::Done) || !reader.buffer.is_empty() {
            return std::future::pending().await;
        }
        match reader.wait().await {
            Ok(0) => Ok(()),
            Ok(_) => std::future::pending().await,
            Err(error) => Err(error),
        }
    }

    /// Whether the rest of the body is so short that it can be passed over.
    fn is_short(&mut self) -> bool {
        if let Lent::Out(returned) = self {
            match returned.try_recv() {
                Ok((reader, progress)) => *self = Lent::Back(reader, progress),
                // Somebody still reads, and may come to the end.
                Err(tokio::sync::oneshot::error::TryRecvError::Empty) => return true,
                Err(tokio::sync::oneshot::error::TryRecvError::Closed) => *self = Lent::Lost,
            }
        }
        match self {
            Lent::Back(_, Progress::Length(left)) => *left <= DISCARDED as u64,
            Lent::Back(_, Progress::Chunked(_) | Progress::Done) => true,
            _ => false,
        }
    }
}

/// A connection while it has a request.
struct Connection {
    lent: Lent,
    writer: WriteHalf<Box<dyn Io>>,
    /// How long the client may take nothing of an answer.
    write: Duration,
}

impl Connection {
    /// Lets the service work; none if the client went away meanwhile.
    async fn answer(&mut self, service: &dyn Service, request: Request) -> Option<Response> {
        let work = AssertUnwindSafe(async { service.call(request).await }).catch_unwind();
        tokio::pin!(work);
        let answer = tokio::select! {
            biased;
            answer = &mut work => answer,
            hung_up = self.lent.hung_up() => match hung_up {
                // Some close their sending side after a request, and wait for the answer.
                Ok(()) => timeout(GRACE, work).await.ok()?,
                Err(_) => return None,
            },
        };
        Some(answer.unwrap_or_else(|_| Response::failure(500, "answering the request panicked")))
    }

    /// Sends the answer, and gets the connection ready for the next request; none if it ends here.
    async fn send(
        mut self,
        response: Response,
        keeps_alive: bool,
        is_head: bool,
        is_11: bool,
    ) -> Option<(WriteHalf<Box<dyn Io>>, Reader)> {
        self.write = response.patience.map_or(self.write, |patience| patience.min(self.write));
        let is_chunked = is_11 && matches!(response.payload, Payload::Stream(_));
        // Without chunks, a stream of unknown length ends with the connection.
        let can_go_on = is_chunked || is_head || !matches!(response.payload, Payload::Stream(_));
        let keeps_alive = keeps_alive && can_go_on && self.lent.is_short();
        let mut head = BytesMut::new();
        let length = match &response.payload {
            Payload::Full(bytes) => Some(bytes.len() as u64),
            Payload::Sized(length, _) => Some(*length),
            Payload::Stream(_) | Payload::Takeover(_) => None,
        };
        write_head(&response, length, is_chunked, keeps_alive, &mut head);
        match response.payload {
            Payload::Full(bytes) => {
                if !is_head {
                    head.extend_from_slice(&bytes);
                }
                put(&mut self.writer, &head, self.write).await.ok()?;
            }
            Payload::Sized(_, chunks) | Payload::Stream(chunks) => {
                if is_head {
                    put(&mut self.writer, &head, self.write).await.ok()?;
                } else {
                    self.pieces(head, chunks, length, is_chunked).await.ok()?;
                }
            }
            Payload::Takeover(_) => return None,
        }
        let (mut reader, mut progress) = self.lent.take().await?;
        if keeps_alive
            && matches!(timeout(DISCARDING, discard(&mut reader, &mut progress, DISCARDED)).await, Ok(true))
        {
            return Some((self.writer, reader));
        }
        linger(self.writer, reader).await;
        None
    }

    /// Sends what is waiting in `out`, and pieces until they end, or the client goes away. Small pieces that are there already go
    /// together: each write is a packet, and wakes the other side.
    async fn pieces(
        &mut self,
        mut out: BytesMut,
        mut chunks: Chunks,
        length: Option<u64>,
        is_chunked: bool,
    ) -> io::Result<()> {
        let (mut left, mut is_half_closed) = (length, false);
        loop {
            let ready = if out.len() < TOGETHER { chunks.next().now_or_never() } else { None };
            let next = match ready {
                Some(next) => next,
                None => {
                    self.flush(&mut out).await?;
                    tokio::select! {
                        biased;
                        next = chunks.next() => next,
                        hung_up = self.lent.hung_up(), if !is_half_closed => {
                            hung_up?;
                            if length.is_none() {
                                // It may never end, and nobody may be there to hear it.
                                return Err(io::ErrorKind::ConnectionAborted.into());
                            }
                            is_half_closed = true;
                            continue;
                        }
                    }
                }
            };
            let piece = match next {
                Some(Ok(piece)) if piece.is_empty() => continue,
                Some(Ok(piece)) => piece,
                Some(Err(error)) => {
                    self.flush(&mut out).await?;
                    return Err(error);
                }
                None => break,
            };
            if let Some(left) = &mut left {
                // More would be taken for the next answer.
                *left = left.checked_sub(piece.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
            }
            if is_chunked {
                out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                out.extend_from_slice(&piece);
                out.extend_from_slice(b"\r\n");
            } else if piece.len() < TOGETHER {
                out.extend_from_slice(&piece);
            } else {
                self.flush(&mut out).await?;
                put(&mut self.writer, &piece, self.write).await?;
            }
        }
        if is_chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        self.flush(&mut out).await?;
        if left.is_some_and(|left| left > 0) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    async fn flush(&mut self, out: &mut BytesMut) -> io::Result<()> {
        // A stream that is silent afterwards holds nothing.
        put(&mut self.writer, &std::mem::take(out), self.write).await
    }
}

/// Writes all of it. A client that takes nothing for too long is given up.
async fn put(writer: &mut WriteHalf<Box<dyn Io>>, mut bytes: &[u8], write: Duration) -> io::Result<()> {
    while !bytes.is_empty() {
        match timeout(write, writer.write(bytes)).await {
            Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(Ok(count)) => bytes = &bytes[count..],
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    Ok(())
}

/// Refuses a request whose head or body is not understood, and ends the connection.
async fn refuse(
    mut writer: WriteHalf<Box<dyn Io>>,
    reader: Reader,
    (status, message): (u16, String),
    limits: &Limits,
) {
    let answer = Response::failure(status, &message);
    let (mut text, body) = (BytesMut::new(), answer.bytes().cloned().unwrap_or_default());
    write_head(&answer, Some(body.len() as u64), false, false, &mut text);
    text.extend_from_slice(&body);
    if put(&mut writer, &text, limits.write).await.is_ok() {
        linger(writer, reader).await;
    }
}

/// Closes the sending side, and reads on for a moment: an end with unread bytes would be a reset, which can overtake the answer.
async fn linger(mut writer: WriteHalf<Box<dyn Io>>, mut reader: Reader) {
    let rest = async {
        writer.shutdown().await?;
        let mut read = 0;
        while read < DISCARDED {
            reader.buffer.clear();
            match reader.fill(CHUNK).await? {
                0 => break,
                count => read += count,
            }
        }
        io::Result::Ok(())
    };
    // It ends in any case.
    drop(timeout(DISCARDING, rest).await);
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod tests;
