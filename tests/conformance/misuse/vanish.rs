//! Clients that vanish in the middle of their calls. What they began is finished, what they waited for is let go, and
//! others find everything in order.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use machine::vm::AgentClient;
use protobuf::{Message as _, MessageFull};
use protocols::agent::*;
use tests::{Code, Container, Frame, RawClient, until, until_some};

use crate::case::{Case, cases};
use crate::containers::creation;
use crate::processes::exec;
use crate::sandbox::{SCRATCH, tmpfs};
use crate::world::World;

pub(crate) const CASES: &[Case] = cases! {
    Pod "*" Misuse creators_that_vanish_leave_a_whole_container_or_none;
    Pod "*" Misuse starters_that_vanish_leave_it_started_or_not;
    Pod "*" Misuse execs_of_clients_that_vanish_run_or_do_not;
    Pod "*" Misuse waiters_and_readers_that_vanish_take_nothing_with_them;
    Pod "*" Misuse writers_that_vanish_have_written_all_or_nothing;
    Pod "*" Misuse removers_that_vanish_are_obeyed;
    Pod "*" Misuse pauses_and_updates_of_clients_that_vanish_leave_one_state;
    Pod "*" Misuse every_method_survives_its_client;
    Brief "*" Misuse a_sandbox_whose_client_vanishes_is_whole;
    BriefEnd "*" Misuse a_destroyer_that_vanishes_is_obeyed;
};

/// How long a client stays after it has asked. The answers take about as long, so some are cut before, some after.
const STAYS: [u64; 5] = [0, 1, 5, 20, 100];

/// Asks over a connection of its own, and is gone after some milliseconds.
async fn ask<Q: MessageFull>(world: &World, name: &str, request: &Q, milliseconds: u64) -> Result<()> {
    ask_bytes(world, name, request.write_to_bytes()?, milliseconds).await
}

async fn ask_bytes(world: &World, name: &str, payload: Vec<u8>, milliseconds: u64) -> Result<()> {
    let service = world.method(name)?.service.clone();
    let mut client = RawClient::dial(&world.guest).await?;
    client.send(&Frame::request(1, &service, name, payload, 0).bytes()).await?;
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    client.vanish().await
}

/// How many sockets the agent has open. One more may be a process that is being started, so the fewest of some looks.
async fn sockets(world: &World) -> Result<usize> {
    let look = "for i in 1 2 3; do ls -l /guest/proc/1/fd | grep -c socket; done | sort -n | head -n 1";
    Ok(world.inspector().await?.sh(look).await?.trim().parse()?)
}

/// Waits until the agent has been told that the askers are gone: it has as many sockets as before they came.
async fn noticed(world: &World, before: usize) -> Result<()> {
    until("the end of a connection", async || Ok(sockets(world).await? <= before)).await
}

/// A code, or OK.
fn code<T>(result: ttrpc::Result<T>) -> Result<Code> {
    match result {
        Ok(_) => Ok(Code::OK),
        Err(ttrpc::Error::RpcStatus(status)) => Ok(status.code()),
        Err(other) => Err(other).context("no answer"),
    }
}

async fn creators_that_vanish_leave_a_whole_container_or_none(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    for stay in STAYS {
        let id = world.id("left");
        ask(world, "CreateContainer", &creation(world, &id), stay).await?;
        let container = world.guest.container(&id).made();
        // A create that never arrived leaves the id free; one that did is finished, and the start queues behind it.
        match code(container.start().await)? {
            Code::OK => ensure!(container.sh("echo whole").await? == "whole"),
            Code::NOT_FOUND => {}
            other => anyhow::bail!("after {stay} ms a start is {other:?}"),
        }
        // A request that is still on its way would be made after the look.
        let is_removed = async || match code(container.remove().await)? {
            Code::OK | Code::NOT_FOUND => Ok(Some(())),
            _ => Ok(None),
        };
        until_some("the removal", is_removed).await?;
    }
    world.is_as_before(&before).await
}

async fn starters_that_vanish_leave_it_started_or_not(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    for stay in STAYS {
        let container = world.container().create().await?;
        let start = StartContainerRequest { container_id: container.id().into(), ..Default::default() };
        ask(world, "StartContainer", &start, stay).await?;
        let again = code(container.start().await)?;
        ensure!(matches!(again, Code::OK | Code::FAILED_PRECONDITION), "after {stay} ms: {again:?}");
        ensure!(container.sh("echo runs").await? == "runs");
        container.remove().await?;
    }
    world.is_as_before(&before).await
}

