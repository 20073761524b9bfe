//! Copies files of a container. The agent's own program does this, in an extra container that sees the same files.
//!
//! So the image needs no program for it. Promises that the extra container is removed again. Its output is treated as hostile,
//! like everything that comes from the guest.

use std::time::{SystemTime, UNIX_EPOCH};

use protobuf::MessageField;
use protocols::agent::{CreateContainerRequest, RemoveContainerRequest, StartContainerRequest};
use tokio::io::{AsyncReadExt as _, DuplexStream};

use super::RunError;
use super::exec::{ExecCommand, ExecStreams, exec};
use super::spec::{self, COMPANION};
use super::state::{ContainerRecord, PodRecord, ProcessRecord};
use machine::vm::AgentClient;

/// The most that is kept of what it says beside files.
const MOST_WORDS: u64 = 16 << 10;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A device, a FIFO, a socket.
    Other,
    /// Nothing, but the directory for it is there.
    Nothing,
}

/// A container in the guest that sees the files of another one.
#[derive(Debug)]
pub struct Courier {
    client: AgentClient,
    record: ContainerRecord,
}

impl Courier {
    /// Starts it.
    ///
    /// # Errors
    /// When the container has not been started, or the agent refuses.
    pub async fn start(
        client: &AgentClient,
        pod: &PodRecord,
        container: &ContainerRecord,
    ) -> Result<Self, RunError> {
        let what = || format!("the files of {}", container.name);
        if container.mounts.is_empty() {
            let source = std::io::Error::other("the container has not been started yet");
            return Err(RunError::io("reach", what(), source));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let number = format!("{}-{now}", std::process::id());
        let (id, spec, storages) = spec::courier(&pod.name, &number, &container.mounts);
        let mut create = CreateContainerRequest::new();
        create.container_id.clone_from(&id);
        create.exec_id.clone_from(&id);
        create.storages = storages;
        create.OCI = MessageField::some(spec);
        let created = client.agent.create_container(AgentClient::call(), &create).await;
        created.map_err(RunError::call("CreateContainer", what()))?;
        let process =
            ProcessRecord { cwd: "/".to_owned(), no_new_privileges: true, ..ProcessRecord::default() };
        let record = ContainerRecord { name: what(), id, process, ..ContainerRecord::default() };
        let courier = Self { client: client.clone(), record };
        let mut start = StartContainerRequest::new();
        start.container_id.clone_from(&courier.record.id);
        let started = client.agent.start_container(AgentClient::call(), &start).await;
        if let Err(error) = started {
            courier.end().await;
            return Err(RunError::call("StartContainer", what())(error));
        }
        Ok(courier)
    }

    /// Does what `order` says. Answers with the status, and what it said on standard error.
    ///
    /// # Errors
    /// When the guest goes away.
    pub async fn run(&self, order: &[&str], streams: ExecStreams) -> Result<(i32, String), RunError> {
        let (words, theirs) = tokio::io::duplex(4 << 10);
        let streams = ExecStreams { stderr: Box::new(theirs), ..streams };
        let args = std::iter::once(COMPANION).chain(order.iter().copied()).map(str::to_owned).collect();
        let command = ExecCommand { args, ..ExecCommand::default() };
        let (code, words) = tokio::join!(exec(&self.client, &self.record, &command, streams), heard(words));
        Ok((code?, String::from_utf8_lossy(&words).trim_end().to_owned()))
    }

    /// Looks what is at a path of the container.
    ///
    /// # Errors
    /// When the directory for it is not there, or the guest goes away.
    pub async fn look(&self, path: &str) -> Result<There, RunError> {
        let (answer, theirs) = tokio::io::duplex(4 << 10);
        let streams = ExecStreams { stdout: Box::new(theirs), ..ExecStreams::none() };
        let order = ["look", path];
        let (done, answer) = tokio::join!(self.run(&order, streams), heard(answer));
        let (code, words) = done?;
        match (code, answer.first()) {
            (0, Some(b'd')) => Ok(There::Directory),
            (0, Some(b'f')) => Ok(There::File),
            (0, Some(b'o')) => Ok(There::Other),
            (0, Some(b'-')) => Ok(There::Nothing),
            _ => {
                let subject = format!("{path} among {}", self.record.name);
                Err(RunError::io("find", subject, std::io::Error::other(words)))
            }
        }
    }

    /// Removes it.
    pub async fn end(self) {
        let mut request = RemoveContainerRequest::new();
        request.container_id.clone_from(&self.record.id);
        // A guest that is gone has removed it, too.
        drop(self.client.agent.remove_container(AgentClient::call(), &request).await);
    }
}

/// What is said, up to [`MOST_WORDS`]. What is more is read and dropped, or its writer would wait.
async fn heard(mut words: DuplexStream) -> Vec<u8> {
    let mut text = Vec::new();
    (&mut words).take(MOST_WORDS).read_to_end(&mut text).await.ok();
    tokio::io::copy(&mut words, &mut tokio::io::sink()).await.ok();
    text
}
