//! The course of one run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocols::agent::{CreateSandboxRequest, DestroySandboxRequest, RemoveContainerRequest};
use protocols::health::CheckRequest;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::RunError;
use super::board::Board;
use super::container::{Running, all_ended, start, waiting};
use super::exec::{self, ProcessId};
use super::folder;
use super::network::{Connection, Network};
use super::output::{Event, Sink};
use super::pod::Pod;
use super::screen::Screen;
use super::spec;
use super::state::{Phase, PodRecord, StateDir};
use super::timing::{Timings, millis};
use crate::cache::Cache;
use crate::image::{self, Ceiling, Image};
use crate::vm::{Accel, AgentClient, Disk, Machine, Root, Share, Vm, VmConfig, disk_node};

const SIGKILL: u32 = 9;
/// How long the guest may take to deliver a signal. One that does not answer in this time is switched off.
const ANSWER: Duration = Duration::from_secs(5);
/// How long containers may take to end after SIGKILL.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// How long the guest may take to remove the containers and the sandbox.
const REMOVE_GRACE: Duration = Duration::from_secs(10);
/// How long the guest may take to power off before QEMU is ended.
const OFF_GRACE: Duration = Duration::from_secs(3);
/// How long all processes of the machine may take to obey SIGTERM, and what else there is to do on the host.
const HOST_GRACE: Duration = Duration::from_secs(9);
/// How long after a failed call the end of the guest may be noticed.
const DEATH_RATTLE: Duration = Duration::from_millis(300);
/// Memory for the guest itself and what containers write, beside their limits.
const BASE_MEMORY_MIB: u64 = 512;
/// The command that measures exec.
const BENCH: &str = "/bin/true";

/// How urgently a run should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum StopRequest {
    /// It should not.
    #[default]
    No,
    /// In good order: signals first.
    Graceful,
    /// At once.
    Now,
}

/// How to run a pod.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The kernel to boot.
    pub kernel: PathBuf,
    /// What the guest runs.
    pub root: Root,
    /// The machine model; chosen by the number of devices when absent.
    pub machine: Option<Machine>,
    /// The accelerator.
    pub accel: Accel,
    /// Guest memory; computed from the containers' limits when absent.
    pub memory_mib: Option<u32>,
    /// Guest CPUs.
    pub cpus: u32,
    /// More words for the kernel's command line.
    pub cmdline: Vec<String>,
    /// How the guest is connected.
    pub network: Network,
    /// What relative paths in the manifest are relative to.
    pub base: PathBuf,
    /// Where disks of images are kept.
    pub cache: Cache,
    /// Where running pods are known.
    pub state: StateDir,
    /// Whether the pod stays up after its main containers ended, until it is stopped.
    pub keep: bool,
    /// How many execs are measured once the main containers ended.
    pub bench_exec: u32,
    /// Sizes of products, for the table.
    pub sizes: Timings,
    /// Whether the table is shown in the end.
    pub table: bool,
    /// The most that an image may unpack to.
    pub ceiling: Ceiling,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The first non-zero status of a main container, in the manifest's order; else 0.
    pub code: i32,
    /// What was measured.
    pub timings: Timings,
}

/// Runs a pod until its main containers end or `stop` says so.
///
/// # Errors
/// Anything that keeps a container from being started, and a guest that dies. Everything is cleaned up then, too.
pub async fn run(
    pod: Pod,
    options: RunOptions,
    sink: Arc<dyn Sink>,
    stop: watch::Receiver<StopRequest>,
) -> Result<Outcome, RunError> {
    let screen = Screen::new(sink);
    let (hurried, mut asked_to_stop) = (screen.clone(), stop.clone());
    let hurry = tokio::spawn(async move {
        asked(&mut asked_to_stop, StopRequest::Graceful).await;
        hurried.hurry();
    });
    let outcome = run_shown(pod, &options, screen.clone(), stop).await;
    if let (Ok(outcome), true) = (&outcome, options.table) {
        screen.show(Event::Timings(outcome.timings.clone()));
    }
    screen.finish().await;
    hurry.abort();
    outcome
}

/// How long the end of a pod takes at the most.
fn stop_within(pod: &Pod) -> Duration {
    2 * ANSWER + pod.grace + KILL_GRACE + REMOVE_GRACE + OFF_GRACE + HOST_GRACE
}

