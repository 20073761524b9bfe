//! A process in a container, and its streams.
//!
//! The agent is asked for each piece of output, and answers when there is one. Nobody asks ahead: what is not read stays in
//! the process's pipe, and the process waits when that is full.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::agent::AgentClient;
use super::error::CallError;
use crate::agent::{
    CloseStdinRequest, ExecProcessRequest, ReadStreamRequest, SignalProcessRequest, TtyWinResizeRequest,
    WaitProcessRequest, WriteStreamRequest,
};

/// How much output is asked for at once, in bytes.
pub const READ: u32 = 64 << 10;
/// How much input is sent at once, in bytes: a message must fit into one vsock packet of devices that take no more.
pub const WRITE: usize = 24 << 10;

/// Which of a process's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output, and everything that a process with a terminal prints.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A process in a container of a guest. Clones are the same process.
#[derive(Debug, Clone)]
pub struct Process {
    client: AgentClient,
    container: String,
    exec: String,
}

impl Process {
    /// A process that was started by somebody. The empty exec id is the container's first process.
    pub fn of(client: &AgentClient, container_id: impl Into<String>, exec_id: impl Into<String>) -> Self {
        Self { client: client.clone(), container: container_id.into(), exec: exec_id.into() }
    }

    /// Starts one more process in a running container.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn exec(client: &AgentClient, request: &ExecProcessRequest) -> ttrpc::Result<Self> {
        client.agent.exec_process(AgentClient::call(), request).await?;
        Ok(Self::of(client, &request.container_id, &request.exec_id))
    }

    /// The client that its calls go through.
    pub fn client(&self) -> &AgentClient {
        &self.client
    }

    /// The id of its container.
    pub fn container_id(&self) -> &str {
        &self.container
    }

    /// Its exec id, which is empty for the container's first process.
    pub fn exec_id(&self) -> &str {
        &self.exec
    }

    /// The same process over another connection.
    #[must_use]
    pub fn over(&self, client: &AgentClient) -> Self {
        Self { client: client.clone(), ..self.clone() }
    }

    /// Waits for output, and gives at most `len` bytes of it; none is the end.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn read(&self, stream: Stream, len: u32) -> ttrpc::Result<Vec<u8>> {
        let request = ReadStreamRequest {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            len,
            ..ReadStreamRequest::default()
        };
        let answer = match stream {
            Stream::Stdout => self.client.agent.read_stdout(AgentClient::forever(), &request).await,
            Stream::Stderr => self.client.agent.read_stderr(AgentClient::forever(), &request).await,
        };
        Ok(answer?.data)
    }

    /// Writes to standard input, and gives how many bytes were taken. [`WRITE`] bytes fit through every vsock device.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn write(&self, data: Vec<u8>) -> ttrpc::Result<u32> {
        let request = WriteStreamRequest {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            data,
            ..WriteStreamRequest::default()
        };
        Ok(self.client.agent.write_stdin(AgentClient::forever(), &request).await?.len)
    }

    /// Closes standard input.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn close_stdin(&self) -> ttrpc::Result<()> {
        let request = CloseStdinRequest {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            ..CloseStdinRequest::default()
        };
        self.client.agent.close_stdin(AgentClient::call(), &request).await.map(drop)
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// The agent's refusal; a process that has ended has no terminal.
    pub async fn resize(&self, rows: u32, columns: u32) -> ttrpc::Result<()> {
        let request = TtyWinResizeRequest {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            row: rows,
            column: columns,
            ..TtyWinResizeRequest::default()
        };
        self.client.agent.tty_win_resize(AgentClient::call(), &request).await.map(drop)
    }

    /// Sends a signal, by its number.
    ///
    /// # Errors
    /// The agent's refusal; NOT_FOUND if the process has ended.
    pub async fn signal(&self, number: u32) -> ttrpc::Result<()> {
        let request = SignalProcessRequest {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            signal: number,
            ..SignalProcessRequest::default()
        };
        self.client.agent.signal_process(AgentClient::call(), &request).await.map(drop)
    }

    /// Waits for its end, however long that takes, and gives its exit status: 128 plus the number of a signal that ended it.
    /// Read both outputs to their ends before, or what they still have may be lost.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn wait(&self) -> ttrpc::Result<i32> {
        let request = WaitProcessRequest {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            ..WaitProcessRequest::default()
        };
        Ok(self.client.agent.wait_process(AgentClient::forever(), &request).await?.status)
    }

    /// Standard input. Shut it down to close it; dropping it leaves it open.
    pub fn stdin(&self) -> Input {
        Input { process: self.clone(), pending: None, closed: false }
    }

    /// Standard output.
    pub fn stdout(&self) -> Output {
        Output::new(self, Stream::Stdout)
    }

    /// Standard error. A process with a terminal has none.
    pub fn stderr(&self) -> Output {
        Output::new(self, Stream::Stderr)
    }
}