async fn execs_of_clients_that_vanish_run_or_do_not(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let container = world.container().run().await?;
    for stay in STAYS {
        let id = format!("left-{stay}");
        ask(world, "ExecProcess", &exec(container.id(), &id, &["sh", "-c", "exit 7"]), stay).await?;
        let same = container.exec(["sh", "-c", "exit 7"]).id(&id);
        let again = code(same.start().await)?;
        ensure!(matches!(again, Code::OK | Code::ALREADY_EXISTS), "after {stay} ms: {again:?}");
        let running = tests::Running::of(world.guest.client(), container.id(), &id);
        let status = until_some("the exec", async || match running.wait().await {
            Ok(status) => Ok(Some(status)),
            Err(error) => match code::<()>(Err(error))? {
                // Its id is taken while it is being started.
                Code::NOT_FOUND => Ok(None),
                other => anyhow::bail!("after {stay} ms a wait is {other:?}"),
            },
        })
        .await?;
        ensure!(status == 7, "after {stay} ms the status is {status}");
    }
    container.remove().await?;
    world.is_as_before(&before).await
}

async fn waiters_and_readers_that_vanish_take_nothing_with_them(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let container = world.shared().await?;
    let process = container.exec(["sh", "-c", "read line; echo $line; exit 5"]).start().await?;
    let (id, exec_id) = (container.id(), process.exec_id());
    let read = ReadStreamRequest {
        container_id: id.into(),
        exec_id: exec_id.into(),
        len: 100,
        ..Default::default()
    };
    let wait = WaitProcessRequest { container_id: id.into(), exec_id: exec_id.into(), ..Default::default() };
    let connected = sockets(world).await?;
    for stay in STAYS {
        ask(world, "ReadStdout", &read, stay).await?;
        ask(world, "ReadStderr", &read, stay).await?;
        ask(world, "WaitProcess", &wait, stay).await?;
        ask(world, "GetOOMEvent", &GetOOMEventRequest::new(), stay).await?;
    }
    noticed(world, connected).await?;
    process.write(b"for those who stay\n").await?;
    let finished = process.finish().await?;
    ensure!(
        (finished.status, finished.stdout.as_slice()) == (5, &b"for those who stay\n"[..]),
        "{finished:?}"
    );
    world.is_as_before(&before).await
}

async fn writers_that_vanish_have_written_all_or_nothing(world: &World) -> Result<()> {
    const PART: usize = 100_000;
    let before = world.snapshot().await?;
    let container = world.shared().await?;
    let process = container.exec(["sh", "-c", "sleep 1; wc -c"]).start().await?;
    let write = WriteStreamRequest {
        container_id: container.id().into(),
        exec_id: process.exec_id().into(),
        data: vec![b'x'; PART],
        ..Default::default()
    };
    let connected = sockets(world).await?;
    for stay in STAYS {
        ask(world, "WriteStdin", &write, stay).await?;
    }
    noticed(world, connected).await?;
    process.write(b"end").await?;
    process.close_stdin().await?;
    let text = process.finish().await?.success()?;
    let count: usize = text.trim().parse()?;
    ensure!(count % PART == 3 && count > PART, "{count} bytes arrived");
    world.is_as_before(&before).await
}

async fn removers_that_vanish_are_obeyed(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    for stay in STAYS {
        let container = world.container().script("sleep 1000 & sleep 1000").run().await?;
        let remove = RemoveContainerRequest { container_id: container.id().into(), ..Default::default() };
        ask(world, "RemoveContainer", &remove, stay).await?;
        let again = code(container.remove().await)?;
        // The first to come removes it; another then finds none, or one that is gone when its turn comes.
        ensure!(
            matches!(again, Code::OK | Code::NOT_FOUND | Code::FAILED_PRECONDITION),
            "after {stay} ms a removal is {again:?}"
        );
        let is_gone = async || {
            let gone = code(container.stats().await)? == Code::NOT_FOUND;
            Ok(gone.then_some(()))
        };
        until_some("the removal", is_gone).await?;
    }
    world.is_as_before(&before).await
}

/// Brings a container to run, whatever state it is in.
async fn runs(container: &Container) -> Result<()> {
    let resumed = code(container.resume().await)?;
    ensure!(matches!(resumed, Code::OK | Code::FAILED_PRECONDITION), "resume: {resumed:?}");
    ensure!(container.sh("echo runs").await? == "runs");
    Ok(())
}