async fn run_shown(
    mut pod: Pod,
    options: &RunOptions,
    screen: Screen,
    mut stop: watch::Receiver<StopRequest>,
) -> Result<Outcome, RunError> {
    let dir = options.state.reserve(&pod.name)?;
    let record = PodRecord {
        name: pod.name.clone(),
        pid: std::process::id(),
        phase: Phase::Starting,
        stop_within: stop_within(&pod).as_secs(),
        started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        accel: None,
        endpoint: None,
        containers: pod.containers.iter().map(|container| waiting(&pod, container)).collect(),
        ports: options.network.published().to_vec(),
        timings: options.sizes.clone(),
    };
    let board = Board::new(dir, record, screen)?;

    let prepared = tokio::select! {
        prepared = prepare(&pod, options, &board) => prepared?,
        () = asked(&mut stop, StopRequest::Graceful) => return Ok(board.interrupted()),
    };
    if pod.dns.is_empty() {
        pod.dns = prepared.connection.dns();
    }
    let config = machine(&pod, options, &prepared, &board);
    let vm = tokio::select! {
        vm = Vm::boot(config) => vm?,
        () = asked(&mut stop, StopRequest::Graceful) => return Ok(board.interrupted()),
    };
    let result = drive(&pod, options, &prepared, &board, &vm, stop).await;
    vm.stop().await?;
    drop(prepared);
    result.map(|()| board.outcome(&pod))
}

/// Waits until the run should end at least this urgently. For ever, when nobody can say so any more.
async fn asked(stop: &mut watch::Receiver<StopRequest>, at_least: StopRequest) {
    if stop.wait_for(|request| *request >= at_least).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What a pod needs on the host.
struct Prepared {
    connection: Connection,
    images: Vec<Image>,
    disks: Vec<PathBuf>,
    /// The directories of hostPath volumes.
    shares: Vec<Share>,
}

impl Prepared {
    /// The position of a disk, which is added when it is new: containers of one image share its disk.
    fn disk(disks: &mut Vec<PathBuf>, path: &PathBuf) -> usize {
        disks.iter().position(|known| known == path).unwrap_or_else(|| {
            disks.push(path.clone());
            disks.len() - 1
        })
    }

    fn node_of(&self, image: &Image) -> String {
        disk_node(self.disks.iter().position(|disk| *disk == image.disk).unwrap_or_default())
    }
}

async fn prepare(pod: &Pod, options: &RunOptions, board: &Board) -> Result<Prepared, RunError> {
    let (pod, base, cache, board) = (pod.clone(), options.base.clone(), options.cache.clone(), board.clone());
    let (network, ceiling) = (options.network.clone(), options.ceiling);
    let work = move || {
        let mut prepared = Prepared {
            connection: Connection::open(&network)?,
            images: Vec::new(),
            disks: Vec::new(),
            shares: folder::shares(&pod, &base)?,
        };
        for container in &pod.containers {
            let reference = base.join(&container.image).display().to_string();
            let image = image::prepare_within(&reference, &cache, ceiling).map_err(|source| {
                RunError::Image { container: container.name.clone(), source: Box::new(source) }
            })?;
            Prepared::disk(&mut prepared.disks, &image.disk);
            board.show(Event::Image {
                container: container.name.clone(),
                image: container.image.clone(),
                bytes: image.size,
                cached: image.cached,
            });
            prepared.images.push(image);
        }
        Ok(prepared)
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(RunError::io("prepare", "images", std::io::Error::other(error.to_string())))
    })
}

fn machine(pod: &Pod, options: &RunOptions, prepared: &Prepared, board: &Board) -> VmConfig {
    let mut config = VmConfig::new(&options.kernel, "", board.dir().vm());
    config.root = options.root.clone();
    let limits: u64 = pod.containers.iter().filter_map(|container| container.memory).sum();
    let memory = BASE_MEMORY_MIB + limits.div_ceil(1 << 20);
    config.memory_mib = options.memory_mib.unwrap_or_else(|| u32::try_from(memory).unwrap_or(u32::MAX));
    config.cpus = options.cpus;
    config.accel = options.accel;
    config.cmdline = options.cmdline.clone();
    config.network = prepared.connection.nic();
    config.disks = prepared
        .disks
        .iter()
        .enumerate()
        .map(|(index, path)| Disk { path: path.clone(), readonly: true, serial: format!("pith-{index}") })
        .collect();
    config.shares = prepared.shares.clone();
    config.machine = options.machine.unwrap_or_else(|| Machine::smallest_for(&config));
    config
}

