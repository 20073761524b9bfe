//! Hostile clients of the sandbox API, by HTTP of their own over vsock.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::scene::Scene;

/// The API's vsock port.
const PORT: u32 = 49983;
/// How long the agent keeps what ended commands came to, and a little more.
const FORGOTTEN: Duration = Duration::from_secs(32);

/// A connection to the API.
struct Http(BufReader<UnixStream>);

impl Http {
    async fn open(scene: &Scene) -> Result<Http> {
        Ok(Http(BufReader::new(scene.guest.vm().dial(PORT).await?)))
    }

    /// Sends a request to the neighbour's container, and does not look at the answer.
    async fn send(&mut self, line: &str, kind: &str, body: &[u8]) -> Result<()> {
        let head = format!(
            "{line} HTTP/1.1\r\nHost: box\r\nE2b-Sandbox-Id: neighbour\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all(&[head.as_bytes(), body].concat()).await?;
        Ok(())
    }

    /// Reads a line without its end.
    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line).await? > 0, "the connection has ended");
        Ok(line.trim_end().to_owned())
    }

    /// Reads an answer: its status and its body.
    async fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        let line = self.line().await?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.with_context(|| format!("no status in {line:?}"))?;
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let field = self.line().await?.to_ascii_lowercase();
            if field.is_empty() {
                break;
            }
            if let Some(text) = field.strip_prefix("content-length:") {
                length = text.trim().parse()?;
            }
            is_chunked |= field.starts_with("transfer-encoding:") && field.ends_with("chunked");
        }
        let mut body = vec![0; length];
        if !is_chunked {
            self.0.read_exact(&mut body).await?;
            return Ok((status, body));
        }
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16)?;
            let mut chunk = vec![0; size];
            self.0.read_exact(&mut chunk).await?;
            body.extend(chunk);
            self.line().await?;
            if size == 0 {
                return Ok((status, body));
            }
        }
    }

    /// Begins a command.
    async fn start(&mut self, script: &str) -> Result<()> {
        let asked = json!({ "process": { "cmd": "/bin/sh", "args": ["-c", script] }, "stdin": false });
        let asked = asked.to_string();
        let mut frame = vec![0];
        frame.extend(u32::try_from(asked.len())?.to_be_bytes());
        frame.extend(asked.as_bytes());
        self.send("POST /process.Process/Start", "application/connect+json", &frame).await
    }

    /// Whether the API answers.
    async fn is_healthy(&mut self) -> Result<()> {
        self.send("GET /health", "text/plain", b"").await?;
        let (status, _) = self.answer().await?;
        ensure!(status == 204, "{status}");
        Ok(())
    }
}

/// The messages of a stream.
fn frames(mut body: &[u8]) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    while let Some((head, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        ensure!(rest.len() >= length, "a message is cut off");
        let (message, rest) = rest.split_at(length);
        all.push(serde_json::from_slice(message)?);
        body = rest;
    }
    Ok(all)
}

/// A thousand commands, from eight connections that are used again.
pub(crate) async fn thousand_commands(scene: &Scene) -> Result<()> {
    let client = |number| async move {
        let mut http = Http::open(scene).await?;
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
        all.push(Http::open(scene).await?);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for http in &mut all {
        http.is_healthy().await?;
    }
    Ok(())
}

/// A client that does not read what its command writes: others run commands, and the command can be killed.
pub(crate) async fn stalled_reader(scene: &Scene) -> Result<()> {
    let mut stalled = Http::open(scene).await?;
    stalled.start("head -c 33554432 /dev/zero; echo end").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut other = Http::open(scene).await?;
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
    let mut killer = Http::open(scene).await?;
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
        let mut http = Http::open(scene).await?;
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
    Http::open(scene).await?.is_healthy().await
}

/// A file that has no end, one that waits for a writer, and a device are no downloads.
pub(crate) async fn files_without_an_end(scene: &Scene) -> Result<()> {
    scene.neighbour.sh("mkfifo /tmp/pipe; ln -sf /dev/zero /tmp/zero; mkdir -p /tmp/many").await?;
    let mut http = Http::open(scene).await?;
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
