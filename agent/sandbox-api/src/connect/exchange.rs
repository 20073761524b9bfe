//! Calls: how a request becomes messages, and results become answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::code::{Code, Error};
use super::envelope::{END, Frame, Frames, encode};
use super::json::{MOST_MESSAGE, Message};
use crate::http::{Body, BodyError, Head, Request, Response};

/// Content type of unary calls.
pub const UNARY: &str = "application/json";
/// Content type of streams.
pub const STREAM: &str = "application/connect+json";

/// Most bytes of a message that is read without asking for room.
const SMALL: usize = 16 * 1024;
/// Larger messages that are read at once.
const LARGE: usize = 2;

/// How long a stream may be silent if the client does not say.
const KEEPALIVE: Duration = Duration::from_secs(90);

/// Bounds the memory of messages that are read, over all connections. Clones are the same.
#[derive(Debug, Clone)]
pub struct Incoming(Arc<Semaphore>);

impl Default for Incoming {
    fn default() -> Incoming {
        Incoming(Arc::new(Semaphore::new(LARGE)))
    }
}

impl Incoming {
    /// Room for a large message.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

/// Whether the content type is `expected`; else the answer that says what is.
fn check_type(head: &Head, expected: &str) -> Result<(), Box<Response>> {
    let sent = head.headers.get("content-type").unwrap_or_default();
    let (name, _) = sent.split_once(';').unwrap_or((sent, ""));
    if head.method != "POST" {
        return Err(Box::new(Response::text(405, "405 method not allowed\n").with("allow", "POST")));
    }
    if name.trim().eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Box::new(Response::text(415, "415 unsupported media type\n").with("accept-post", expected)))
}

fn check_encoding(head: &Head, field: &str) -> Result<(), Error> {
    match head.headers.get(field) {
        None | Some("" | "identity") => Ok(()),
        Some(other) => {
            let text = format!("unknown compression {other:?}: the only supported encoding is identity");
            Err(Error::new(Code::Unimplemented, text))
        }
    }
}

fn unreadable(error: &BodyError) -> Error {
    let code = match error {
        BodyError::TooLarge(_) => Code::ResourceExhausted,
        BodyError::Idle(_) => Code::DeadlineExceeded,
        BodyError::Ended(_) => Code::Canceled,
        BodyError::Chunks(_) => Code::InvalidArgument,
    };
    Error::new(code, error.to_string())
}

/// How long the call may take, by `Connect-Timeout-Ms`.
///
/// # Errors
/// `invalid_argument` if it is no number of at most ten digits.
pub fn deadline(head: &Head) -> Result<Option<Duration>, Error> {
    let Some(text) = head.headers.get("connect-timeout-ms") else { return Ok(None) };
    let is_number = !text.is_empty() && text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number);
    number.map(|ms| Some(Duration::from_millis(ms))).ok_or_else(|| {
        Error::invalid(format!("connect-timeout-ms: {text:?} is not a number of at most 10 digits"))
    })
}

/// Answers a unary call, as long as its client waits for it.
pub async fn in_time(head: &Head, work: BoxFuture<'_, Response>) -> Response {
    match deadline(head) {
        Ok(None) => work.await,
        Ok(Some(limit)) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| unary(Err(too_late()))),
        Err(error) => unary(Err(error)),
    }
}

/// The error of a call whose time is over.
pub fn too_late() -> Error {
    Error::new(Code::DeadlineExceeded, "context deadline exceeded")
}

/// How long a stream may be silent before it has to give a sign of life: `Keepalive-Ping-Interval` in seconds, else 90 s.
pub fn keepalive(head: &Head) -> Duration {
    let asked = head.headers.get("keepalive-ping-interval").and_then(|text| text.trim().parse::<u32>().ok());
    asked.filter(|seconds| *seconds > 0).map_or(KEEPALIVE, |seconds| Duration::from_secs(seconds.into()))
}