/// Everything between power-on and power-off.
async fn drive(
    pod: &Pod,
    options: &RunOptions,
    prepared: &Prepared,
    board: &Board,
    vm: &Vm,
    mut stop: watch::Receiver<StopRequest>,
) -> Result<(), RunError> {
    for note in vm.notes() {
        board.note(note);
    }
    let client = vm.client().await?;
    let check = CheckRequest::new();
    client.health.check(AgentClient::call(), &check).await.map_err(RunError::call("Check", "agent"))?;
    let first_check = millis(vm.since_power_on());
    board.change(|record| {
        record.accel = Some(vm.accel().to_owned());
        record.endpoint = Some(vm.endpoint().clone());
        record.timings.take_boot(&vm.boot_timing());
        record.timings.check_ms = Some(first_check);
    })?;
    board.show(Event::Booted {
        accel: vm.accel().to_owned(),
        version: vm.ready().version.clone(),
        ms: first_check,
    });

    let mut running = Vec::new();
    let result = tokio::select! {
        result = live(pod, options, prepared, board, &client, &mut running, stop.clone()) => result,
        _ = vm.wait_off(Duration::MAX) => Ok(()),
        () = asked(&mut stop, StopRequest::Now) => Ok(()),
    };
    // A call to a guest that dies may fail before its end is seen.
    let patience = if result.is_err() { DEATH_RATTLE } else { Duration::ZERO };
    if vm.wait_off(patience).await {
        return Err(RunError::GuestGone(tail(&vm.console_log())));
    }
    let ended = tokio::select! {
        ended = end(pod, board, &client, &running) => ended,
        _ = vm.wait_off(Duration::MAX) => Ok(()),
        () = asked(&mut stop, StopRequest::Now) => Ok(()),
    };
    if *stop.borrow() < StopRequest::Now {
        vm.wait_off(OFF_GRACE).await;
    }
    result.and(ended)
}

/// Starts everything, and waits for the end of the main containers or of the user's patience.
async fn live(
    pod: &Pod,
    options: &RunOptions,
    prepared: &Prepared,
    board: &Board,
    client: &AgentClient,
    running: &mut Vec<Running>,
    mut stop: watch::Receiver<StopRequest>,
) -> Result<(), RunError> {
    let mut stop_starting = stop.clone();
    let started = async {
        prepared.connection.configure(client).await?;
        create_sandbox(pod, client).await?;
        for (container, image) in pod.containers.iter().zip(&prepared.images) {
            running.push(start(pod, container, image, &prepared.node_of(image), board, client).await?);
        }
        Ok::<(), RunError>(())
    };
    tokio::select! {
        started = started => started?,
        // What was begun goes with the sandbox.
        () = asked(&mut stop_starting, StopRequest::Graceful) => {
            board.show(Event::Stopping { reason: "asked to".to_owned() });
            return Ok(());
        }
    }
    board.change(|record| record.phase = Phase::Running)?;
    board.show(Event::Running { pod: pod.name.clone() });

    let main = running.iter().filter(|container| pod.main.contains(&container.name));
    let reason = tokio::select! {
        () = all_ended(main) => "the main containers have ended",
        () = asked(&mut stop, StopRequest::Graceful) => "asked to",
    };
    tokio::select! {
        measured = bench(options, board, client, running, &stop) => measured?,
        () = asked(&mut stop_starting, StopRequest::Graceful) => {}
    }
    if options.keep && *stop.borrow() == StopRequest::No {
        board.change(|record| record.phase = Phase::Finished)?;
        board.note(format!("{reason}; the pod stays up until it is stopped"));
        asked(&mut stop, StopRequest::Graceful).await;
        board.show(Event::Stopping { reason: "asked to".to_owned() });
    } else {
        board.show(Event::Stopping { reason: reason.to_owned() });
    }
    Ok(())
}

/// Measures execs in the first container that still runs.
async fn bench(
    options: &RunOptions,
    board: &Board,
    client: &AgentClient,
    running: &[Running],
    stop: &watch::Receiver<StopRequest>,
) -> Result<(), RunError> {
    if options.bench_exec == 0 || *stop.borrow() != StopRequest::No {
        return Ok(());
    }
    let Some(alive) = running.iter().find(|container| container.exit.borrow().is_none()) else {
        board.note("no container runs any more, so exec is not measured");
        return Ok(());
    };
    let record = board.read(|record| record.container(Some(&alive.name)).cloned())?;
    let times = exec::bench(client, &record, &[BENCH.to_owned()], options.bench_exec).await?;
    board.change(|record| record.timings.exec_ms = times)
}

