//! Calls before their time, after it, twice, and two at once.

use anyhow::{Result, ensure};
use protobuf::Message as _;
use protocols::agent::*;
use tests::Code;

use crate::case::{Case, cases};
use crate::containers::creation;
use crate::processes::exec;
use crate::world::{DEADLINE, World, expect};

pub(crate) const CASES: &[Case] = cases! {
    Bare "*" Misuse before_the_sandbox_nothing_about_containers_works;
    Pod "*" Misuse a_container_that_is_not_started_is_not_resumed_but_takes_the_rest;
    Pod "*" Misuse a_stopped_container_takes_no_orders_but_answers_questions;
    Pod "*" Misuse what_is_done_twice_is_refused_once;
    Pod "*" Misuse of_many_at_once_with_one_id_one_wins;
    Pod "*" Misuse a_removed_container_is_gone_for_every_method;
};

async fn before_the_sandbox_nothing_about_containers_works(world: &World) -> Result<()> {
    for method in world.methods.iter().filter(|method| method.takes("container_id")) {
        let (bytes, code) = match method.name.as_str() {
            "CreateContainer" => (creation(world, "early").write_to_bytes()?, Code::FAILED_PRECONDITION),
            "ExecProcess" => (exec("early", "e1", &["true"]).write_to_bytes()?, Code::NOT_FOUND),
            "GetDiagnosticData" => (
                method.request(&[], &[("container_id", "early"), ("log_type", "termination_log")])?,
                Code::NOT_FOUND,
            ),
            _ => (method.request(&[], &[("container_id", "early")])?, Code::NOT_FOUND),
        };
        let answer = world.send(&method.name, bytes, DEADLINE.as_nanos() as i64).await?;
        expect(&format!("{} before CreateSandbox", method.name), answer, code)?;
    }
    Ok(())
}

/// Code of a harness call.
fn code<T>(what: &str, result: ttrpc::Result<T>, code: Code) -> Result<()> {
    let (got, text) = match result {
        Ok(_) => (Code::OK, String::new()),
        Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message().to_owned()),
        Err(other) => anyhow::bail!("{what}: no answer: {other}"),
    };
    ensure!(got == code, "{what}: {got:?} ({text}), {code:?} expected");
    Ok(())
}

async fn a_container_that_is_not_started_is_not_resumed_but_takes_the_rest(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let container = world.container().create().await?;
    code("resume", container.resume().await, Code::FAILED_PRECONDITION)?;
    code("stats", container.stats().await, Code::OK)?;
    code("update", container.update(None).await, Code::OK)?;
    code("signal 0", container.signal("", 0).await, Code::OK)?;
    code("write", container.init().write(b"early").await, Code::OK)?;
    code("pause", container.pause().await, Code::OK)?;
    code("start while paused", container.start().await, Code::FAILED_PRECONDITION)?;
    code("resume", container.resume().await, Code::OK)?;
    code("start", container.start().await, Code::OK)?;
    container.signal("", 9).await?;
    ensure!(container.wait().await? == 137);
    container.remove().await?;
    world.is_as_before(&before).await
}

async fn a_stopped_container_takes_no_orders_but_answers_questions(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let container = world.container().script("echo last words; exit 3").run().await?;
    ensure!(container.wait().await? == 3);
    code("start", container.start().await, Code::FAILED_PRECONDITION)?;
    code("exec", container.exec(["true"]).start().await, Code::FAILED_PRECONDITION)?;
    code("pause", container.pause().await, Code::FAILED_PRECONDITION)?;
    code("resume", container.resume().await, Code::FAILED_PRECONDITION)?;
    code("write", container.init().write(b"x").await, Code::FAILED_PRECONDITION)?;
    code("close stdin", container.init().close_stdin().await, Code::OK)?;
    code("signal", container.signal("", 15).await, Code::OK)?;
    code("kill", container.signal("", 9).await, Code::OK)?;
    code("stats", container.stats().await, Code::OK)?;
    code("create", world.guest.container(container.id()).try_create().await, Code::ALREADY_EXISTS)?;
    ensure!(
        container.init().read(100).await? == b"last words\n" && container.init().read(100).await?.is_empty()
    );
    ensure!(container.wait().await? == 3, "the status is kept");
    container.remove().await?;
    world.is_as_before(&before).await
}

