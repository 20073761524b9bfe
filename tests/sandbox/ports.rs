//! Servers in the pod, reached through the API's port: one of pages, and one whose connections are upgraded.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::{Guest, Http, SANDBOX_PORT, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::behaviour::{BOX, kill};

/// What is told of a port of the pod at which nothing listens.
const CLOSED: &str = "port is not open";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The fields of a request whose connection is to be upgraded.
const UPGRADE: &str = "X-Access-Token: secret\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
/// What the server answers to it.
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
/// A server of one connection. It keeps the request's head in /tmp/head, answers each line, hangs up after the line `bye`, sends
/// back every byte after the line `raw`, and has a last word when its client sends no more.
const SERVER: &str = r#"#!/bin/sh
end=$(printf '\r')
while read -r line && [ "$line" != "$end" ]; do echo "$line"; done > /tmp/head
printf 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
while read -r line; do
  case $line in
    bye) exit ;;
    raw) exec cat ;;
    *) echo "heard $line" ;;
  esac
done
echo ended > /tmp/ended
echo no more
"#;
const SERVER_PORT: u16 = 8081;

/// A connection to a port of the pod, with a request on its way there.
async fn request(guest: &Guest, port: u16, fields: &str) -> Result<UnixStream> {
    let mut stream = guest.vm().dial(SANDBOX_PORT).await?;
    let head =
        format!("GET /page HTTP/1.1\r\nE2b-Sandbox-Id: {BOX}\r\nE2b-Sandbox-Port: {port}\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).await?;
    Ok(stream)
}

/// What comes until it is so, or the connection ends.
async fn read(stream: &mut UnixStream, is_all: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    let (mut all, mut piece) = (Vec::new(), vec![0; 4096]);
    while !is_all(&all) {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut piece)).await;
        match read.with_context(|| format!("after {:?}", String::from_utf8_lossy(&all)))?? {
            0 => break,
            length => all.extend_from_slice(&piece[..length]),
        }
    }
    Ok(all)
}

/// Sends one message, and reads what is due then.
async fn exchange(stream: &mut UnixStream, message: &[u8], expected: &[u8]) -> Result<()> {
    stream.write_all(message).await?;
    let answer = read(stream, |all| all.len() >= expected.len()).await?;
    ensure!(answer == expected, "{:?} instead of {:?}", answer.escape_ascii(), expected.escape_ascii());
    Ok(())
}

/// Puts [`SERVER`] into the container, and starts it.
async fn serve(mut http: Http) -> Result<Http> {
    let line = "POST /files?path=/tmp/server";
    let (status, _) = http.ask(line, "application/octet-stream", SERVER.as_bytes()).await?;
    ensure!(status == 200, "{status}");
    http.start(&format!("chmod +x /tmp/server; exec nc -ll -p {SERVER_PORT} -e /tmp/server")).await?;
    Ok(http)
}

