//! Processes: exec, signals, exit statuses.

use anyhow::{Result, ensure};
use protobuf::MessageField;
use protocols::agent::*;
use protocols::oci;
use tests::{Code, Running};

use crate::case::{Case, cases};
use crate::world::World;

pub(crate) const CASES: &[Case] = cases! {
    Pod "ExecProcess" Success an_exec_runs_at_once_beside_the_first_process;
    Pod "ExecProcess" Failure an_exec_that_fails_is_not_registered;
    Pod "ExecProcess" Failure an_exec_id_is_given_once;
    Pod "ExecProcess" Failure nothing_is_executed_in_a_stopped_container;
    Pod "SignalProcess" Success kill_to_the_empty_id_ends_every_process;
    Pod "SignalProcess" Success another_signal_to_the_empty_id_reaches_the_first_process_alone;
    Pod "SignalProcess" Success sigterm_kills_a_first_process_that_is_deaf_to_it;
    Pod "SignalProcess" Success a_signal_to_what_has_ended_is_no_error;
    Pod "SignalProcess" Failure signals_to_nobody_and_to_no_number_are_refused;
    Pod "WaitProcess" Success every_waiter_gets_the_status_before_and_after_the_end;
    Pod "WaitProcess" Success a_killed_process_has_128_and_the_signals_number;
    Pod "WaitProcess" Failure a_process_that_never_was_is_gone_in_the_words_shims_look_for;
};

/// What the Go shim looks for.
const GONE: &str = "ESRCH: No such process";

pub(crate) fn exec(container: &str, exec_id: &str, args: &[&str]) -> ExecProcessRequest {
    let process = oci::Process {
        Args: args.iter().map(|word| (*word).to_owned()).collect(),
        Env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
        Cwd: "/".into(),
        ..Default::default()
    };
    ExecProcessRequest {
        container_id: container.into(),
        exec_id: exec_id.into(),
        process: MessageField::some(process),
        ..Default::default()
    }
}

fn signal(container: &str, exec_id: &str, signal: u32) -> SignalProcessRequest {
    SignalProcessRequest {
        container_id: container.into(),
        exec_id: exec_id.into(),
        signal,
        ..Default::default()
    }
}

fn wait(container: &str, exec_id: &str) -> WaitProcessRequest {
    WaitProcessRequest { container_id: container.into(), exec_id: exec_id.into(), ..Default::default() }
}

async fn status(world: &World, container: &str, exec_id: &str) -> Result<i32> {
    let response: WaitProcessResponse = world.ok("WaitProcess", &wait(container, exec_id)).await?;
    Ok(response.status)
}

async fn an_exec_runs_at_once_beside_the_first_process(world: &World) -> Result<()> {
    let (container, id) = (world.shared().await?, world.id("process"));
    let script = "echo $$ >&2; grep -c sleep /proc/1/cmdline; exit 9";
    world.done("ExecProcess", &exec(container.id(), &id, &["sh", "-c", script])).await?;
    let running = Running::of(world.guest.client(), container.id(), &id);
    let finished = running.finish().await?;
    ensure!(finished.status == 9 && finished.stdout == b"1\n", "{finished:?}");
    ensure!(finished.stderr != b"1\n", "it is the first process");
    Ok(())
}

async fn an_exec_that_fails_is_not_registered(world: &World) -> Result<()> {
    let (container, id) = (world.shared().await?.id().to_owned(), world.id("process"));
    let before = world.snapshot().await?;
    let missing = exec(&container, &id, &["/bin/none"]);
    world.refused("ExecProcess", &missing, Code::INVALID_ARGUMENT).await?;
    let mut nowhere = exec(&container, &id, &["true"]);
    nowhere.process.mut_or_insert_default().Cwd = "/none".into();
    world.refused("ExecProcess", &nowhere, Code::INVALID_ARGUMENT).await?;
    let nothing = ExecProcessRequest { process: None.into(), ..exec(&container, &id, &[]) };
    world.refused("ExecProcess", &nothing, Code::INVALID_ARGUMENT).await?;
    let nameless = exec(&container, "", &["true"]);
    world.refused("ExecProcess", &nameless, Code::INVALID_ARGUMENT).await?;
    let text = world.refused("WaitProcess", &wait(&container, &id), Code::NOT_FOUND).await?;
    ensure!(text.contains(GONE), "{text}");
    world.is_as_before(&before).await
}

async fn an_exec_id_is_given_once(world: &World) -> Result<()> {
    let container = world.container().run().await?;
    let request = exec(container.id(), "e1", &["sleep", "1000"]);
    world.done("ExecProcess", &request).await?;
    world.refused("ExecProcess", &request, Code::ALREADY_EXISTS).await?;
    // The container's own id is its first process.
    let as_first = exec(container.id(), container.id(), &["true"]);
    world.refused("ExecProcess", &as_first, Code::ALREADY_EXISTS).await?;
    // Once its end has been told it is free again.
    for status in [3, 4] {
        let script = format!("exit {status}");
        world.done("ExecProcess", &exec(container.id(), "again", &["sh", "-c", &script])).await?;
        let waited = wait(container.id(), "again");
        let ended: WaitProcessResponse = world.ok("WaitProcess", &waited).await?;
        ensure!(ended.status == status, "{ended:?}");
    }
    Ok(())
}

