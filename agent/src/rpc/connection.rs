//! One connection of a client: reads its requests, runs their calls, writes the answers.
//!
//! All of it is one task, so a call that has nothing to wait for costs one read and one write. What a call waits for wakes this
//! task, which goes on with that call alone.
//!
//! ```text
//!   client           Connection                       call
//!   request   ────►  reads a frame: one owed    ────► runs
//!   end       ────►  is known; nothing more is read
//!             ◄────  writes the answer: none owed ◄── is done
//!                    closes
//! ```
//!
//! Promises: a client that has shut its sending side down gets all answers that it is owed. One that is gone as a whole is known
//! at once or within [`LOOK`], and its calls are dropped, as ttrpc has it. Requests are held back while answers wait, see
//! [`admission`](super::admission). A call's deadline ends it. What cannot be understood is answered, and harms no other call.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use protobuf::Message as _;
use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::{Interval, MissedTickBehavior};
use ttrpc::r#async::{Service, TtrpcContext};
use ttrpc::proto::{Code, Request, Response, Status};

use super::admission::{Admission, BEGINNING};
use super::incoming::{DATA, HEADER, Incoming, LARGEST, REQUEST, response_header};
use super::status::Failure;
use crate::heap::Trimmer;

/// How often a client is looked for from which nothing is read.
const LOOK: Duration = Duration::from_secs(1);
/// Answers that wait to be written, after which no call goes on.
const ANSWERS: usize = 100;
/// Pieces that are written at once.
const PIECES: usize = 8;

/// Everything that can be called, by the name of the service.
pub(super) type Services = HashMap<String, Service>;

/// A call that runs.
type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Serves a connection to its end.
pub(super) async fn serve<S>(stream: S, services: Arc<Services>, trimmer: Trimmer)
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin,
{
    let mut connection = Connection {
        stream,
        services,
        incoming: Incoming::default(),
        calls: FuturesUnordered::new(),
        answers: VecDeque::new(),
        admission: Admission::default(),
        has_ended: false,
        looks: None,
    };
    poll_fn(|cx| connection.poll(cx)).await;
    drop(connection);
    // Calls and what they carried leave holes.
    trimmer.trim_soon();
}

struct Connection<S> {
    stream: S,
    services: Arc<Services>,
    incoming: Incoming,
    calls: FuturesUnordered<Call>,
    answers: VecDeque<Answer>,
    admission: Admission,
    /// Set once the client will send no more.
    has_ended: bool,
    /// Set while nothing is read.
    looks: Option<Interval>,
}

