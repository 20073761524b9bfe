//! One container of a run: created, started, followed until its end.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use protobuf::MessageField;
use protocols::agent::{CreateContainerRequest, StartContainerRequest};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::board::Board;
use super::exec::{self, ProcessId};
use super::output::{Event, Lines, Stream};
use super::pod::{Container, Pod};
use super::state::{ContainerPhase, ContainerRecord, LOG_SEGMENTS, ProcessRecord};
use super::timing::millis;
use super::{RunError, spec};
use crate::image::Image;
use crate::segments::Segments;
use crate::vm::AgentClient;

/// The record of a container that has not been started.
pub(super) fn waiting(pod: &Pod, container: &Container) -> ContainerRecord {
    ContainerRecord {
        name: container.name.clone(),
        id: spec::container_id(pod, container),
        image: container.image.clone(),
        phase: ContainerPhase::Waiting,
        exit_code: None,
        process: ProcessRecord::default(),
    }
}

/// A container that was started.
pub(super) struct Running {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) stop_signal: u32,
    pub(super) exit: watch::Receiver<Option<i32>>,
    _follower: Follower,
}

#[cfg(test)]
impl Running {
    /// A container that nobody follows; it has ended once the sender says so.
    pub(super) fn for_test(name: &str) -> (watch::Sender<Option<i32>>, Self) {
        let (publish, exit) = watch::channel(None);
        let follower = Follower(tokio::spawn(async {}));
        let running =
            Self { name: name.to_owned(), id: name.to_owned(), stop_signal: 15, exit, _follower: follower };
        (publish, running)
    }
}

/// The task that reads a container's output; it ends with the run.
struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Creates and starts a container, and begins to follow it.
pub(super) async fn start(
    pod: &Pod,
    container: &Container,
    image: &Image,
    disk: &str,
    board: &Board,
    client: &AgentClient,
) -> Result<Running, RunError> {
    let id = spec::container_id(pod, container);
    let spec = spec::spec(pod, container, &image.config)?;
    let process = &spec.Process;
    let defaults = ProcessRecord {
        env: process.Env.clone(),
        cwd: process.Cwd.clone(),
        uid: process.User.UID,
        gid: process.User.GID,
        groups: process.User.AdditionalGids.clone(),
        no_new_privileges: process.NoNewPrivileges,
    };
    let mut create = CreateContainerRequest::new();
    create.container_id = id.clone();
    create.exec_id = id.clone();
    create.storages = spec::root_storages(&id, disk);
    create.OCI = MessageField::some(spec);
    let begun = Instant::now();
    let created = client.agent.create_container(AgentClient::call(), &create).await;
    created.map_err(RunError::call("CreateContainer", &container.name))?;
    let create_ms = millis(begun.elapsed());

    let mut request = StartContainerRequest::new();
    request.container_id = id.clone();
    let begun = Instant::now();
    let started = client.agent.start_container(AgentClient::call(), &request).await;
    started.map_err(RunError::call("StartContainer", &container.name))?;
    let start_ms = millis(begun.elapsed());
    board.change(|record| {
        record.timings.create_ms.push(create_ms);
        record.timings.start_ms.push(start_ms);
    })?;
    board.change_container(&container.name, |record| {
        record.phase = ContainerPhase::Running;
        record.process = defaults;
    })?;
    board.show(Event::Started { container: container.name.clone() });

    let process = ProcessId::init(&id);
    if !container.stdin {
        exec::close_stdin(client, &process).await;
    }
    let (publish, exit) = watch::channel(None);
    let follower = tokio::spawn(follow(client.clone(), process, container.clone(), board.clone(), publish));
    let stop_signal = image.config.stop_signal().unwrap_or(15);
    Ok(Running { name: container.name.clone(), id, stop_signal, exit, _follower: Follower(follower) })
}

/// Shows and logs a container's output until it ends, then says how it ended.
async fn follow(
    client: AgentClient,
    process: ProcessId,
    container: Container,
    board: Board,
    publish: watch::Sender<Option<i32>>,
) {
    let log = Mutex::new(open_log(&container.name, &board));
    let out = show(&client, &process, Stream::Stdout, &container.name, &board, &log);
    if container.tty {
        out.await;
    } else {
        tokio::join!(out, show(&client, &process, Stream::Stderr, &container.name, &board, &log));
    }
    match exec::wait(&client, &process).await {
        Ok(code) => {
            let noted = board.change_container(&container.name, |record| {
                record.phase = ContainerPhase::Exited;
                record.exit_code = Some(code);
            });
            if let Err(error) = noted {
                board.note(error.to_string());
            }
            board.show(Event::Exited { container: container.name.clone(), code });
            publish.send_replace(Some(code));
        }
        // The connection is gone; so is the guest, which the run notices by itself.
        Err(error) => board.note(error.to_string()),
    }
}

fn open_log(container: &str, board: &Board) -> Option<Segments> {
    let log = Segments::create(board.dir().path(), container, LOG_SEGMENTS);
    log.map_err(|error| board.note(format!("{container} has no log: {error}"))).ok()
}

async fn show(
    client: &AgentClient,
    process: &ProcessId,
    stream: Stream,
    container: &str,
    board: &Board,
    log: &Mutex<Option<Segments>>,
) {
    let mut lines = Lines::default();
    while let Some(data) = exec::read(client, process, stream).await {
        keep(&data, container, board, log);
        let mut complete = Vec::new();
        lines.feed(&data, |text| complete.push(text));
        for text in complete {
            board.output(container, stream, text).await;
        }
    }
    if let Some(text) = lines.finish() {
        board.output(container, stream, text).await;
    }
}

/// Adds output to the container's log. A log that cannot be written ends there.
fn keep(data: &[u8], container: &str, board: &Board, log: &Mutex<Option<Segments>>) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Err(error)) = log.as_mut().map(|log| log.append(data)) {
        board.note(format!("the log of {container} ends here: {error}"));
        *log = None;
    }
}

/// Waits until all these containers have ended. For ever, when that will never be known.
pub(super) async fn all_ended(containers: impl Iterator<Item = &Running>) {
    for container in containers {
        if container.exit.clone().wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
