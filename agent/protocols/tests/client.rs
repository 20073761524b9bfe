//! The client against an agent of this process, which answers as it is told to.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use protocols::agent::{
    CloseStdinRequest, ExecProcessRequest, ReadStreamRequest, ReadStreamResponse, SignalProcessRequest,
    StatsContainerRequest, StatsContainerResponse, WaitProcessRequest, WaitProcessResponse,
    WriteStreamRequest, WriteStreamResponse,
};
use protocols::agent_ttrpc::{AgentService, create_agent_service};
use protocols::client::{AgentClient, CallError, Code, Endpoint, Process, WRITE};
use protocols::{Empty, health, health_ttrpc};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex, Notify};
use ttrpc::r#async::{Server, TtrpcContext};

/// What the agent takes of one write at the most.
const TAKES: usize = 10_000;

/// An agent with one process, which writes what it reads.
#[derive(Default)]
struct Echo {
    pipe: Mutex<Pipe>,
    changed: Notify,
}

#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    is_closed: bool,
    largest: usize,
}

fn refusal<T>(code: Code, text: &str) -> ttrpc::Result<T> {
    Err(ttrpc::Error::RpcStatus(ttrpc::get_status(code, text)))
}

#[async_trait]
impl AgentService for Echo {
    async fn exec_process(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        if request.process.Args.is_empty() {
            return refusal(Code::INVALID_ARGUMENT, "a process has at least one argument");
        }
        Ok(Empty::new())
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        request: WriteStreamRequest,
    ) -> ttrpc::Result<WriteStreamResponse> {
        let mut pipe = self.pipe.lock().await;
        if pipe.is_closed {
            return refusal(Code::FAILED_PRECONDITION, "stdin is closed");
        }
        let taken = request.data.len().min(TAKES);
        pipe.largest = pipe.largest.max(request.data.len());
        pipe.bytes.extend(&request.data[..taken]);
        self.changed.notify_waiters();
        Ok(WriteStreamResponse { len: taken as u32, ..WriteStreamResponse::default() })
    }

    async fn close_stdin(&self, _: &TtrpcContext, _: CloseStdinRequest) -> ttrpc::Result<Empty> {
        self.pipe.lock().await.is_closed = true;
        self.changed.notify_waiters();
        Ok(Empty::new())
    }

    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        loop {
            let changed = self.changed.notified();
            let mut pipe = self.pipe.lock().await;
            if pipe.is_closed || !pipe.bytes.is_empty() {
                let count = pipe.bytes.len().min(request.len as usize);
                let data = pipe.bytes.drain(..count).collect();
                return Ok(ReadStreamResponse { data, ..ReadStreamResponse::default() });
            }
            drop(pipe);
            changed.await;
        }
    }

    async fn read_stderr(&self, _: &TtrpcContext, _: ReadStreamRequest) -> ttrpc::Result<ReadStreamResponse> {
        refusal(Code::INTERNAL, "the terminal is closed")
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        _: WaitProcessRequest,
    ) -> ttrpc::Result<WaitProcessResponse> {
        Ok(WaitProcessResponse { status: 7, ..WaitProcessResponse::default() })
    }

    async fn signal_process(&self, _: &TtrpcContext, _: SignalProcessRequest) -> ttrpc::Result<Empty> {
        refusal(Code::NOT_FOUND, "no such process")
    }

    async fn stats_container(
        &self,
        _: &TtrpcContext,
        _: StatsContainerRequest,
    ) -> ttrpc::Result<StatsContainerResponse> {
        std::future::pending().await
    }
}

struct Health;

#[async_trait]
impl health_ttrpc::Health for Health {}

/// The agent at a Unix socket, as long as this lives.
struct Agent {
    server: Server,
    agent: Arc<Echo>,
    directory: TempDir,
}

