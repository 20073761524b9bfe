//! The Connect protocol in JSON: unary calls and streams (<https://connectrpc.com/docs/protocol>).
//!
//! There is no protobuf: the SDKs speak JSON only. A [`Message`] is read leniently, as the JSON mapping of protobuf asks for.

mod code;
mod envelope;
mod exchange;
mod json;

pub use code::{Code, Error};
pub use envelope::{END, EnvelopeError, Frame, Frames, encode};
pub use exchange::{
    ClientStream, Incoming, STREAM, UNARY, client_stream, deadline, in_time, keepalive, read_unary, stream,
    too_late, unary,
};
pub use json::{MOST_MESSAGE, Message, decode_base64, encode_base64};