/// A call under way.
type Pending<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// An output of a process.
///
/// Agents report a closed terminal and a process that is gone as refusals: both end the output. A lost connection is an error.
/// Dropped while a call is under way, it loses the piece that the agent answers. So there is one reader of an output.
pub struct Output {
    process: Process,
    stream: Stream,
    /// What came and was not read yet, from `at` on.
    piece: Vec<u8>,
    at: usize,
    pending: Option<Pending<Vec<u8>>>,
    ended: bool,
}

impl Output {
    fn new(process: &Process, stream: Stream) -> Self {
        Self { process: process.clone(), stream, piece: Vec::new(), at: 0, pending: None, ended: false }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("process", &self.process)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Output {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.at == this.piece.len() && !this.ended {
            let (process, stream) = (&this.process, this.stream);
            let pending = this.pending.get_or_insert_with(|| -> Pending<Vec<u8>> {
                let process = process.clone();
                Box::pin(async move {
                    match process.read(stream, READ).await {
                        Err(ttrpc::Error::RpcStatus(_)) => Ok(Vec::new()),
                        other => other.map_err(|error| io::Error::other(CallError::from(error))),
                    }
                })
            });
            let answer = ready!(pending.as_mut().poll(cx));
            this.pending = None;
            this.ended = answer.as_ref().map_or(true, Vec::is_empty);
            (this.piece, this.at) = (answer?, 0);
        }
        let count = buf.remaining().min(this.piece.len() - this.at);
        buf.put_slice(&this.piece[this.at..this.at + count]);
        this.at += count;
        Poll::Ready(Ok(()))
    }
}

/// The standard input of a process.
///
/// A write returns before the agent has answered, and the next one, a flush or a shutdown tells if it failed. A process that
/// does not take its input is [`io::ErrorKind::BrokenPipe`].
pub struct Input {
    process: Process,
    pending: Option<Pending<()>>,
    closed: bool,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("process", &self.process).finish_non_exhaustive()
    }
}

impl Input {
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(pending) = &mut self.pending else { return Poll::Ready(Ok(())) };
        let sent = ready!(pending.as_mut().poll(cx));
        self.pending = None;
        Poll::Ready(sent)
    }
}

fn broken(error: ttrpc::Error) -> io::Error {
    let kind = match error {
        ttrpc::Error::RpcStatus(_) => io::ErrorKind::BrokenPipe,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, CallError::from(error))
}

/// Sends all of it. The agent may take less than it was sent at once.
async fn send(process: Process, mut data: Vec<u8>) -> io::Result<()> {
    while !data.is_empty() {
        let taken = process.write(data.clone()).await.map_err(broken)? as usize;
        if taken == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        data.drain(..taken.min(data.len()));
    }
    Ok(())
}

impl AsyncWrite for Input {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_sent(cx))?;
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = buf.len().min(WRITE);
        this.pending = Some(Box::pin(send(this.process.clone(), buf[..count].to_vec())));
        // Polled once, or it would only be sent with the next write.
        match this.poll_sent(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_sent(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_sent(cx))?;
        if !this.closed {
            this.closed = true;
            let process = this.process.clone();
            this.pending = Some(Box::pin(async move {
                match process.close_stdin().await {
                    // It has ended before.
                    Err(ttrpc::Error::RpcStatus(_)) => Ok(()),
                    other => other.map_err(broken),
                }
            }));
        }
        this.poll_sent(cx)
    }
}
