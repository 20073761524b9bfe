//! One container in the guest: created, started, followed until its end, asked how it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protobuf::MessageField;
use protocols::agent::{
    CreateContainerRequest, GetDiagnosticDataRequest, RemoveContainerRequest, StartContainerRequest, Storage,
};
use protocols::oci;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::board::Board;
use super::exec;
use super::output::{Event, Lines, Stream};
use super::pod::{Container, Handler, Pod, Role};
use super::state::{ContainerPhase, ContainerRecord, ContainerRole, LOG_SEGMENTS, ProcessRecord};
use super::supervise::{Actions, State};
use super::timing::millis;
use super::{RunError, companion, spec};
use machine::vm::AgentClient;
use protocols::client::Process;
use store::segments::Segments;

/// How long the guest may take to deliver a signal. One that does not answer in this time is switched off.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// The most bytes of a container's last words, as Kubernetes has it.
const MOST_WORDS: usize = 4096;
/// How much of a log stands for the last words that a container did not leave, as Kubernetes has it.
const WORDS_FROM_LOG: usize = 2048;
/// What asks for a container's last words.
const TERMINATION_LOG: &str = "termination-log";

/// The record of a container that has not been started.
pub(super) fn waiting(pod: &Pod, container: &Container) -> ContainerRecord {
    ContainerRecord {
        name: container.name.clone(),
        id: spec::container_id(pod, container),
        image: container.image.clone(),
        role: match container.role {
            Role::Main => ContainerRole::Main,
            Role::Init => ContainerRole::Init,
            Role::Sidecar => ContainerRole::Sidecar,
        },
        probed: container.probes.startup.is_some() || container.probes.readiness.is_some(),
        tty: container.tty,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        ..ContainerRecord::default()
    }
}

/// A container with everything that was decided about it before the machine was started.
#[derive(Debug, Clone)]
pub(super) struct Blueprint {
    pub(super) container: Container,
    pub(super) id: String,
    pub(super) spec: oci::Spec,
    pub(super) home_is_default: bool,
    pub(super) storages: Vec<Storage>,
    pub(super) stop_signal: u32,
    /// Whether it is in the pid namespace of the pod's own container.
    pub(super) shares_pids: bool,
}

/// The user's own standard input, for one container of a run in the foreground.
#[derive(Debug)]
pub struct Input {
    /// Pieces of at most [`exec::WRITE`] bytes; the end of the channel is the end of the input.
    pub bytes: mpsc::Receiver<Vec<u8>>,
    /// New sizes of the terminal, as rows and columns.
    pub resizes: Option<mpsc::Receiver<(u16, u16)>>,
    /// Whether output of the container is shown as it comes, for a terminal in raw mode.
    pub raw: bool,
}

/// The input, for one life of the container after the other.
pub(super) type SharedInput = Arc<tokio::sync::Mutex<Input>>;

/// The container in the guest of this run.
pub(super) struct InGuest {
    pub(super) blueprint: Blueprint,
    pub(super) board: Board,
    pub(super) client: AgentClient,
    /// The pod's own container and the pod's address, for what is asked of ports.
    pub(super) companion: Option<(ContainerRecord, String)>,
    pub(super) input: Option<SharedInput>,
    pub(super) shows_raw: bool,
    pub(super) log: Arc<Mutex<Option<Segments>>>,
    pub(super) life: Mutex<Option<Life>>,
}

/// One life of it; the tasks end with this.
pub(super) struct Life {
    exit: watch::Receiver<Option<i32>>,
    _follower: Follower,
    _feeder: Option<Follower>,
}