/// Reads the message of a unary call.
///
/// # Errors
/// The answer that says what is wrong.
pub async fn read_unary(request: &mut Request, incoming: &Incoming) -> Result<Message, Box<Response>> {
    check_type(&request.head, UNARY)?;
    let read = async {
        check_encoding(&request.head, "content-encoding")?;
        let mut all = bytes::BytesMut::new();
        if request.body.announced().is_some_and(|length| length > MOST_MESSAGE as u64) {
            return Err(unreadable(&BodyError::TooLarge(MOST_MESSAGE)));
        }
        let mut room = None;
        while let Some(chunk) = request.body.chunk().await.map_err(|error| unreadable(&error))? {
            if all.len() + chunk.len() > MOST_MESSAGE {
                return Err(unreadable(&BodyError::TooLarge(MOST_MESSAGE)));
            }
            if room.is_none() && all.len() + chunk.len() > SMALL {
                room = incoming.room().await;
            }
            all.extend_from_slice(&chunk);
        }
        Message::parse(&all)
    };
    let read = read.await;
    // Gives the connection back, which then notices when the client hangs up.
    request.body = Body::of(Bytes::new());
    read.map_err(|error| Box::new(unary(Err(error))))
}

/// The answer to a unary call.
pub fn unary(result: Result<Value, Error>) -> Response {
    match result {
        Ok(value) => Response::json(200, &value),
        Err(error) => Response::json(error.code.status(), &error.to_json()),
    }
}

/// The answer of a stream. Its status is always 200: an error is in its last frame, as is the end.
pub fn stream(messages: impl stream::Stream<Item = Result<Value, Error>> + Send + 'static) -> Response {
    framed(messages.boxed())
}

