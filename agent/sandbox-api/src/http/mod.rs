//! A server for HTTP/1.1 (RFC 9112): requests with bodies of known length or in chunks, answers of both kinds, connections that
//! are kept.
//!
//! [`serve`] works on one connection. A [`Service`] gets a [`Request`], whose body comes piece by piece, and gives a
//! [`Response`], whose body may come piece by piece as well.

mod body;
mod chunked;
mod connection;
mod head;
mod query;
mod reader;
mod response;

pub use body::{Body, BodyError};
pub use chunked::{ChunkError, Chunked, Step};
pub use connection::{Limits, Peer, Service, refuse_all, serve};
pub use head::{Framing, Head, HeadError, Headers, MOST_BYTES, MOST_FIELDS, parse};
pub use query::{Query, decode as percent_decode};
pub use response::{Chunks, Payload, Response, reason};

use tokio::io::{AsyncRead, AsyncWrite};

/// A request.
#[derive(Debug)]
pub struct Request {
    /// What it asks for.
    pub head: Head,
    /// Its body. Whoever has it can read on while the answer is under way.
    pub body: Body,
}

impl Request {
    /// A request that no connection brought, for tests.
    pub fn of(head: Head, body: impl Into<bytes::Bytes>) -> Request {
        Request { head, body: Body::of(body.into()) }
    }
}

/// A connection's stream of bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