/// An answer on its way.
struct Answer {
    stream: u32,
    /// Whether admission counts the call.
    is_counted: bool,
    /// Header, and all of the response but the end of its payload.
    head: Vec<u8>,
    /// What large payloads have: they are written from where they are.
    body: Vec<u8>,
    /// Bytes that have left.
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + AsFd + Unpin> Connection<S> {
    /// Goes on; ready when the connection has come to its end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let is_stuck = match self.write(cx) {
                Poll::Ready(Ok(())) => false,
                // Nobody is there to read it.
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => true,
            };
            self.admission.wrote(is_stuck);
            let mut is_done = false;
            while self.answers.len() < ANSWERS
                && let Poll::Ready(Some(answer)) = self.calls.poll_next_unpin(cx)
            {
                self.answers.push_back(answer);
                is_done = true;
            }
            if is_done {
                continue;
            }
            if self.has_ended && self.admission.is_clear() && self.answers.is_empty() {
                return Poll::Ready(());
            }
            if self.has_ended || !self.admission.is_open() {
                return self.held(cx);
            }
            self.looks = None;
            while self.admission.is_open()
                && self.answers.len() < ANSWERS
                && let Some(frame) = self.incoming.next()
            {
                is_done = true;
                let (stream, length) = (frame.stream, frame.length);
                let begun = match (frame.kind, frame.payload) {
                    (_, None) => Err(refusal(
                        Code::INVALID_ARGUMENT,
                        format!("message length {length} exceed maximum message size of {LARGEST}"),
                    )),
                    _ if stream % 2 == 0 => Err(refusal(Code::INVALID_ARGUMENT, "stream id must be odd")),
                    (REQUEST, Some(payload)) => match Request::parse_from_bytes(payload) {
                        Ok(request) => {
                            let beginning = &payload[..payload.len().min(BEGINNING)];
                            self.admission.asked(stream, length, beginning);
                            Ok(call(Arc::clone(&self.services), stream, request).boxed())
                        }
                        Err(error) => Err(refusal(Code::INVALID_ARGUMENT, error.to_string())),
                    },
                    (DATA, _) => Err(refusal(Code::INVALID_ARGUMENT, "Stream is no longer active")),
                    // Of a kind that may come to be.
                    _ => continue,
                };
                match begun {
                    Ok(call) => self.calls.push(call),
                    Err(refusal) => self.answers.push_back(Answer::new(stream, false, refusal)),
                }
            }
            if is_done {
                continue;
            }
            let read = pin!(self.stream.read_buf(self.incoming.space())).poll(cx);
            match read {
                Poll::Ready(Ok(0)) => self.has_ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {
                    self.incoming.rest();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Writes what waits, as far as the client takes it.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.answers.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            let rest = self.answers.iter().flat_map(Answer::rest).filter(|piece| !piece.is_empty());
            for (slot, piece) in pieces.iter_mut().zip(rest) {
                *slot = IoSlice::new(piece);
                count += 1;
            }
            let written = Pin::new(&mut self.stream).poll_write_vectored(cx, &pieces[..count]);
            let mut written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            while let Some(answer) = self.answers.front_mut() {
                let part = written.min(answer.len() - answer.written);
                answer.written += part;
                written -= part;
                if answer.written < answer.len() {
                    break;
                }
                if answer.is_counted {
                    self.admission.answered(answer.stream);
                }
                self.answers.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing may be read, so nothing tells that the client is gone: it is looked for now and then. Ready when it is.
    fn held(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let looks = self.looks.get_or_insert_with(|| {
            let mut looks = tokio::time::interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            looks
        });
        while looks.poll_tick(cx).is_ready() {
            if is_gone(self.stream.as_fd()) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// Whether nobody is left to read what would be sent. Sending nothing asks just that: unix sockets and vsocks look at the peer
/// first.
fn is_gone(socket: BorrowedFd<'_>) -> bool {
    let sent = rustix::net::send(socket, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    !matches!(sent, Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
}

/// Runs a call to its end, or to its deadline.
async fn call(services: Arc<Services>, stream: u32, request: Request) -> Answer {
    let Some(service) = services.get(&request.service) else {
        let text = format!("{} service does not exist", request.service);
        return Answer::new(stream, true, refusal(Code::INVALID_ARGUMENT, text));
    };
    let Some(method) = service.methods.get(&request.method) else {
        let text = format!("{} method", request.method);
        return Answer::new(stream, true, refusal(Code::UNIMPLEMENTED, text));
    };
    let (name, nanoseconds) = (request.method.clone(), request.timeout_nano);
    tracing::trace!(stream, method = name, nanoseconds, "called");
    let context = TtrpcContext { timeout_nano: nanoseconds, ..TtrpcContext::default() };
    let work = AssertUnwindSafe(method.handler(context, request)).catch_unwind();
    let done = match nanoseconds {
        0 => Ok(work.await),
        // One that is below zero is none that anybody lives to see.
        _ => tokio::time::timeout(Duration::from_nanos(nanoseconds as u64), work).await,
    };
    let response = match done {
        Ok(Ok(Ok(response))) => response,
        // A method's own refusals are responses. What comes as an error is the generated code's, which only decodes and
        // encodes, and an answer of ours can always be encoded.
        Ok(Ok(Err(ttrpc::Error::Others(text)))) => {
            let failure = Failure::invalid(format!("the request of {name} cannot be read: {text}"));
            ttrpc::Error::from(failure).into()
        }
        Ok(Ok(Err(error))) => refusal(Code::UNKNOWN, error.to_string()),
        Ok(Err(_)) => ttrpc::Error::from(Failure::internal("the call panicked")).into(),
        Err(_) => refusal(Code::DEADLINE_EXCEEDED, "timeout"),
    };
    tracing::trace!(stream, method = name, code = response.status.code.value(), "answered");
    Answer::new(stream, true, response)
}

fn refusal(code: Code, text: impl Into<String>) -> Response {
    let status = Status { code: code.into(), message: text.into(), ..Status::default() };
    Response { status: Some(status).into(), ..Response::default() }
}

impl Answer {
    fn new(stream: u32, is_counted: bool, mut response: Response) -> Answer {
        let size = response.compute_size();
        if size > LARGEST as u64 {
            let text = format!("message length {size} exceed maximum message size of {LARGEST}");
            response = refusal(Code::INVALID_ARGUMENT, text);
        }
        let body = std::mem::take(&mut response.payload);
        let mut head = vec![0; HEADER];
        // What was too large is not any more, and there is nothing else that a message could fail for.
        response.write_to_vec(&mut head).expect("a response is written to memory");
        if !body.is_empty() {
            push_length(&mut head, body.len());
        }
        let header = response_header(stream, head.len() - HEADER + body.len());
        head[..HEADER].copy_from_slice(&header);
        Answer { stream, is_counted, head, body, written: 0 }
    }

    fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// What has not left yet.
    fn rest(&self) -> [&[u8]; 2] {
        let head = self.written.min(self.head.len());
        [&self.head[head..], &self.body[self.written - head..]]
    }
}

/// The tag of a response's payload (field 2, bytes) and its length.
fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    bytes.push(0x12);
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod tests;
