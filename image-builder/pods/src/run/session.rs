//! One run, from the boot of the guest to its end.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocols::health::CheckRequest;
use tokio::sync::watch;

use super::RunError;
use super::board::Board;
use super::container::{Input, waiting};
use super::exec;
use super::journal::Journal;
use super::life::{Beginning, Containers, end_within};
use super::options::{Outcome, RunOptions, StopRequest};
use super::output::{Event, Sink};
use super::pod::Pod;
use super::prepare::{Prepared, prepare};
use super::sandbox_api::{self, Serving, Taken};
use super::screen::Screen;
use super::state::{Phase, PodRecord};
use super::timing::millis;
use machine::vm::{AgentClient, Orders, Vm};

/// How long the guest may take to power off before QEMU is ended.
const OFF_GRACE: Duration = Duration::from_secs(3);
/// How long all processes of the machine may take to obey SIGTERM, and what else there is to do on the host.
const HOST_GRACE: Duration = Duration::from_secs(9);
/// How long after a failed call the end of the guest may be noticed.
const DEATH_RATTLE: Duration = Duration::from_millis(300);
/// The command that measures exec.
const BENCH: &str = "/bin/true";
/// The status of a run whose time was over, as timeout(1) has it.
const TIME_OVER: i32 = 124;

/// Runs a pod until its main containers end or `stop` says so. The first container that wants an input has `input`.
///
/// # Errors
/// Anything that keeps a container from being started, and a guest that dies. Everything is cleaned up then, too.
pub async fn run(
    pod: Pod,
    options: RunOptions,
    sink: Arc<dyn Sink>,
    stop: watch::Receiver<StopRequest>,
    input: Option<Input>,
) -> Result<Outcome, RunError> {
    let screen = Screen::new(sink);
    let (hurried, mut asked_to_stop) = (screen.clone(), stop.clone());
    let hurry = tokio::spawn(async move {
        asked(&mut asked_to_stop, StopRequest::Graceful).await;
        hurried.hurry();
    });
    let outcome = run_shown(pod, &options, screen.clone(), stop, input).await;
    if let (Ok(outcome), true) = (&outcome, options.table) {
        screen.show(Event::Timings(outcome.timings.clone()));
    }
    screen.finish().await;
    hurry.abort();
    outcome
}

/// How long the end of a pod takes at the most.
fn stop_within(pod: &Pod) -> Duration {
    pod.grace + end_within(pod) + OFF_GRACE + HOST_GRACE
}

async fn run_shown(
    pod: Pod,
    options: &RunOptions,
    screen: Screen,
    mut stop: watch::Receiver<StopRequest>,
    input: Option<Input>,
) -> Result<Outcome, RunError> {
    let dir = options.state.reserve(pod.name())?;
    let sandbox_api = options.sandbox_api.as_ref().map(Taken::take).transpose()?;
    let record = PodRecord {
        name: pod.name().to_owned(),
        pid: std::process::id(),
        phase: Phase::Starting,
        stop_within: stop_within(&pod).as_secs(),
        started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        ended: None,
        exit_code: None,
        error: None,
        origin: options.origin.clone(),
        accel: None,
        endpoint: None,
        containers: pod.all().map(|container| waiting(&pod, container)).collect(),
        ports: options.network.published().to_vec(),
        waiting_ports: options.network.held().collect(),
        sandbox_api: sandbox_api.as_ref().map(Taken::address),
        folders: pod.folders(&options.base),
        timings: options.sizes.clone(),
    };
    let board = Board::new(dir, record, screen, Journal::of(&options.state))?;
    for note in &pod.notes {
        board.note(note);
    }

    let prepared = tokio::select! {
        prepared = prepare(&pod, options, &board) => prepared?,
        () = asked(&mut stop, StopRequest::Graceful) => return Ok(board.interrupted()),
    };
    let mut config = prepared.machine(options, &board);
    if sandbox_api.is_some() {
        config.cmdline.push(sandbox_api::SWITCH.to_owned());
    }
    let vm = tokio::select! {
        vm = Vm::boot(config) => vm?,
        () = asked(&mut stop, StopRequest::Graceful) => return Ok(board.interrupted()),
    };
    let result = match serve(sandbox_api, &board, &vm).await {
        Ok(_serving) => drive(&pod, options, &prepared, &board, &vm, stop, input).await,
        Err(error) => Err(error),
    };
    vm.stop().await?;
    drop(prepared);
    let result = result.map(|()| board.outcome(&pod));
    board.end(result.as_ref(), options.leave_record)?;
    result
}