/// A task that ends with its owner.
struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl InGuest {
    fn name(&self) -> &str {
        &self.blueprint.container.name
    }

    fn process(&self) -> Process {
        Process::of(&self.client, &self.blueprint.id, "")
    }

    /// The record of the pod that is being run, for further processes in the container.
    fn record(&self) -> ContainerRecord {
        let container = self.board.read(|record| record.container(Some(self.name())).cloned());
        container.unwrap_or_default()
    }

    fn change(&self, change: impl FnOnce(&mut ContainerRecord)) {
        if let Err(error) = self.board.change_container(self.name(), change) {
            self.board.note(error.to_string());
        }
    }

    async fn create(&self) -> Result<f64, RunError> {
        let Blueprint { id, spec, storages, .. } = &self.blueprint;
        let mut create = CreateContainerRequest::new();
        create.container_id.clone_from(id);
        create.exec_id.clone_from(id);
        create.storages.clone_from(storages);
        create.OCI = MessageField::some(spec.clone());
        create.sandbox_pidns = self.blueprint.shares_pids;
        let begun = Instant::now();
        let created = self.client.agent.create_container(AgentClient::call(), &create).await;
        created.map_err(RunError::call("CreateContainer", self.name()))?;
        Ok(millis(begun.elapsed()))
    }

    async fn start(&self) -> Result<f64, RunError> {
        let mut request = StartContainerRequest::new();
        request.container_id.clone_from(&self.blueprint.id);
        let begun = Instant::now();
        let started = self.client.agent.start_container(AgentClient::call(), &request).await;
        started.map_err(RunError::call("StartContainer", self.name()))?;
        Ok(millis(begun.elapsed()))
    }

    fn defaults(&self) -> ProcessRecord {
        let process = &self.blueprint.spec.Process;
        ProcessRecord {
            env: process.Env.clone(),
            cwd: process.Cwd.clone(),
            uid: process.User.UID,
            gid: process.User.GID,
            groups: process.User.AdditionalGids.clone(),
            no_new_privileges: process.NoNewPrivileges,
            home_is_default: self.blueprint.home_is_default,
        }
    }

    /// Has the user's input go to the container for this life.
    fn feed(&self) -> Option<Follower> {
        let input = Arc::clone(self.input.as_ref()?);
        let process = self.process();
        Some(Follower(tokio::spawn(async move {
            let Input { bytes, resizes, .. } = &mut *input.lock().await;
            let resized = async {
                let Some(resizes) = resizes else { return std::future::pending().await };
                while let Some(size) = resizes.recv().await {
                    exec::resize(&process, size).await;
                }
                std::future::pending().await
            };
            tokio::select! {
                ended = exec::copy_in(&process, bytes) => if ended {
                    exec::close_stdin(&process).await;
                },
                () = resized => {}
            }
        })))
    }
}

impl Actions for InGuest {
    async fn begin(&self) -> Result<(), RunError> {
        let create_ms = self.create().await?;
        let start_ms = self.start().await?;
        self.board.change(|record| {
            record.timings.create_ms.push(create_ms);
            record.timings.start_ms.push(start_ms);
        })?;
        let (defaults, mounts) = (self.defaults(), spec::seen(&self.blueprint.spec));
        self.board.change_container(self.name(), |record| {
            (record.process, record.mounts) = (defaults, mounts);
        })?;
        self.board.show(Event::Started { container: self.name().to_owned() });
        if !self.blueprint.container.stdin {
            exec::close_stdin(&self.process()).await;
        }
        let (publish, exit) = watch::channel(None);
        let show = Show {
            process: self.process(),
            container: self.blueprint.container.clone(),
            board: self.board.clone(),
            log: Arc::clone(&self.log),
            raw: self.shows_raw,
        };
        let follower = Follower(tokio::spawn(follow(show, publish)));
        let life = Life { exit, _follower: follower, _feeder: self.feed() };
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = Some(life);
        Ok(())
    }

    async fn ended(&self) -> Option<i32> {
        let exit = {
            let life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
            life.as_ref().map(|life| life.exit.clone())
        };
        let mut exit = exit?;
        let code = exit.wait_for(Option::is_some).await.ok().map(|code| *code);
        match code {
            Some(code) => code,
            // The connection is gone; so is the guest, which the run notices by itself.
            None => std::future::pending().await,
        }
    }

    async fn signal(&self, number: u32) -> bool {
        let process = self.process();
        // It may have ended this instant; the wait that follows tells.
        let sent = process.signal(number);
        tokio::time::timeout(ANSWER, sent).await.is_ok()
    }

    async fn remove(&self) {
        let mut request = RemoveContainerRequest::new();
        request.container_id.clone_from(&self.blueprint.id);
        if let Err(error) = self.client.agent.remove_container(AgentClient::call(), &request).await {
            self.board.note(RunError::call("RemoveContainer", self.name())(error).to_string());
        }
    }