impl Agent {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let agent = Arc::new(Echo::default());
        let address = format!("unix://{}", directory.path().join("agent.sock").display());
        let mut server = Server::new()
            .bind(&address)
            .unwrap()
            .register_service(create_agent_service(agent.clone()))
            .register_service(health_ttrpc::create_health(Arc::new(Health)));
        server.start().await.unwrap();
        Self { server, agent, directory }
    }

    async fn client(&self) -> AgentClient {
        let socket = self.directory.path().join("agent.sock");
        AgentClient::connect(&Endpoint::Unix { socket }).await.unwrap()
    }
}

#[tokio::test]
async fn streams_carry_every_byte() {
    let agent = Agent::start().await;
    let process = Process::of(&agent.client().await, "web", "cat");
    let data: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
    let mut stdin = process.stdin();
    let feed = async {
        stdin.write_all(&data).await.unwrap();
        stdin.shutdown().await.unwrap();
        stdin.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let mut stdout = process.stdout();
    let (_, read) = tokio::join!(feed, stdout.read_to_end(&mut back));
    assert_eq!(read.unwrap(), data.len());
    assert!(back == data);
    assert_eq!(agent.agent.pipe.lock().await.largest, WRITE);
    // What is closed takes nothing more, whoever is asked.
    assert_eq!(stdin.write_all(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut another = process.stdin();
    let late = async {
        another.write_all(b"more").await?;
        another.flush().await
    };
    let error = late.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::BrokenPipe, "FAILED_PRECONDITION: stdin is closed")
    );
    // A refusal ends an output.
    assert_eq!(process.stderr().read_to_end(&mut back).await.unwrap(), 0);
    assert_eq!(process.wait().await.unwrap(), 7);
}

#[tokio::test]
async fn a_refusal_has_its_code_and_words() {
    let agent = Agent::start().await;
    let client = agent.client().await;
    let error = Process::exec(&client, &ExecProcessRequest::new()).await.map(drop).map_err(CallError::from);
    let text = "INVALID_ARGUMENT: a process has at least one argument";
    assert_eq!(error.unwrap_err().to_string(), text);
    let gone = Process::of(&client, "web", "gone").signal(15).await.map_err(CallError::from);
    assert!(matches!(gone, Err(CallError::Refused { code: Code::NOT_FOUND, .. })), "{gone:?}");
}

#[tokio::test]
async fn a_deadline_is_kept() {
    let agent = Agent::start().await;
    let client = agent.client().await;
    let context = AgentClient::within(Duration::from_millis(50));
    let answer = client.agent.stats_container(context, &StatsContainerRequest::new()).await;
    let error = CallError::from(answer.unwrap_err());
    // Either side may be the first to notice.
    let is_agents = matches!(&error, CallError::Refused { code: Code::DEADLINE_EXCEEDED, .. });
    assert!(error == CallError::Deadline || is_agents, "{error:?}");
    // The connection is as good as before.
    let request = health::CheckRequest::new();
    let answer = client.health.check(AgentClient::call(), &request).await.map_err(CallError::from);
    assert!(matches!(answer, Err(CallError::Refused { code: Code::NOT_FOUND, .. })), "{answer:?}");
}

#[tokio::test]
async fn a_deadline_is_kept_when_nobody_answers() {
    let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
    let client = AgentClient::over(ours);
    let context = AgentClient::within(Duration::from_millis(50));
    let answer = client.health.check(context, &health::CheckRequest::new()).await;
    assert_eq!(CallError::from(answer.unwrap_err()), CallError::Deadline);
}

#[tokio::test]
async fn a_lost_connection_is_an_error_of_the_streams() {
    let mut agent = Agent::start().await;
    let process = Process::of(&agent.client().await, "web", "cat");
    let mut piece = [0; 4];
    let mut stdout = process.stdout();
    let end = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        agent.server.shutdown().await.unwrap();
        agent.server.disconnect().await;
    };
    let (read, ()) = tokio::join!(stdout.read(&mut piece), end);
    let error = read.unwrap_err();
    assert!(error.to_string().starts_with("the connection to the agent is gone"), "{error}");
    // Afterwards it has ended.
    assert_eq!(stdout.read(&mut piece).await.unwrap(), 0);
}