async fn pauses_and_updates_of_clients_that_vanish_leave_one_state(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let container = world.container().run().await?;
    let id = container.id();
    let mut resources = protocols::oci::LinuxResources::new();
    resources.Pids.mut_or_insert_default().Limit = 50;
    let pause = PauseContainerRequest { container_id: id.into(), ..Default::default() };
    let resume = ResumeContainerRequest { container_id: id.into(), ..Default::default() };
    let update = UpdateContainerRequest {
        container_id: id.into(),
        resources: Some(resources).into(),
        ..Default::default()
    };
    let connected = sockets(world).await?;
    for stay in STAYS {
        ask(world, "PauseContainer", &pause, stay).await?;
        // A pause that comes late would meet the check.
        container.stats().await?;
        noticed(world, connected).await?;
        runs(&container).await?;
        container.pause().await?;
        ask(world, "ResumeContainer", &resume, stay).await?;
        noticed(world, connected).await?;
        runs(&container).await?;
        ask(world, "UpdateContainer", &update, stay).await?;
        noticed(world, connected).await?;
        let limit = container.stats().await?.cgroup_stats.pids_stats.limit;
        ensure!(limit == 50 || limit == 0, "after {stay} ms the limit is {limit}");
        runs(&container).await?;
    }
    container.remove().await?;
    world.is_as_before(&before).await
}

async fn a_sandbox_whose_client_vanishes_is_whole(world: &World) -> Result<()> {
    let request = CreateSandboxRequest {
        sandbox_id: "pod".into(),
        hostname: "pod".into(),
        storages: vec![tmpfs(SCRATCH, &["size=1m"])],
        ..Default::default()
    };
    ask(world, "CreateSandbox", &request, 0).await?;
    // It arrived, or this one makes it; either way there is one, soon.
    let again = code(world.guest.api().create_sandbox(AgentClient::call(), &request).await)?;
    ensure!(matches!(again, Code::OK | Code::ALREADY_EXISTS), "{again:?}");
    let builder = world.container().mount("/scratch", "bind", SCRATCH, &["rbind", "rw"]);
    let container = until_some("the sandbox", async || match builder.try_create().await {
        Ok(container) => Ok(Some(container)),
        Err(error) => match code::<()>(Err(error))? {
            Code::FAILED_PRECONDITION => Ok(None),
            other => anyhow::bail!("a create is {other:?}"),
        },
    })
    .await?;
    container.start().await?;
    ensure!(container.sh("hostname").await? == "pod", "it has another hostname");
    Ok(())
}

async fn a_destroyer_that_vanishes_is_obeyed(world: &World) -> Result<()> {
    crate::sandbox::ensure(world).await?;
    world.container().run().await?;
    let mut client = RawClient::dial(&world.guest).await?;
    let frame = Frame::request(1, "grpc.AgentService", "DestroySandbox", Vec::new(), 0);
    client.send(&frame.bytes()).await?;
    drop(client);
    ensure!(world.guest.vm().wait_off(Duration::from_secs(60)).await, "the machine stays on");
    Ok(())
}

/// Requests that do something, for methods where an empty one would not.
fn something(world: &World, name: &str) -> Result<Vec<u8>> {
    let shared = "shared".to_owned();
    let method = world.method(name)?;
    Ok(match name {
        "UpdateEphemeralMounts" => {
            let storages = vec![tmpfs(SCRATCH, &["size=8m", "mode=1777"])];
            UpdateEphemeralMountsRequest { storages, ..Default::default() }.write_to_bytes()?
        }
        "GetVolumeStats" => method.request(&[], &[("volume_guest_path", "/run")])?,
        "OnlineCPUMem" => OnlineCPUMemRequest { nb_cpus: 2, ..Default::default() }.write_to_bytes()?,
        "ReseedRandomDev" => {
            ReseedRandomDevRequest { data: vec![1; 64], ..Default::default() }.write_to_bytes()?
        }
        "SignalProcess" | "StatsContainer" | "TtyWinResize" => {
            method.request(&[], &[("container_id", &shared)])?
        }
        _ => Vec::new(),
    })
}

async fn every_method_survives_its_client(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let names: Vec<String> = world.methods.iter().map(|method| method.name.clone()).collect();
    for name in names.iter().filter(|name| *name != "DestroySandbox") {
        for stay in [0, 5] {
            ask_bytes(world, name, something(world, name)?, stay).await?;
        }
    }
    world.is_as_before(&before).await
}