/// One function for all kinds of streams: each would have a copy of it.
fn framed(messages: BoxStream<'static, Result<Value, Error>>) -> Response {
    enum State {
        Open(BoxStream<'static, Result<Value, Error>>),
        Ended,
    }
    let frames = stream::unfold(State::Open(messages), |state| async {
        let State::Open(mut messages) = state else { return None };
        Some(match messages.next().await {
            Some(Ok(message)) => (Ok(encode(0, &message)), State::Open(messages)),
            Some(Err(error)) => (Ok(encode(END, &json!({ "error": error.to_json() }))), State::Ended),
            None => (Ok(encode(END, &json!({}))), State::Ended),
        })
    });
    Response::stream(STREAM, frames.boxed())
}

/// The messages that a client streams.
#[derive(Debug)]
pub struct ClientStream {
    body: Body,
    frames: Frames,
    incoming: Incoming,
    is_ended: bool,
}

/// Reads the messages of a call whose client streams. A server's stream has one message.
///
/// # Errors
/// The answer that says what is wrong.
pub fn client_stream(request: Request, incoming: &Incoming) -> Result<ClientStream, Box<Response>> {
    check_type(&request.head, STREAM)?;
    if let Err(error) = check_encoding(&request.head, "connect-content-encoding") {
        return Err(Box::new(stream(stream::iter([Err(error)]))));
    }
    let frames = Frames::new(MOST_MESSAGE);
    Ok(ClientStream { body: request.body, frames, incoming: incoming.clone(), is_ended: false })
}

impl ClientStream {
    /// The next message; none at the end.
    ///
    /// # Errors
    /// What is wrong with it; nothing more can be read.
    pub async fn next(&mut self) -> Result<Option<Message>, Error> {
        if self.is_ended {
            return Ok(None);
        }
        let (mut held, mut room) = (0, None);
        loop {
            match self.frames.take() {
                Ok(Some(Frame::Message(message))) => return Message::parse(&message).map(Some),
                Ok(Some(Frame::End(_))) => {
                    self.is_ended = true;
                    return Ok(None);
                }
                Ok(None) => {}
                Err(error @ super::envelope::EnvelopeError::TooLarge(_)) => {
                    return Err(Error::new(Code::ResourceExhausted, error.to_string()));
                }
                Err(error @ super::envelope::EnvelopeError::Compressed) => {
                    return Err(Error::new(Code::Unimplemented, error.to_string()));
                }
                Err(error) => return Err(Error::invalid(error.to_string())),
            }
            let chunk: Option<Bytes> = self.body.chunk().await.map_err(|error| unreadable(&error))?;
            let Some(chunk) = chunk else {
                self.is_ended = true;
                return self
                    .frames
                    .finish()
                    .map(|()| None)
                    .map_err(|error| Error::invalid(error.to_string()));
            };
            held += chunk.len();
            if room.is_none() && held > SMALL {
                room = self.incoming.room().await;
            }
            self.frames.put(&chunk);
        }
    }

    /// The only message of a server's stream. Gives the connection's reader back, which then tells when the client hangs up.
    ///
    /// # Errors
    /// What is wrong with it, `invalid_argument` if there is none or a second one.
    pub async fn only(mut self) -> Result<Message, Error> {
        let first = self.next().await?.ok_or_else(|| Error::invalid("the call has no message"))?;
        match self.next().await? {
            None => Ok(first),
            Some(_) => Err(Error::invalid("the call has more than one message")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Payload;

    fn head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::of("POST", "/process.Process/List");
        fields.iter().for_each(|(name, value)| head.headers.push(name, value));
        head
    }

    async fn text(response: Response) -> Vec<u8> {
        match response.payload {
            Payload::Full(bytes) => bytes.to_vec(),
            Payload::Stream(mut chunks) => {
                let mut all = Vec::new();
                while let Some(chunk) = chunks.next().await {
                    all.extend_from_slice(&chunk.unwrap());
                }
                all
            }
            other => panic!("{:?}", Response { status: 0, headers: vec![], payload: other, patience: None }),
        }
    }

    #[tokio::test]
    async fn unary_calls_are_read_by_their_type() {
        let json = ("content-type", "application/json; charset=utf-8");
        let read = async |fields: &[(&str, &str)], body: &'static [u8]| {
            read_unary(&mut Request::of(head(fields), body), &Incoming::default()).await
        };
        assert!(read(&[json, ("content-encoding", "identity")], b"{\"a\":1}").await.unwrap().has("a"));
        assert!(read(&[json], b"").await.is_ok());
        let refused = read(&[("content-type", "application/proto")], b"").await.unwrap_err();
        assert_eq!(refused.status, 415);
        assert!(refused.headers.contains(&("accept-post", "application/json".into())));
        assert_eq!(read(&[json, ("content-encoding", "gzip")], b"").await.unwrap_err().status, 501);
        assert_eq!(read(&[json], b"{").await.unwrap_err().status, 400);
        let get = Head { method: "GET".into(), ..head(&[json]) };
        let refused = read_unary(&mut Request::of(get, ""), &Incoming::default()).await.unwrap_err();
        assert_eq!(refused.status, 405);
    }

    #[tokio::test]
    async fn a_message_has_a_bound() {
        let body = vec![b' '; MOST_MESSAGE + 1];
        let request = &mut Request::of(head(&[("content-type", UNARY)]), body);
        let refused = read_unary(request, &Incoming::default()).await.unwrap_err();
        assert_eq!(refused.status, 429);
        assert!(String::from_utf8(text(*refused).await).unwrap().contains("resource_exhausted"));
    }

    #[tokio::test]
    async fn large_messages_wait_for_room() {
        let incoming = Incoming::default();
        let rooms = [incoming.room().await, incoming.room().await];
        let json = [("content-type", UNARY)];
        let small = &mut Request::of(head(&json), "{}");
        assert!(read_unary(small, &incoming).await.is_ok());
        let large = &mut Request::of(head(&json), format!("{{}}{}", " ".repeat(SMALL)));
        let waits = tokio::time::timeout(Duration::from_millis(50), read_unary(large, &incoming)).await;
        assert!(waits.is_err());
        drop(rooms);
        let large = &mut Request::of(head(&json), format!("{{}}{}", " ".repeat(SMALL)));
        assert!(read_unary(large, &incoming).await.is_ok());
    }

    #[tokio::test]
    async fn streams_end_by_a_frame_with_the_error_if_there_is_one() {
        let good = stream(stream::iter([Ok(json!({"event": {}}))]));
        assert_eq!((good.status, good.headers[0].1.as_str()), (200, STREAM));
        assert_eq!(text(good).await, b"\0\0\0\0\x0c{\"event\":{}}\x02\0\0\0\x02{}");
        let bad = text(stream(stream::iter([Err(Error::not_found("x")), Ok(json!({}))]))).await;
        assert_eq!(bad[0], END);
        assert_eq!(&bad[5..], br#"{"error":{"code":"not_found","message":"x"}}"#);
    }

    #[tokio::test]
    async fn clients_stream_messages() {
        let typed = head(&[("content-type", STREAM)]);
        let frames = [encode(0, &json!({"a": 1})), encode(0, &json!({"b": 2})), encode(END, &json!({}))];
        let request = |count: usize| Request::of(typed.clone(), frames[..count].concat());
        let mut messages = client_stream(request(3), &Incoming::default()).unwrap();
        assert!(messages.next().await.unwrap().unwrap().has("a"));
        assert!(messages.next().await.unwrap().unwrap().has("b"));
        assert_eq!(messages.next().await.unwrap(), None);
        assert_eq!(messages.next().await.unwrap(), None);
        let only = |count| client_stream(request(count), &Incoming::default()).unwrap().only();
        assert!(only(1).await.unwrap().has("a"));
        assert_eq!(only(0).await.unwrap_err().code, Code::InvalidArgument);
        assert_eq!(only(2).await.unwrap_err().code, Code::InvalidArgument);
        let cut = Request::of(typed.clone(), frames[0].slice(..7));
        assert!(client_stream(cut, &Incoming::default()).unwrap().next().await.is_err());
        let unary_type = Request::of(head(&[("content-type", UNARY)]), "");
        assert_eq!(client_stream(unary_type, &Incoming::default()).unwrap_err().status, 415);
    }

    #[tokio::test(start_paused = true)]
    async fn a_unary_call_has_the_time_that_its_client_gives_it() {
        let slow = || {
            Box::pin(async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                unary(Ok(json!({})))
            })
        };
        let status = async |fields: &[(&str, &str)]| in_time(&head(fields), slow()).await.status;
        assert_eq!(status(&[]).await, 200);
        assert_eq!(status(&[("connect-timeout-ms", "3000")]).await, 200);
        assert_eq!(status(&[("connect-timeout-ms", "x")]).await, 400);
        let late = in_time(&head(&[("connect-timeout-ms", "1000")]), slow()).await;
        let text = text(late).await;
        assert_eq!(text, br#"{"code":"deadline_exceeded","message":"context deadline exceeded"}"#);
    }

    #[test]
    fn silence_is_as_long_as_the_client_wants() {
        let of = |text: &str| keepalive(&head(&[("keepalive-ping-interval", text)])).as_secs();
        assert_eq!((of("50"), of(" 7 ")), (50, 7));
        for wrong in ["", "0", "-1", "1s", "99999999999"] {
            assert_eq!(of(wrong), 90, "{wrong}");
        }
        assert_eq!(keepalive(&head(&[])).as_secs(), 90);
    }

    #[test]
    fn deadlines_have_ten_digits() {
        let of = |text: &str| deadline(&head(&[("connect-timeout-ms", text)]));
        assert_eq!(of("1500"), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(of("0"), Ok(Some(Duration::ZERO)));
        assert_eq!(deadline(&head(&[])), Ok(None));
        for wrong in ["", "-1", "+1", "1s", "12345678901"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