/// Over vsock. A device of vsock may know no half-close; [`over_tcp`] has one.
pub(crate) async fn over_vsock(guest: &Guest) -> Result<()> {
    let page = async |fields: &str| {
        let is_closed = |all: &[u8]| String::from_utf8_lossy(all).contains(CLOSED);
        let answer = read(&mut request(guest, 8080, fields).await?, is_closed).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = page("").await?;
    ensure!(answer.starts_with("HTTP/1.1 502 ") && answer.contains(CLOSED), "{answer}");
    let mut pages = Http::open(guest, BOX).await?;
    pages.start("echo text > /tmp/page; exec httpd -f -p 127.0.0.1:8080 -h /tmp").await?;
    let mut server = serve(Http::open(guest, BOX).await?).await?;
    let started = [pages.message().await?, server.message().await?];
    until("pages are served", async || {
        let answer = page("X-Access-Token: secret\r\n").await?;
        Ok(answer.split(' ').nth(1) == Some("200") && answer.ends_with("text\n"))
    })
    .await?;
    upgraded(guest).await.context("an upgraded connection")?;
    for event in started {
        kill(guest, BOX, &event).await?;
    }
    Ok(())
}

async fn upgraded(guest: &Guest) -> Result<()> {
    until("the server listens", async || {
        let mut stream = request(guest, SERVER_PORT, "").await?;
        let has = |all: &[u8], text| String::from_utf8_lossy(all).contains(text);
        let answer = read(&mut stream, |all| has(all, CLOSED) || has(all, SWITCHED)).await?;
        Ok(has(&answer, SWITCHED))
    })
    .await?;
    let mut http = Http::open(guest, BOX).await?;
    // Messages both ways, the first one before the answer. Then the server hangs up.
    let mut stream = request(guest, SERVER_PORT, UPGRADE).await?;
    exchange(&mut stream, b"first\n", format!("{SWITCHED}heard first\n").as_bytes()).await?;
    for number in 1..=5 {
        let message = format!("{number}\n");
        exchange(&mut stream, message.as_bytes(), format!("heard {message}").as_bytes()).await?;
        if number == 3 {
            // Longer than silence lasts on a connection that is over.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
    stream.write_all(b"bye\n").await?;
    ensure!(read(&mut stream, |_| false).await?.is_empty(), "something comes after the end");
    // The server gets what was sent, without what is not its business.
    let (status, head) = http.ask("GET /files?path=/tmp/head", "", b"").await?;
    let head = String::from_utf8_lossy(&head).replace('\r', "");
    ensure!(status == 200 && head.starts_with("GET /page HTTP/1.1\n"), "{status} {head:?}");
    ensure!(head.contains("connection: Upgrade\nupgrade: websocket\n"), "{head:?}");
    ensure!(!head.contains("secret"), "{head:?}");
    // Bytes of any value, and more than what waits anywhere on the way.
    let mut stream = request(guest, SERVER_PORT, UPGRADE).await?;
    exchange(&mut stream, b"raw\n", SWITCHED.as_bytes()).await?;
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let (mut reader, mut writer) = stream.into_split();
    let sent = async { writer.write_all(&bytes).await.context("send") };
    let mut echoed = vec![0; bytes.len()];
    let read_all = async { reader.read_exact(&mut echoed).await.context("read") };
    tokio::time::timeout(PATIENCE, async { tokio::try_join!(sent, read_all) }).await??;
    ensure!(echoed == bytes, "what comes back is something else");
    drop((reader, writer));
    // The server hears that its client sends no more, and that its client is gone.
    for is_half in [true, false] {
        let (_, end) = http.run("rm -f /tmp/ended").await?;
        ensure!(end["exited"] == true, "{end}");
        let mut stream = request(guest, SERVER_PORT, UPGRADE).await?;
        exchange(&mut stream, b"last\n", format!("{SWITCHED}heard last\n").as_bytes()).await?;
        let held = if is_half {
            stream.shutdown().await?;
            Some(stream)
        } else {
            drop(stream);
            None
        };
        until("the server hears of the end", async || {
            Ok(http.ask("GET /files?path=/tmp/ended", "", b"").await?.0 == 200)
        })
        .await?;
        drop(held);
    }
    Ok(())
}

/// In the pod's network, whose connections can end one way only: what the server says then arrives.
pub(crate) async fn over_tcp(guest: &Guest) -> Result<()> {
    let open = async || anyhow::Ok(Http::open(guest, BOX).await?.token("secret"));
    serve(open().await?).await?.message().await?;
    let fields = format!("E2b-Sandbox-Port: {SERVER_PORT}\r\n{UPGRADE}").replace("\r\n", "\\r\\n");
    let script =
        format!("printf 'GET / HTTP/1.1\\r\\n{fields}\\r\\none\\ntwo\\n' | nc 127.0.0.1 {SANDBOX_PORT}");
    let mut http = open().await?;
    until("what the server says last arrives", async || {
        let (output, _) = http.run(&script).await?;
        let is_listening = !output.contains(CLOSED);
        ensure!(
            !is_listening || output == format!("{SWITCHED}heard one\nheard two\nno more\n"),
            "{output:?}"
        );
        Ok(is_listening)
    })
    .await
}