async fn what_is_done_twice_is_refused_once(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let container = world.container().create().await?;
    code("create", world.guest.container(container.id()).try_create().await, Code::ALREADY_EXISTS)?;
    code("start", container.start().await, Code::OK)?;
    code("start again", container.start().await, Code::FAILED_PRECONDITION)?;
    code("pause", container.pause().await, Code::OK)?;
    code("pause again", container.pause().await, Code::FAILED_PRECONDITION)?;
    code("resume", container.resume().await, Code::OK)?;
    code("resume again", container.resume().await, Code::FAILED_PRECONDITION)?;
    code("exec", container.exec(["sleep", "1000"]).id("e1").start().await, Code::OK)?;
    code("exec again", container.exec(["sleep", "1000"]).id("e1").start().await, Code::ALREADY_EXISTS)?;
    code("close stdin", container.init().close_stdin().await, Code::OK)?;
    code("close stdin again", container.init().close_stdin().await, Code::OK)?;
    code("remove", container.remove().await, Code::OK)?;
    code("remove again", container.remove().await, Code::NOT_FOUND)?;
    world.is_as_before(&before).await
}

/// Calls a harness verb many times at once; one is to succeed, the others to be refused with a code.
async fn one_wins<T>(
    what: &str,
    calls: impl IntoIterator<Item = impl Future<Output = ttrpc::Result<T>> + 'static>,
    loser: &[Code],
) -> Result<()>
where
    T: 'static,
{
    let local = tokio::task::LocalSet::new();
    let calls: Vec<_> = calls.into_iter().map(|call| local.spawn_local(call)).collect();
    let mut wins = 0;
    local.await;
    for call in calls {
        match call.await? {
            Ok(_) => wins += 1,
            Err(ttrpc::Error::RpcStatus(status)) => {
                ensure!(loser.contains(&status.code()), "{what}: {:?} {}", status.code(), status.message());
            }
            Err(other) => anyhow::bail!("{what}: no answer: {other}"),
        }
    }
    ensure!(wins == 1, "{what}: {wins} succeeded");
    Ok(())
}

async fn of_many_at_once_with_one_id_one_wins(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let id = world.id("twin");
    let create = |_| {
        let builder = world.guest.container(&id);
        async move { builder.try_create().await }
    };
    one_wins("create", (0..4).map(create), &[Code::ALREADY_EXISTS]).await?;
    let container = world.guest.container(&id).made();
    let start = |_| {
        let container = container.clone();
        async move { container.start().await }
    };
    one_wins("start", (0..4).map(start), &[Code::FAILED_PRECONDITION]).await?;
    let exec = |_| {
        let exec = container.exec(["sleep", "1000"]).id("e1");
        async move { exec.start().await }
    };
    one_wins("exec", (0..4).map(exec), &[Code::ALREADY_EXISTS]).await?;
    let remove = |_| {
        let container = container.clone();
        async move { container.remove().await }
    };
    one_wins("remove", (0..4).map(remove), &[Code::NOT_FOUND, Code::FAILED_PRECONDITION]).await?;
    world.is_as_before(&before).await
}

async fn a_removed_container_is_gone_for_every_method(world: &World) -> Result<()> {
    let container = world.container().run().await?;
    let id = container.id().to_owned();
    container.remove().await?;
    for method in world.methods.iter().filter(|method| method.takes("container_id")) {
        let bytes = match method.name.as_str() {
            "CreateContainer" => continue,
            "ExecProcess" => exec(&id, "e1", &["true"]).write_to_bytes()?,
            "GetDiagnosticData" => {
                let request =
                    GetDiagnosticDataRequest { log_type: "termination_log".into(), ..Default::default() };
                method.request(&request.write_to_bytes()?, &[("container_id", &id)])?
            }
            _ => method.request(&[], &[("container_id", &id)])?,
        };
        let answer = world.send(&method.name, bytes, DEADLINE.as_nanos() as i64).await?;
        expect(&format!("{} after RemoveContainer", method.name), answer, Code::NOT_FOUND)?;
    }
    Ok(())
}
