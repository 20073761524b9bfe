//! Clients that ask for much, take nothing, say nothing that can be read, or are gone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use machine::vm::AgentClient;
use protobuf::Message as _;
use protocols::agent::{CopyFileRequest, WaitProcessRequest};
use tests::{Code, Frame, RawClient, Running, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::scene::Scene;

const SERVICE: &str = "grpc.AgentService";
/// Largest payload of a frame.
const LARGEST: usize = 4 << 20;

/// Requests of a client that reads nothing, and is gone in the end.
pub(crate) async fn unread_answers(scene: &Scene) -> Result<()> {
    let before = scene.inspector.agent_rss_kib().await?;
    let mut client = RawClient::dial(&scene.guest).await?;
    let all: Vec<u8> = (0..500)
        .flat_map(|n| Frame::request(2 * n + 1, SERVICE, "GetMetrics", Vec::new(), 0).bytes())
        .collect();
    client.send(&all).await?;
    let (mut last, mut now) = (0, scene.inspector.agent_rss_kib().await?);
    while now > last + 64 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        (last, now) = (now, scene.inspector.agent_rss_kib().await?);
    }
    println!("agent VmRSS: {before} KiB, {now} KiB with unread answers");
    ensure!(now < before + 4 * 1024, "{before} KiB grew to {now} KiB");
    client.vanish().await
}

/// More calls on one connection than may run at once, each of which waits for as long as a container lives.
pub(crate) async fn waits(scene: &Scene) -> Result<()> {
    let mut client = RawClient::dial(&scene.guest).await?;
    let request = WaitProcessRequest { container_id: scene.neighbour.id().into(), ..Default::default() };
    let payload = request.write_to_bytes()?;
    let all: Vec<u8> = (0..1100)
        .flat_map(|n| Frame::request(2 * n + 1, SERVICE, "WaitProcess", payload.clone(), 0).bytes())
        .collect();
    client.send(&all).await?;
    scene.neighbour_lives().await.context("while all wait")?;
    client.vanish().await
}

/// Calls that all have the same stream id are all answered.
pub(crate) async fn one_stream_id(scene: &Scene) -> Result<()> {
    let mut client = RawClient::dial(&scene.guest).await?;
    let all: Vec<u8> = (0..300).flat_map(|_| Frame::check(1).bytes()).collect();
    client.send(&all).await?;
    for number in 0..300 {
        let answer = client.receive().await.with_context(|| format!("answer {number}"))?;
        ensure!(answer.stream == 1 && answer.status()?.0 == Code::OK, "{answer:?}");
    }
    Ok(())
}

/// Half headers, headers that promise more than follows, and the most of a payload without its end.
pub(crate) async fn half_frames(scene: &Scene) -> Result<()> {
    let mut clients = Vec::new();
    for number in 0..60 {
        let mut client = RawClient::dial(&scene.guest).await?;
        let bytes = match number % 3 {
            0 => vec![0, 0, 0],
            1 => Frame::header(LARGEST as u32, 1, 1, 0),
            _ => [Frame::header(u32::MAX, 1, 1, 0), vec![7; 5000]].concat(),
        };
        client.send(&bytes).await?;
        clients.push(client);
    }
    for _ in 0..4 {
        let mut client = RawClient::dial(&scene.guest).await?;
        client.send(&[Frame::header(LARGEST as u32, 1, 1, 0), vec![7; LARGEST - 1]].concat()).await?;
        clients.push(client);
    }
    scene.neighbour_lives().await.context("while none of them ends")?;
    for client in clients {
        client.vanish().await?;
    }
    Ok(())
}

/// Payloads that are no message, for methods that do much; the last ones are large.
pub(crate) async fn garbage(scene: &Scene) -> Result<()> {
    let mut client = RawClient::dial(&scene.guest).await?;
    // A field longer than what follows, a bad tag, a group that never ends, a varint without an end.
    let garbage: [&[u8]; 5] =
        [&[0x7a, 0x7f, 0x01], &[0x00, 0x01], &[0x0b, 0x08, 0x01], &[0x08, 0xff, 0xff], &[0x0b; 1 << 20]];
    let methods =
        ["CreateContainer", "ExecProcess", "CreateSandbox", "CopyFile", "UpdateRoutes", "SetIPTables"];
    for (number, (method, bytes)) in
        (0..).zip(methods.iter().flat_map(|method| garbage.iter().map(move |bytes| (method, bytes))))
    {
        let frame = Frame::request(2 * number + 1, SERVICE, method, bytes.to_vec(), 0);
        let (code, text) = client.call(&frame).await?;
        ensure!(code == Code::INVALID_ARGUMENT, "{method}: {code:?} {text}");
    }
    Ok(())
}

/// Connections that say nothing.
pub(crate) async fn connections(scene: &Scene) -> Result<()> {
    let before = scene.inspector.agent_rss_kib().await?;
    let mut clients = Vec::new();
    for number in 0..500 {
        clients.push(RawClient::dial(&scene.guest).await.with_context(|| format!("connection {number}"))?);
    }
    scene.neighbour_lives().await.context("beside them")?;
    let now = scene.inspector.agent_rss_kib().await?;
    println!("agent VmRSS: {before} KiB, {now} KiB with 500 connections");
    ensure!(now < before + 16 * 1024, "{before} KiB grew to {now} KiB");
    for client in clients {
        client.vanish().await?;
    }
    Ok(())
}

