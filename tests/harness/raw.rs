//! ttrpc frame by frame, for what no well-behaved client sends.
//!
//! A frame is a header of ten bytes, big-endian (length 4, stream id 4, type 1, flags 1), and its payload.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use machine::vm::Endpoint;
use protobuf::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use ttrpc::Code;
use ttrpc::proto::{Request, Response};

use crate::Guest;

/// The agent's port.
const PORT: u32 = 1024;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Type of a frame with a request.
const REQUEST: u8 = 1;
/// Type of a frame with a response.
const RESPONSE: u8 = 2;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Stream id; clients use odd ones.
    pub stream: u32,
    /// 1 is a request, 2 a response, 3 data.
    pub kind: u8,
    /// See the protocol.
    pub flags: u8,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A request. `nanoseconds` is its deadline, 0 for none.
    pub fn request(stream: u32, service: &str, method: &str, payload: Vec<u8>, nanoseconds: i64) -> Frame {
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload,
            timeout_nano: nanoseconds,
            ..Request::default()
        };
        let payload = request.write_to_bytes().expect("a request has no required fields");
        Frame { stream, kind: REQUEST, flags: 0, payload }
    }

    /// A call of Health's Check.
    pub fn check(stream: u32) -> Frame {
        Frame::request(stream, "grpc.Health", "Check", Vec::new(), 0)
    }

    /// A header.
    pub fn header(length: u32, stream: u32, kind: u8, flags: u8) -> Vec<u8> {
        let mut bytes = [length.to_be_bytes(), stream.to_be_bytes()].concat();
        bytes.extend([kind, flags]);
        bytes
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Frame::header(self.payload.len() as u32, self.stream, self.kind, self.flags);
        bytes.extend(&self.payload);
        bytes
    }

    /// Code and text of the response that it carries; [`Code::OK`] for success.
    ///
    /// # Errors
    /// When it carries none.
    pub fn status(&self) -> Result<(Code, String)> {
        ensure!(self.kind == RESPONSE, "no response: {self:?}");
        let response = Response::parse_from_bytes(&self.payload).context("decode a response")?;
        Ok(match response.status.as_ref() {
            Some(status) => (status.code(), status.message().to_owned()),
            None => (Code::OK, String::new()),
        })
    }
}

/// A connection to the agent's port that sends whatever it is given. Dropping it closes the connection.
pub struct RawClient {
    stream: UnixStream,
    /// The host's kernel is at the other end, not `vhost-device-vsock`.
    is_kernels: bool,
}

impl RawClient {
    /// Connects.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn dial(guest: &Guest) -> Result<RawClient> {
        let is_kernels = matches!(guest.vm().endpoint(), Endpoint::Vsock { .. });
        Ok(RawClient { stream: guest.vm().dial(PORT).await.context("dial the agent")?, is_kernels })
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await.context("send")
    }

    /// The next frame from the agent.
    ///
    /// # Errors
    /// When the connection ends, or a minute passes.
    pub async fn receive(&mut self) -> Result<Frame> {
        let read = async {
            let mut header = [0; 10];
            self.stream.read_exact(&mut header).await.context("read a header")?;
            let word =
                |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let mut payload = vec![0; word(0) as usize];
            self.stream.read_exact(&mut payload).await.context("read a payload")?;
            Ok(Frame { stream: word(4), kind: header[8], flags: header[9], payload })
        };
        tokio::time::timeout(PATIENCE, read).await.context("no answer in a minute")?
    }

    /// Is gone, with whatever the agent may have sent unread.
    ///
    /// With the host's kernel a close is all: the guest is told that both directions are closed. `vhost-device-vsock` 0.3
    /// overlooks the close of a client that has left something unread, and the guest would keep the connection. It sees the
    /// end of what the client sends, tells the guest that both directions are closed, and hangs up. The kernel would tell the
    /// guest of one direction only, and the guest would rightly go on answering.
    ///
    /// # Errors
    /// When the guest does not notice.
    pub async fn vanish(mut self) -> Result<()> {
        if self.is_kernels {
            return Ok(());
        }
        if self.stream.shutdown().await.is_err() {
            // The other end was faster.
            return Ok(());
        }
        let drain = async {
            let mut buffer = vec![0; 64 * 1024];
            while matches!(self.stream.read(&mut buffer).await, Ok(count) if count > 0) {}
        };
        tokio::time::timeout(PATIENCE, drain)
            .await
            .context("the guest does not notice that its client is gone")
    }

    /// Sends a frame and gives the status that comes back on its stream.
    ///
    /// # Errors
    /// When something else comes back.
    pub async fn call(&mut self, frame: &Frame) -> Result<(Code, String)> {
        self.send(&frame.bytes()).await?;
        let answer = self.receive().await?;
        ensure!(
            answer.stream == frame.stream,
            "asked on stream {}, answered on {}",
            frame.stream,
            answer.stream
        );
        answer.status()
    }
}

/// What a client that has said all it wants must see: it sends calls, shuts its sending side down, and reads an answer to each
/// before the end. Over any connection to the agent that can be closed on one side: a unix socket, the kernel's vsock.
///
/// # Errors
/// When an answer is missing, or the connection does not end.
pub async fn answered_after_half_close(mut stream: UnixStream) -> Result<()> {
    let streams = [1, 3, 5];
    let calls: Vec<u8> = streams.iter().flat_map(|stream| Frame::check(*stream).bytes()).collect();
    stream.write_all(&calls).await.context("send the calls")?;
    stream.shutdown().await.context("shut the sending side down")?;
    let mut client = RawClient { stream, is_kernels: false };
    let mut answered = Vec::new();
    for _ in streams {
        let answer = client.receive().await.with_context(|| format!("after answers to {answered:?}"))?;
        ensure!(answer.status()?.0 == Code::OK, "{answer:?}");
        answered.push(answer.stream);
    }
    answered.sort_unstable();
    ensure!(answered == streams, "answers to {answered:?}");
    let end = tokio::time::timeout(PATIENCE, client.stream.read(&mut [0])).await;
    ensure!(end.context("the connection stays open")?? == 0, "more than was asked for");
    Ok(())
}
