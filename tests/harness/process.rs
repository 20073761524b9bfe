//! Processes of a container and their streams.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use machine::vm::AgentClient;
use protobuf::{Message as _, MessageField};
use protocols::agent::ExecProcessRequest;
use protocols::client::{Process, Stream};
use protocols::oci;

use crate::raw::Frame;

/// Bytes per read and write.
const CHUNK: usize = 32 * 1024;

/// A process to be started in a running container.
#[derive(Clone)]
pub struct Exec {
    client: AgentClient,
    request: ExecProcessRequest,
    stdin: Option<Vec<u8>>,
}

impl Exec {
    pub(crate) fn new(client: AgentClient, container: &str, args: Vec<String>) -> Exec {
        // Ids must differ in one guest only; no test boots two.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let process = oci::Process {
            Args: args,
            Env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
            Cwd: "/".into(),
            User: MessageField::some(oci::User::default()),
            ..oci::Process::default()
        };
        let request = ExecProcessRequest {
            container_id: container.into(),
            exec_id: format!("exec-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            process: MessageField::some(process),
            ..ExecProcessRequest::default()
        };
        Exec { client, request, stdin: None }
    }

    /// Under this exec id.
    #[must_use]
    pub fn id(mut self, id: &str) -> Exec {
        self.request.exec_id = id.into();
        self
    }

    /// With a terminal.
    #[must_use]
    pub fn terminal(self) -> Exec {
        self.process(|process| process.Terminal = true)
    }

    /// With these bytes on stdin, which is then closed.
    #[must_use]
    pub fn stdin(mut self, data: impl Into<Vec<u8>>) -> Exec {
        self.stdin = Some(data.into());
        self
    }

    /// Changes the process.
    #[must_use]
    pub fn process(mut self, change: impl FnOnce(&mut oci::Process)) -> Exec {
        change(self.request.process.mut_or_insert_default());
        self
    }

    /// Changes the request.
    #[must_use]
    pub fn request(mut self, change: impl FnOnce(&mut ExecProcessRequest)) -> Exec {
        change(&mut self.request);
        self
    }

    /// The call that starts it, as a frame.
    pub fn call(&self, stream: u32) -> Frame {
        let payload = self.request.write_to_bytes().expect("no required fields");
        Frame::request(stream, "grpc.AgentService", "ExecProcess", payload, 0)
    }

    /// Starts it.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn start(&self) -> ttrpc::Result<Running> {
        Ok(Running { process: Process::exec(&self.client, &self.request).await? })
    }

    /// Starts it, feeds it, and waits for its end.
    ///
    /// # Errors
    /// When the agent refuses.
    pub async fn run(&self) -> Result<Finished> {
        let running = self.start().await.with_context(|| format!("exec {:?}", self.request.process.Args))?;
        let Some(data) = &self.stdin else { return running.finish().await };
        let feed = async {
            running.write_all(data).await.context("write stdin")?;
            running.close_stdin().await.context("close stdin")
        };
        let (fed, finished) = tokio::join!(feed, running.finish());
        fed?;
        finished
    }
}

/// What a process left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Exit status.
    pub status: i32,
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// What it printed, without the last line's end.
    ///
    /// # Errors
    /// When it ended with another status than 0, or printed no text.
    pub fn success(self) -> Result<String> {
        let stderr = String::from_utf8_lossy(&self.stderr).into_owned();
        let stdout = String::from_utf8(self.stdout).context("stdout is no text")?;
        ensure!(self.status == 0, "status {}, stdout {stdout:?}, stderr {stderr:?}", self.status);
        Ok(stdout.trim_end_matches('\n').to_owned())
    }
}

/// A started process.
#[derive(Clone)]
pub struct Running {
    process: Process,
}

impl Running {
    /// A process that somebody else has started; the empty exec id is the container's first one.
    pub fn of(client: &AgentClient, container: &str, exec: &str) -> Running {
        Running { process: Process::of(client, container, exec) }
    }

    /// Its exec id.
    pub fn exec_id(&self) -> &str {
        self.process.exec_id()
    }

    /// The same process over another connection.
    #[must_use]
    pub fn over(&self, client: &AgentClient) -> Running {
        Running { process: self.process.over(client) }
    }

    /// At most `len` bytes of stdout; none is the end.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn read(&self, len: usize) -> ttrpc::Result<Vec<u8>> {
        self.process.read(Stream::Stdout, len as u32).await
    }

    /// At most `len` bytes of stderr; none is the end.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn read_stderr(&self, len: usize) -> ttrpc::Result<Vec<u8>> {
        self.process.read(Stream::Stderr, len as u32).await
    }

    /// Reads stdout until it contains `text`, and gives all that was read.
    ///
    /// # Errors
    /// When stdout ends first.
    pub async fn read_until(&self, text: &str) -> Result<String> {
        let mut all = String::new();
        while !all.contains(text) {
            let part = self.read(CHUNK).await?;
            ensure!(!part.is_empty(), "stdout ended without {text:?}: {all:?}");
            all.push_str(&String::from_utf8_lossy(&part));
        }
        Ok(all)
    }

    /// Writes to stdin; gives how many bytes were taken.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn write(&self, data: &[u8]) -> ttrpc::Result<u32> {
        self.process.write(data.to_vec()).await
    }

    /// Writes all of it, in chunks.
    ///
    /// # Errors
    /// When the agent refuses, or takes less.
    pub async fn write_all(&self, data: &[u8]) -> Result<()> {
        for chunk in data.chunks(CHUNK) {
            let taken = self.write(chunk).await?;
            ensure!(taken as usize == chunk.len(), "{taken} of {} bytes were taken", chunk.len());
        }
        Ok(())
    }

    /// Closes stdin.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn close_stdin(&self) -> ttrpc::Result<()> {
        self.process.close_stdin().await
    }

    /// Sets the terminal's size.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn resize(&self, row: u32, column: u32) -> ttrpc::Result<()> {
        self.process.resize(row, column).await
    }

    /// Waits for its end, however long it takes.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn wait(&self) -> ttrpc::Result<i32> {
        self.process.wait().await
    }

    /// Reads both outputs to their ends, then waits, as shims do.
    ///
    /// # Errors
    /// When the agent refuses.
    pub async fn finish(&self) -> Result<Finished> {
        let stdout = async {
            let mut all = Vec::new();
            loop {
                match self.read(CHUNK).await {
                    Ok(part) if part.is_empty() => return Ok(all),
                    Ok(part) => all.extend(part),
                    Err(error) => return Err(error),
                }
            }
        };
        let stderr = async {
            let mut all = Vec::new();
            loop {
                match self.read_stderr(CHUNK).await {
                    Ok(part) if part.is_empty() => return Ok(all),
                    Ok(part) => all.extend(part),
                    Err(error) => return Err(error),
                }
            }
        };
        let (stdout, stderr) = tokio::join!(stdout, stderr);
        let (stdout, stderr) = (stdout.context("read stdout")?, stderr.context("read stderr")?);
        Ok(Finished { status: self.wait().await.context("wait")?, stdout, stderr })
    }
}