/// A client that is gone some milliseconds after it has asked for a container, or for a process in it.
pub(crate) async fn vanishes(scene: &Scene) -> Result<()> {
    for (number, stay) in [0, 1, 5, 20, 50, 100, 200].into_iter().enumerate() {
        let builder = scene.guest.container(&format!("left{number}"));
        let container = builder.made();
        for frame in [builder.call(1), container.exec(["sleep", "1000"]).call(1)] {
            let mut client = RawClient::dial(&scene.guest).await?;
            client.send(&frame.bytes()).await?;
            tokio::time::sleep(Duration::from_millis(stay)).await;
            client.vanish().await?;
        }
        // A request may still be on its way, and what it makes would be there after the removal.
        let is_gone = async || match container.remove().await {
            Ok(()) => Ok(true),
            Err(ttrpc::Error::RpcStatus(status)) if status.code() == Code::NOT_FOUND => Ok(true),
            Err(error) => Err(error).context("remove it"),
        };
        until("the container is gone", is_gone).await?;
        until("nothing is left of it", async || {
            let gone = container.remove().await;
            Ok(matches!(gone, Err(ttrpc::Error::RpcStatus(status)) if status.code() == Code::NOT_FOUND))
        })
        .await?;
    }
    Ok(())
}

/// The most copies that the agent keeps unfinished (docs/architecture/bounds.md).
const COPIES: usize = 64;

/// Begins many copies and ends none, then ends those that are left: each is a descriptor.
pub(crate) async fn unfinished_copies(scene: &Scene) -> Result<()> {
    const PIECE: usize = 64 * 1024;
    let before = scene.inspector.footprint().await?;
    let piece = |number: usize, offset: usize, length: usize| CopyFileRequest {
        path: format!("/run/kata-containers/shared/containers/flood/{number}"),
        file_size: PIECE as i64 + 1,
        file_mode: 0o100_644,
        dir_mode: 0o755,
        uid: 0,
        gid: 0,
        offset: offset as i64,
        data: vec![7; length],
        ..CopyFileRequest::default()
    };
    for number in 0..200 {
        scene.guest.api().copy_file(AgentClient::call(), &piece(number, 0, PIECE)).await?;
    }
    let now = scene.inspector.footprint().await?;
    let more = now.descriptors.saturating_sub(before.descriptors);
    ensure!(more <= COPIES as u64, "200 unfinished copies are {more} descriptors");
    for number in 200 - COPIES..200 {
        scene.guest.api().copy_file(AgentClient::call(), &piece(number, PIECE, 1)).await?;
    }
    scene.inspector.sh("rm -r /guest/run/kata-containers/shared/containers/flood").await?;
    Ok(())
}

/// Connections for streams that no process is made for: 192 wait, 15 seconds each.
pub(crate) async fn unclaimed_streams(scene: &Scene) -> Result<()> {
    let mut all = Vec::new();
    for _ in 0..250 {
        all.push(scene.guest.pass().await?);
    }
    scene.neighbour_lives().await.context("beside them")?;
    for mut passed in all {
        // Sooner or later the guest hangs up.
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(120), passed.stream.read_to_end(&mut rest));
        end.await.context("a stream that nobody claims stays open")?.ok();
    }
    Ok(())
}

/// More sessions than the console has, in the midst of a line, and gone.
pub(crate) async fn console_sessions(scene: &Scene) -> Result<()> {
    let mut sessions = Vec::new();
    for _ in 0..60 {
        let mut session = scene.guest.vm().dial(1026).await?;
        session.write_all(b"hel").await.ok();
        sessions.push(session);
    }
    scene.neighbour_lives().await.context("beside them")?;
    let mut refused = 0;
    for mut session in sessions {
        // The end of what this side sends ends the session; it is read to its end, so that the device tells the guest.
        session.shutdown().await.ok();
        let mut text = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(60), session.read_to_end(&mut text));
        end.await.context("a session that never ends")?.ok();
        refused += usize::from(String::from_utf8_lossy(&text).contains("too many"));
    }
    ensure!(refused > 0, "all sixty were let in");
    Ok(())
}

/// Readers of the log who do not read, while there is much to tell.
pub(crate) async fn log_readers(scene: &Scene) -> Result<()> {
    let before = scene.inspector.agent_rss_kib().await?;
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(scene.guest.vm().dial(1025).await?);
    }
    for _ in 0..100 {
        let nobody = Running::of(scene.guest.client(), "nobody", "");
        ensure!(nobody.wait().await.is_err());
        ensure!(scene.neighbour.exec([&"x".repeat(4000)]).start().await.is_err());
    }
    let now = scene.inspector.agent_rss_kib().await?;
    ensure!(now < before + 4 * 1024, "{before} KiB grew to {now} KiB");
    for mut reader in readers {
        reader.shutdown().await.ok();
        // It may have been told more than the device takes to tell of the end.
        let mut rest = Vec::new();
        let drain = tokio::time::timeout(Duration::from_secs(5), reader.read_to_end(&mut rest));
        drain.await.ok();
    }
    Ok(())
}