    async fn ask(&self, handler: &Handler, within: Duration) -> Result<(), String> {
        const NO_WAY: &str = "nothing in the guest connects to ports";
        let client = &self.client;
        match handler {
            Handler::Exec(command) => {
                let (code, output) =
                    companion::run_within(client, &self.record(), command.clone(), None, within).await?;
                if code == 0 { Ok(()) } else { Err(companion::said(code, &output)) }
            }
            Handler::Sleep(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
            Handler::Tcp { host, port } => {
                let (companion, address) = self.companion.as_ref().ok_or(NO_WAY)?;
                companion::reach(client, companion, host.as_ref().unwrap_or(address), *port, within).await
            }
            Handler::Http(get) => {
                let (companion, address) = self.companion.as_ref().ok_or(NO_WAY)?;
                companion::get(client, companion, get.host.as_ref().unwrap_or(address), get, within).await
            }
        }
    }

    fn note(&self, text: String) {
        self.board.note(format!("{}: {text}", self.name()));
    }

    fn tell(&self, state: &State) {
        self.change(|record| {
            record.phase = match (state.running, state.over) {
                (true, _) => ContainerPhase::Running,
                (false, true) => ContainerPhase::Exited,
                (false, false) => ContainerPhase::Waiting,
            };
            record.ready = state.running && state.ready;
            record.restarts = state.restarts;
            record.exit_code = if state.running { None } else { state.code };
        });
    }
}

/// What it takes to show a container's output.
struct Show {
    process: Process,
    container: Container,
    board: Board,
    log: Arc<Mutex<Option<Segments>>>,
    raw: bool,
}

/// Shows and logs a container's output until it ends, then says how it ended.
async fn follow(show: Show, publish: watch::Sender<Option<i32>>) {
    let Show { process, container, board, .. } = &show;
    let mut kept = Vec::new();
    let out = copy(&show, Stream::Stdout, &mut kept);
    if container.tty {
        out.await;
    } else {
        let mut of_errors = Vec::new();
        tokio::join!(out, copy(&show, Stream::Stderr, &mut of_errors));
        kept.extend(of_errors);
    }
    match exec::wait(process).await {
        Ok(code) => {
            let words = last_words(&show, code, &kept).await;
            if let Err(error) = board.change_container(&container.name, |record| record.message = words) {
                board.note(error.to_string());
            }
            board.show(Event::Exited { container: container.name.clone(), code });
            publish.send_replace(Some(code));
        }
        // The connection is gone; so is the guest, which the run notices by itself.
        Err(error) => board.note(error.to_string()),
    }
}

/// What a container has written into its file for last words; else, if it wants that and failed, the end of its output.
async fn last_words(show: &Show, code: i32, output: &[u8]) -> Option<String> {
    let mut request = GetDiagnosticDataRequest::new();
    request.container_id = show.process.container_id().to_owned();
    request.log_type = TERMINATION_LOG.to_owned();
    let answer = show.process.client().agent.get_diagnostic_data(AgentClient::call(), &request).await;
    // Agents that cannot tell are no reason to fail.
    let text = answer.map(|answer| answer.data).unwrap_or_default();
    if !text.is_empty() {
        return Some(tail(text.as_bytes(), MOST_WORDS));
    }
    (show.container.termination_from_log && code != 0 && !output.is_empty())
        .then(|| tail(output, WORDS_FROM_LOG))
}

fn tail(bytes: &[u8], most: usize) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(most)..]).into_owned()
}

/// The log of a container, for all of its lives.
pub(super) fn open_log(container: &str, board: &Board) -> Arc<Mutex<Option<Segments>>> {
    let log = Segments::create(board.dir().path(), container, LOG_SEGMENTS);
    let log = log.map_err(|error| board.note(format!("{container} has no log: {error}"))).ok();
    Arc::new(Mutex::new(log))
}

/// Shows one stream to its end, and keeps the last of it.
async fn copy(show: &Show, stream: Stream, kept: &mut Vec<u8>) {
    let Show { process, container, board, log, raw } = show;
    let mut lines = Lines::default();
    while let Some(data) = exec::read(process, stream).await {
        keep(&data, &container.name, board, log);
        kept.extend_from_slice(&data);
        kept.drain(..kept.len().saturating_sub(WORDS_FROM_LOG));
        if *raw {
            board.piece(&container.name, stream, data).await;
            continue;
        }
        let mut complete = Vec::new();
        lines.feed(&data, |text| complete.push(text));
        for text in complete {
            board.output(&container.name, stream, text).await;
        }
    }
    if let Some(text) = lines.finish() {
        board.output(&container.name, stream, text).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_the_last_ones() {
        assert_eq!(tail(b"abc", 2), "bc");
        assert_eq!(tail(b"", 2), "");
    }

    #[tokio::test]
    async fn a_guest_that_does_not_answer_is_noticed() {
        // It takes connections and answers nothing.
        let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
        let client = AgentClient::over(ours);
        let process = Process::of(&client, "a", "");
        let sent = process.signal(15);
        assert!(tokio::time::timeout(Duration::from_millis(100), sent).await.is_err());
    }
}