async fn create_sandbox(pod: &Pod, client: &AgentClient) -> Result<(), RunError> {
    let mut request = CreateSandboxRequest::new();
    request.sandbox_id = format!("sandbox-{}", pod.name);
    request.hostname = pod.hostname.clone();
    request.dns = pod.dns.clone();
    request.storages = spec::volume_storages(pod);
    client
        .agent
        .create_sandbox(AgentClient::call(), &request)
        .await
        .map(drop)
        .map_err(RunError::call("CreateSandbox", &pod.name))
}

/// Ends what still runs, and the sandbox. Each step has a bound of its own, so that a guest that has stopped answering holds
/// up nothing: it is switched off by the caller.
async fn end(pod: &Pod, board: &Board, client: &AgentClient, running: &[Running]) -> Result<(), RunError> {
    board.change(|record| record.phase = Phase::Stopping)?;
    let alive = || running.iter().filter(|container| container.exit.borrow().is_none());
    let answers = signal_all(client, alive(), |container| container.stop_signal, ANSWER).await;
    if answers && tokio::time::timeout(pod.grace, all_ended(alive())).await.is_err() {
        for container in alive() {
            board.note(format!(
                "{} did not end within {} s; killing it",
                container.name,
                pod.grace.as_secs()
            ));
        }
        signal_all(client, alive(), |_| SIGKILL, ANSWER).await;
        if tokio::time::timeout(KILL_GRACE, all_ended(alive())).await.is_err() {
            for container in alive() {
                board
                    .note(format!("{} survived SIGKILL; the guest is switched off under it", container.name));
            }
        }
    }
    if !answers || tokio::time::timeout(REMOVE_GRACE, remove(board, client, running)).await.is_err() {
        board.note("the guest does not answer; it is switched off");
    }
    Ok(())
}

/// Sends all of them a signal at once. Says whether the guest answers within a time.
async fn signal_all<'a>(
    client: &AgentClient,
    containers: impl Iterator<Item = &'a Running>,
    number: impl Fn(&Running) -> u32,
    within: Duration,
) -> bool {
    let mut signals = JoinSet::new();
    for container in containers {
        let (client, process) = (client.clone(), ProcessId::init(&container.id));
        let number = number(container);
        // It may have ended this instant; the wait that follows tells.
        signals.spawn(async move { drop(exec::signal(&client, &process, number).await) });
    }
    let all = async { while signals.join_next().await.is_some() {} };
    tokio::time::timeout(within, all).await.is_ok()
}

async fn remove(board: &Board, client: &AgentClient, running: &[Running]) {
    for container in running {
        let mut request = RemoveContainerRequest::new();
        request.container_id = container.id.clone();
        if let Err(error) = client.agent.remove_container(AgentClient::call(), &request).await {
            board.note(RunError::call("RemoveContainer", &container.name)(error).to_string());
        }
    }
    // The agent powers the guest off; its answer may get lost in that.
    drop(client.agent.destroy_sandbox(AgentClient::call(), &DestroySandboxRequest::new()).await);
}

fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_images_share_a_disk() {
        let mut disks = Vec::new();
        let paths = ["/a", "/b", "/a"].map(PathBuf::from);
        assert_eq!(paths.each_ref().map(|path| Prepared::disk(&mut disks, path)), [0, 1, 0]);
        assert_eq!(disks, [PathBuf::from("/a"), "/b".into()]);
    }

    #[tokio::test]
    async fn a_guest_that_does_not_answer_is_noticed() {
        // It takes connections and answers nothing.
        let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
        let client = AgentClient::over(ours);
        let (_exit, running) = Running::for_test("a");
        assert!(!signal_all(&client, [&running].into_iter(), |_| 15, Duration::from_millis(100)).await);
        assert!(signal_all(&client, [].into_iter(), |_| 15, Duration::from_secs(10)).await);
    }

    #[test]
    fn urgency_is_ordered() {
        assert!(StopRequest::No < StopRequest::Graceful && StopRequest::Graceful < StopRequest::Now);
    }
}