/// Waits until the run should end at least this urgently. For ever, when nobody can say so any more.
async fn asked(stop: &mut watch::Receiver<StopRequest>, at_least: StopRequest) {
    if stop.wait_for(|request| *request >= at_least).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Opens the sandbox API to the host, if it is wanted.
async fn serve(api: Option<Taken>, board: &Board, vm: &Vm) -> Result<Option<Serving>, RunError> {
    let Some(api) = api else { return Ok(None) };
    let address = api.address();
    let serving = api.serve(vm.endpoint().clone()).await?;
    board.note(format!("the sandbox API is at http://{address}"));
    Ok(Some(serving))
}

/// Everything between power-on and power-off.
async fn drive(
    pod: &Pod,
    options: &RunOptions,
    prepared: &Prepared,
    board: &Board,
    vm: &Vm,
    mut stop: watch::Receiver<StopRequest>,
    input: Option<Input>,
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

    let input = input.map(|input| Arc::new(tokio::sync::Mutex::new(input)));
    let mut containers = Containers::new(pod, prepared, board, &client, input, options.verbatim);
    let orders = vm.orders();
    let result = tokio::select! {
        result = live(pod, options, board, &client, &orders, &mut containers, stop.clone()) => result,
        _ = vm.wait_off(Duration::MAX) => Ok(()),
        () = asked(&mut stop, StopRequest::Now) => Ok(()),
    };
    // A call to a guest that dies may fail before its end is seen.
    let patience = if result.is_err() { DEATH_RATTLE } else { Duration::ZERO };
    if vm.wait_off(patience).await {
        return Err(RunError::GuestGone(tail(&vm.console_log())));
    }
    board.change(|record| record.phase = Phase::Stopping)?;
    tokio::select! {
        () = containers.end() => {}
        _ = vm.wait_off(Duration::MAX) => {}
        () = asked(&mut stop, StopRequest::Now) => {}
    }
    if *stop.borrow() < StopRequest::Now {
        vm.wait_off(OFF_GRACE).await;
    }
    result
}

/// Starts everything, and waits for the end of the main containers, of the pod's time, or of the user's patience.
async fn live(
    pod: &Pod,
    options: &RunOptions,
    board: &Board,
    client: &AgentClient,
    orders: &Orders,
    containers: &mut Containers<'_>,
    mut stop: watch::Receiver<StopRequest>,
) -> Result<(), RunError> {
    let stopping = |reason: &str| board.show(Event::Stopping { reason: reason.to_owned() });
    let mut time_over = std::pin::pin!(async {
        match pod.deadline {
            Some(deadline) => tokio::time::sleep(deadline).await,
            None => std::future::pending().await,
        }
        board.force(TIME_OVER);
    });
    const TIME_IS_OVER: &str = "activeDeadlineSeconds are over";
    let beginning = tokio::select! {
        beginning = containers.begin() => beginning?,
        () = &mut time_over => {
            stopping(TIME_IS_OVER);
            return Ok(());
        }
        // What was begun goes with the sandbox.
        () = asked(&mut stop, StopRequest::Graceful) => {
            stopping("asked to");
            return Ok(());
        }
    };
    if beginning == Beginning::Failed {
        stopping("an init container has failed");
        return Ok(());
    }
    board.change(|record| record.phase = Phase::Running)?;
    board.show(Event::Running { pod: pod.name().to_owned() });
    // Those that nobody has answered at stay closed when this ends.
    let _ports = containers.publish(orders);

    let reason = tokio::select! {
        () = containers.all_ended() => "the main containers have ended",
        () = &mut time_over => TIME_IS_OVER,
        () = asked(&mut stop, StopRequest::Graceful) => "asked to",
    };
    let mut stop_measuring = stop.clone();
    tokio::select! {
        measured = bench(options, board, client, containers, &stop) => measured?,
        () = asked(&mut stop_measuring, StopRequest::Graceful) => {}
    }
    if options.keep && *stop.borrow() == StopRequest::No {
        board.change(|record| record.phase = Phase::Finished)?;
        board.note(format!("{reason}; the pod stays up until it is stopped"));
        asked(&mut stop, StopRequest::Graceful).await;
        stopping("asked to");
    } else {
        stopping(reason);
    }
    Ok(())
}

/// Measures execs in the first container that still runs.
async fn bench(
    options: &RunOptions,
    board: &Board,
    client: &AgentClient,
    containers: &Containers<'_>,
    stop: &watch::Receiver<StopRequest>,
) -> Result<(), RunError> {
    if options.bench_exec == 0 || *stop.borrow() != StopRequest::No {
        return Ok(());
    }
    let Some(alive) = containers.running() else {
        board.note("no container runs any more, so exec is not measured");
        return Ok(());
    };
    let record = board.read(|record| record.container(Some(alive)).cloned())?;
    let times = exec::bench(client, &record, &[BENCH.to_owned()], options.bench_exec).await?;
    board.change(|record| record.timings.exec_ms = times)
}

fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgency_is_ordered() {
        assert!(StopRequest::No < StopRequest::Graceful && StopRequest::Graceful < StopRequest::Now);
    }
}
