//! Deadlines that pass in the middle of a call. The caller hears DEADLINE_EXCEEDED; what only waited or read is as if it
//! had never been asked, what was begun is finished.

use anyhow::{Result, ensure};
use protobuf::MessageFull;
use protocols::agent::*;
use tests::{Code, Running};

use crate::case::{Case, cases};
use crate::containers::creation;
use crate::processes::exec;
use crate::world::{Answer, World, expect};

pub(crate) const CASES: &[Case] = cases! {
    Pod "*" Misuse waits_and_reads_end_with_their_deadline_and_take_nothing;
    Pod "*" Misuse a_write_past_its_deadline_is_finished_in_order;
    Pod "*" Misuse what_was_begun_is_finished_past_its_deadline;
    Pod "*" Misuse strange_deadlines_are_taken_for_what_they_are;
};

const SOON: i64 = 100_000_000;

async fn send<Q: MessageFull>(world: &World, name: &str, request: &Q, nanoseconds: i64) -> Result<Answer> {
    world.send_timed(name, request.write_to_bytes()?, nanoseconds).await
}

async fn waits_and_reads_end_with_their_deadline_and_take_nothing(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let container = world.shared().await?;
    let process =
        container.exec(["sh", "-c", "read line; echo $line; echo $line >&2; exit 4"]).start().await?;
    let (id, exec_id) = (container.id().to_owned(), process.exec_id().to_owned());
    let read = || ReadStreamRequest {
        container_id: id.clone(),
        exec_id: exec_id.clone(),
        len: 100,
        ..Default::default()
    };
    let wait =
        WaitProcessRequest { container_id: id.clone(), exec_id: exec_id.clone(), ..Default::default() };
    for _ in 0..3 {
        let passes = [
            ("WaitProcess", send(world, "WaitProcess", &wait, SOON).await?),
            ("ReadStdout", send(world, "ReadStdout", &read(), SOON).await?),
            ("ReadStderr", send(world, "ReadStderr", &read(), SOON).await?),
            ("GetOOMEvent", send(world, "GetOOMEvent", &GetOOMEventRequest::new(), SOON).await?),
        ];
        for (name, answer) in passes {
            expect(name, answer, Code::DEADLINE_EXCEEDED)?;
        }
    }
    if let Err(error) = process.write(b"nothing is lost\n").await {
        anyhow::bail!("it cannot be written to ({error}): {:?}", process.finish().await);
    }
    let finished = process.finish().await?;
    ensure!(finished.status == 4, "{finished:?}");
    ensure!(finished.stdout == b"nothing is lost\n" && finished.stderr == finished.stdout, "{finished:?}");
    world.is_as_before(&before).await
}

async fn a_write_past_its_deadline_is_finished_in_order(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let container = world.shared().await?;
    let script = "read -r go </tmp/go; wc -c";
    container.sh("rm -f /tmp/go; mkfifo /tmp/go").await?;
    let process = container.exec(["sh", "-c", script]).start().await?;
    // More than a pipe holds, and nobody reads it yet.
    let data = vec![b'x'; 200_000];
    let request = WriteStreamRequest {
        container_id: container.id().into(),
        exec_id: process.exec_id().into(),
        data,
        ..Default::default()
    };
    expect("WriteStdin", send(world, "WriteStdin", &request, SOON).await?, Code::DEADLINE_EXCEEDED)?;
    container.sh("echo go >/tmp/go").await?;
    process.write(b"more").await?;
    process.close_stdin().await?;
    let text = process.finish().await?.success()?;
    ensure!(text.trim() == "200004", "{text} bytes arrived");
    container.sh("rm /tmp/go").await?;
    world.is_as_before(&before).await
}

async fn what_was_begun_is_finished_past_its_deadline(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let id = world.id("late");
    let create = creation(world, &id);
    // So soon that no guest can have done it.
    let answer = send(world, "CreateContainer", &create, 1_000_000).await?;
    expect("CreateContainer", answer, Code::DEADLINE_EXCEEDED)?;
    // It is, or will be: the id is taken, and what comes next queues behind the create.
    let again = world.refused("CreateContainer", &create, Code::ALREADY_EXISTS).await?;
    ensure!(again.contains(&id), "{again}");
    let container = world.guest.container(&id).made();
    container.start().await?;
    let answer = send(world, "ExecProcess", &exec(&id, "e1", &["sh", "-c", "exit 6"]), 1_000_000).await?;
    expect("ExecProcess", answer, Code::DEADLINE_EXCEEDED)?;
    // A command of the same container comes after it.
    container.update(None).await?;
    container.exec(["true"]).run().await?;
    ensure!(Running::of(world.guest.client(), &id, "e1").wait().await? == 6);
    let remove = RemoveContainerRequest { container_id: id.clone(), ..Default::default() };
    let answer = send(world, "RemoveContainer", &remove, 1_000_000).await?;
    expect("RemoveContainer", answer, Code::DEADLINE_EXCEEDED)?;
    world.is_as_before(&before).await
}

async fn strange_deadlines_are_taken_for_what_they_are(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    // None, centuries, and less than nothing, which ttrpc takes for centuries.
    for nanoseconds in [0, i64::MAX, -1, i64::MIN] {
        let answer = world.send_timed("Check", Vec::new(), nanoseconds).await?;
        ensure!(answer.is_ok(), "{nanoseconds} ns: {answer:?}");
    }
    expect("GetOOMEvent", world.send_timed("GetOOMEvent", Vec::new(), 1).await?, Code::DEADLINE_EXCEEDED)?;
    world.is_as_before(&before).await
}
