//! Hostile clients of the sandbox API, by HTTP of their own over vsock.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tests::{Http, SANDBOX_PORT as PORT, frames};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::scene::Scene;

/// How long the agent keeps what ended commands came to, and a little more.
const FORGOTTEN: Duration = Duration::from_secs(32);

/// A connection to the API of the scene's guest.
async fn open(scene: &Scene) -> Result<Http> {
    Http::open(&scene.guest, "neighbour").await
}

/// A thousand commands, from eight connections that are used again.
pub(crate) async fn thousand_commands(scene: &Scene) -> Result<()> {
    let client = |number| async move {
        let mut http = open(scene).await?;
        for round in 0..125 {
            http.start(&format!("exit {}", round % 7)).await?;
            let (status, body) = http.answer().await?;
            ensure!(status == 200, "{status}");
            let frames = frames(&body)?;
            let end = frames.iter().find_map(|frame| frame["event"]["end"].as_object());
            let end = end.with_context(|| format!("client {number}, round {round}: no end in {frames:?}"))?;
            let code = end.get("exitCode").and_then(Value::as_i64).unwrap_or_default();
            ensure!(code == round % 7, "client {number}, round {round}: {end:?}");
        }
        anyhow::Ok(())
    };
    tokio::try_join!(client(1), client(2), client(3), client(4), client(5), client(6), client(7), client(8))?;
    tokio::time::sleep(FORGOTTEN).await;
    Ok(())
}

/// Two hundred connections that say nothing; then each says something.
pub(crate) async fn idle_connections(scene: &Scene) -> Result<()> {
    let mut all = Vec::new();
    for _ in 0..200 {
        all.push(open(scene).await?);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for http in &mut all {
        http.is_healthy().await?;
    }
    Ok(())
}

/// A client that does not read what its command writes: others run commands, and the command can be killed.
pub(crate) async fn stalled_reader(scene: &Scene) -> Result<()> {
    let mut stalled = open(scene).await?;
    stalled.start("head -c 33554432 /dev/zero; echo end").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut other = open(scene).await?;
    other.start("echo here").await?;
    let (status, body) = other.answer().await?;
    ensure!(status == 200 && frames(&body)?.len() >= 3, "{status}");
    let mut list = async || {
        other.send("POST /process.Process/List", "application/json", b"{}").await?;
        let (_, body) = other.answer().await?;
        anyhow::Ok(
            serde_json::from_slice::<Value>(&body)?["processes"].as_array().cloned().unwrap_or_default(),
        )
    };
    let running = list().await?;
    let [command] = running.as_slice() else { bail!("not one command runs: {running:?}") };
    let order = json!({ "process": { "pid": command["pid"] }, "signal": "SIGNAL_SIGKILL" }).to_string();
    let mut killer = open(scene).await?;
    killer.send("POST /process.Process/SendSignal", "application/json", order.as_bytes()).await?;
    let (status, body) = killer.answer().await?;
    ensure!(status == 200, "{status} {}", String::from_utf8_lossy(&body));
    for _ in 0..100 {
        if list().await?.is_empty() {
            // What was written before is still for the client that did not read it.
            let (status, body) = stalled.answer().await?;
            ensure!(status == 200, "{status}");
            let frames = frames(&body)?;
            let end = frames.iter().find_map(|frame| frame["event"]["end"].as_object());
            ensure!(end.is_some_and(|end| end["status"] == "signal: killed"), "{end:?}");
            tokio::time::sleep(FORGOTTEN).await;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    bail!("the command of a client that does not read does not end")
}

/// Clients that are killed as soon as they have asked.
pub(crate) async fn killed_clients(scene: &Scene) -> Result<()> {
    for round in 0..60 {
        let mut http = open(scene).await?;
        http.start("sleep 1; echo late").await?;
        if round % 2 == 0 {
            // After the first message of the answer.
            http.line().await?;
        }
    }
    tokio::time::sleep(FORGOTTEN + Duration::from_secs(4)).await;
    Ok(())
}

/// Heads that never end, chunks that promise too much, forms without an end: each is refused or given up, and the port answers.
pub(crate) async fn broken_requests(scene: &Scene) -> Result<()> {
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = scene.guest.vm().dial(PORT).await?;
        stream.write_all(b"GET /hea").await?;
        slow.push(stream);
    }
    let endless_head = [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; 200_000]].concat();
    let chunk = "POST /process.Process/List HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let form = "POST /files?path=/tmp/x HTTP/1.1\r\nE2b-Sandbox-Id: neighbour\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: ";
    for bad in [
        endless_head,
        format!("{chunk}ffffffffffffffffff\r\n").into_bytes(),
        format!("{chunk}{}\r\n", "1".repeat(10_000)).into_bytes(),
        format!("{chunk}7fffffff\r\n{}", "[".repeat(300_000)).into_bytes(),
        format!("{form}400000\r\n\r\n--b\r\n{}", "H: v\r\n".repeat(60_000)).into_bytes(),
        b"\0\x01\x02\r\n\r\n".to_vec(),
    ] {
        let mut stream = scene.guest.vm().dial(PORT).await?;
        // It may hang up while this is sent.
        drop(stream.write_all(&bad).await);
        drop(stream.shutdown().await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        let answer = String::from_utf8_lossy(&answer);
        let is_refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        ensure!(
            is_refused,
            "{:?} was answered with {answer:?}",
            String::from_utf8_lossy(&bad[..60.min(bad.len())])
        );
    }
    open(scene).await?.is_healthy().await
}

/// A file that has no end, one that waits for a writer, and a device are no downloads.
pub(crate) async fn files_without_an_end(scene: &Scene) -> Result<()> {
    scene.neighbour.sh("mkfifo /tmp/pipe; ln -sf /dev/zero /tmp/zero; mkdir -p /tmp/many").await?;
    let mut http = open(scene).await?;
    for path in ["/tmp/pipe", "/tmp/zero", "/dev/zero", "/tmp/many"] {
        http.send(&format!("GET /files?path={path}"), "text/plain", b"").await?;
        let (status, body) = http.answer().await?;
        ensure!((400..500).contains(&status), "{path}: {status} {}", String::from_utf8_lossy(&body));
    }
    // Files of /proc have no size, and an end.
    http.send("GET /files?path=/proc/1/status", "text/plain", b"").await?;
    let (status, body) = http.answer().await?;
    ensure!(status == 200 && body.starts_with(b"Name:"), "{status}");
    Ok(())
}
