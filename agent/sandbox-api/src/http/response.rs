//! Answers.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::future::BoxFuture;

use super::connection::Peer;

/// Pieces of an answer's body. An error ends the connection, so that the client knows that something is missing.
pub type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What follows an answer's head.
pub enum Payload {
    /// These bytes.
    Full(Bytes),
    /// So many bytes, as they come. The stream gives exactly as many.
    Sized(u64, Chunks),
    /// Chunks, each sent as soon as it comes.
    Stream(Chunks),
    /// Nothing of the server's: the connection belongs to this function.
    Takeover(Box<dyn FnOnce(Peer) -> BoxFuture<'static, ()> + Send>),
}

/// An answer.
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Fields, without those that tell the body's length.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub payload: Payload,
    /// How long the client may take nothing of it, if that is less than the connection's own limit.
    pub patience: Option<Duration>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = match &self.payload {
            Payload::Full(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
            Payload::Sized(length, _) => format!("{length} bytes"),
            Payload::Stream(_) => "chunks".into(),
            Payload::Takeover(_) => "the connection".into(),
        };
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("payload", &payload)
            .finish()
    }
}

impl Response {
    /// An answer without a body.
    pub fn empty(status: u16) -> Response {
        Response { status, headers: Vec::new(), payload: Payload::Full(Bytes::new()), patience: None }
    }

    /// An answer with this body.
    pub fn full(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response {
        let headers = vec![("content-type", content_type.to_owned())];
        Response { status, headers, payload: Payload::Full(body.into()), patience: None }
    }

    /// A text.
    pub fn text(status: u16, text: impl Into<String>) -> Response {
        Response::full(status, "text/plain; charset=utf-8", text.into().into_bytes())
    }

    /// A JSON document.
    pub fn json(status: u16, value: &serde_json::Value) -> Response {
        Response::full(status, "application/json", value.to_string().into_bytes())
    }

    /// An error as the plain paths tell it: `{"code":404,"message":"…"}`.
    pub fn failure(status: u16, message: &str) -> Response {
        let text = serde_json::json!({ "code": status, "message": message }).to_string();
        Response::full(status, "application/json; charset=utf-8", text.into_bytes())
    }

    /// A body that comes in pieces, of a length that nobody knows.
    pub fn stream(content_type: &str, chunks: Chunks) -> Response {
        let headers = vec![("content-type", content_type.to_owned())];
        Response { status: 200, headers, payload: Payload::Stream(chunks), patience: None }
    }

    /// Gives the connection to a function.
    pub fn takeover<F>(work: impl FnOnce(Peer) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let payload = Payload::Takeover(Box::new(move |peer| Box::pin(work(peer))));
        Response { status: 0, headers: Vec::new(), payload, patience: None }
    }

    /// Adds a field. What would end its line is left out.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    /// The body, if it is there already; for tests.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.payload {
            Payload::Full(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Writes a head. `length` is that of the body, none for chunks.
pub(super) fn write_head(
    response: &Response,
    length: Option<u64>,
    is_chunked: bool,
    keeps_alive: bool,
    out: &mut BytesMut,
) {
    let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
    put(&format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status)));
    for (name, value) in &response.headers {
        // A name of a file may have anything.
        let value: String = value.chars().filter(|c| !matches!(c, '\r' | '\n' | '\0')).collect();
        put(&format!("{name}: {value}\r\n"));
    }
    match length {
        // RFC 9110, section 8.6: an answer of this kind has no length at all.
        Some(_) if response.status == 204 || response.status == 304 => {}
        Some(length) => put(&format!("content-length: {length}\r\n")),
        None if is_chunked => put("transfer-encoding: chunked\r\n"),
        None => {}
    }
    if !keeps_alive {
        put("connection: close\r\n");
    }
    put("\r\n");
}

/// The words for a status.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}