async fn nothing_is_executed_in_a_stopped_container(world: &World) -> Result<()> {
    let container = world.container().script("exit 0").run().await?;
    container.wait().await?;
    let request = exec(container.id(), "late", &["true"]);
    world.refused("ExecProcess", &request, Code::FAILED_PRECONDITION).await?;
    Ok(())
}

async fn kill_to_the_empty_id_ends_every_process(world: &World) -> Result<()> {
    let container = world.container().script("sleep 1000 & sleep 1000").run().await?;
    let other = container.exec(["sleep", "1000"]).start().await?;
    let all = signal(container.id(), "", 9);
    world.done("SignalProcess", &all).await?;
    ensure!(container.wait().await? == 137 && other.wait().await? == 137, "somebody survived");
    // Once more is harmless.
    world.done("SignalProcess", &all).await
}

async fn another_signal_to_the_empty_id_reaches_the_first_process_alone(world: &World) -> Result<()> {
    let script = "trap 'echo got it; exit 21' TERM; echo up; while :; do sleep 0.1; done";
    let container = world.container().script(script).run().await?;
    container.init().read_until("up").await?;
    let other = container.exec(["sh", "-c", "trap 'echo got it too' TERM; echo up; sleep 3"]).start().await?;
    other.read_until("up").await?;
    world.done("SignalProcess", &signal(container.id(), "", 15)).await?;
    ensure!(container.wait().await? == 21, "the first process did not get it");
    let text = String::from_utf8_lossy(&other.finish().await?.stdout).into_owned();
    ensure!(!text.contains("too"), "the other got it too");
    Ok(())
}

async fn sigterm_kills_a_first_process_that_is_deaf_to_it(world: &World) -> Result<()> {
    let deaf = world.container().run().await?;
    world.done("SignalProcess", &signal(deaf.id(), "", 15)).await?;
    ensure!(deaf.wait().await? == 137, "it ended otherwise");
    // By the container's id it is the same process. One that ignores the signal is left alone.
    let ignores =
        world.container().script("trap '' TERM; echo up; while :; do sleep 0.1; done").run().await?;
    ignores.init().read_until("up").await?;
    world.done("SignalProcess", &signal(ignores.id(), ignores.id(), 15)).await?;
    ensure!(ignores.sh("echo alive").await? == "alive");
    Ok(())
}

async fn a_signal_to_what_has_ended_is_no_error(world: &World) -> Result<()> {
    let container = world.container().run().await?;
    let ended = container.exec(["true"]).id("ended").start().await?;
    ended.wait().await?;
    world.done("SignalProcess", &signal(container.id(), "ended", 15)).await?;
    world.done("SignalProcess", &signal(container.id(), "", 0)).await
}

async fn signals_to_nobody_and_to_no_number_are_refused(world: &World) -> Result<()> {
    let id = world.shared().await?.id().to_owned();
    let text = world.refused("SignalProcess", &signal(&id, "nobody", 15), Code::NOT_FOUND).await?;
    ensure!(text.contains(GONE), "{text}");
    world.refused("SignalProcess", &signal(&id, "", 65), Code::INVALID_ARGUMENT).await?;
    world.refused("SignalProcess", &signal(&id, "", u32::MAX), Code::INVALID_ARGUMENT).await?;
    world.refused("SignalProcess", &signal("nobody", "", 9), Code::NOT_FOUND).await?;
    Ok(())
}

async fn every_waiter_gets_the_status_before_and_after_the_end(world: &World) -> Result<()> {
    let container = world.container().script("exit 5").create().await?;
    let id = container.id().to_owned();
    let start = async {
        tokio::task::yield_now().await;
        container.start().await
    };
    let (a, b, started) = tokio::join!(status(world, &id, ""), status(world, &id, &id), start);
    started?;
    ensure!((a?, b?) == (5, 5), "early waiters have another status");
    ensure!(status(world, &id, "").await? == 5, "a late waiter has another status");
    Ok(())
}

async fn a_killed_process_has_128_and_the_signals_number(world: &World) -> Result<()> {
    let container = world.shared().await?;
    for (number, wanted) in [(9, 137), (15, 143), (10, 138)] {
        let id = world.id("process");
        container.exec(["sh", "-c", &format!("kill -{number} $$")]).id(&id).start().await?;
        let got = status(world, container.id(), &id).await?;
        ensure!(got == wanted, "signal {number} gave {got}");
    }
    Ok(())
}

async fn a_process_that_never_was_is_gone_in_the_words_shims_look_for(world: &World) -> Result<()> {
    let id = world.shared().await?.id().to_owned();
    let text = world.refused("WaitProcess", &wait(&id, "nobody"), Code::NOT_FOUND).await?;
    ensure!(text.contains(GONE) && text.contains("process not found"), "{text}");
    world.refused("WaitProcess", &wait("nobody", ""), Code::NOT_FOUND).await?;
    Ok(())
}
