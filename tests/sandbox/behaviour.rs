//! What no SDK asks for: ports, several containers, freezing, floods of events, full disks, memory that runs out, clients that
//! stand still or are gone, and the pod's network as a way in. By HTTP.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::{Guest, Http, SANDBOX_PORT, ended, until};
use tokio::io::AsyncWriteExt as _;

use crate::ports;

/// The container of each guest.
pub(crate) const BOX: &str = "box";
/// How long something has to stay away to be taken for absent.
const ABSENT: Duration = Duration::from_secs(2);

async fn boot(switch: &str) -> Result<Guest> {
    let guest = Guest::builder().memory(768).flavour("sandbox").cmdline(&[switch]).boot().await?;
    guest.sandbox().await?;
    let container = guest.container(BOX).mount("/full", "tmpfs", "tmpfs", &["size=1m"]);
    container.resources(|resources| resources.Memory.mut_or_insert_default().Limit = 256 << 20).run().await?;
    Ok(guest)
}

/// A guest of each test takes a minute where it is emulated: they share one.
#[tokio::test]
async fn commands_files_and_watches_at_their_limits() -> Result<()> {
    let guest = boot("agent.sandbox_api=vsock").await?;
    ports::over_vsock(&guest).await.context("ports")?;
    containers(&guest).await.context("containers")?;
    frozen_commands(&guest).await.context("freeze")?;
    no_memory(&guest).await.context("memory")?;
    no_space(&guest).await.context("space")?;
    floods(&guest).await.context("watches")?;
    certificates(&guest).await.context("caBundle")?;
    stalled_transfers(&guest).await.context("stalled transfers")?;
    guest.destroy().await
}

/// Kills the command whose first event this is, with what it has started.
pub(crate) async fn kill(guest: &Guest, container: &str, started: &Value) -> Result<()> {
    let asked = json!({ "process": started["event"]["start"], "signal": "SIGNAL_SIGKILL" });
    let mut http = Http::open(guest, container).await?;
    let (status, answer) = http.call("process.Process/SendSignal", &asked).await?;
    ensure!(status == 200, "{answer}");
    Ok(())
}

/// A request is for the container that it names, else for the first one.
async fn containers(guest: &Guest) -> Result<()> {
    guest.container("other").run().await?;
    let mut other = Http::open(guest, "other").await?;
    let (status, _) = other.ask("POST /files?path=/tmp/which", "application/octet-stream", b"other").await?;
    ensure!(status == 200, "{status}");
    for (named, expected) in [("other", 200), (BOX, 404), ("debug_sandbox_id", 404)] {
        let (status, _) = Http::open(guest, named).await?.ask("GET /files?path=/tmp/which", "", b"").await?;
        ensure!(status == expected, "{named}: {status}");
    }
    // A command is known in its own container only.
    let mut command = Http::open(guest, "other").await?;
    command.start("sleep 1000").await?;
    let started = command.message().await?;
    for (named, is_listed) in [("other", true), (BOX, false)] {
        let (_, listed) = Http::open(guest, named).await?.call("process.Process/List", &json!({})).await?;
        ensure!(listed.to_string().contains("sleep 1000") == is_listed, "{named}: {listed}");
    }
    kill(guest, "other", &started).await
}

async fn frozen_commands(guest: &Guest) -> Result<()> {
    let mut http = Http::open(guest, BOX).await?;
    for thaw in ["POST /unfreeze", "POST /init"] {
        let (mut ticks, mut late) = (Http::open(guest, BOX).await?, Http::open(guest, BOX).await?);
        ticks
            .start("rm -f /tmp/t; while [ ! -e /tmp/end ]; do echo >> /tmp/t; sleep 0.1; done; rm /tmp/end")
            .await?;
        let mut size = async || {
            let (status, body) = http.ask("GET /files?path=/tmp/t", "", b"").await?;
            anyhow::Ok(if status == 200 { body.len() } else { 0 })
        };
        until("it writes", async || Ok(size().await? > 3)).await?;
        let (status, body) = Http::open(guest, BOX).await?.ask("POST /freeze", "", b"").await?;
        ensure!(status == 200 && body == br#"{"count":1}"#, "{status} {}", String::from_utf8_lossy(&body));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = size().await?;
        // What starts now waits.
        late.start("echo late > /tmp/late; echo started").await?;
        ensure!(
            tokio::time::timeout(ABSENT, late.line()).await.is_err(),
            "a command starts while others are frozen"
        );
        ensure!(size().await? == before, "a frozen command writes");
        let (status, _) = http.ask("GET /files?path=/tmp/late", "", b"").await?;
        ensure!(status == 404, "{status}");
        let (status, _) = http.ask(thaw, "application/json", b"").await?;
        ensure!(status == 204 || status == 200, "{thaw}: {status}");
        let (output, end) = ended(&late.answer().await?.1)?;
        ensure!(output == "started\n" && end["exited"] == true, "{output:?} {end}");
        Http::open(guest, BOX).await?.run("rm /tmp/late; touch /tmp/end").await?;
        ended(&ticks.answer().await?.1)?;
    }
    Ok(())
}

async fn no_memory(guest: &Guest) -> Result<()> {
    let (_, end) = Http::open(guest, BOX).await?.run("exec tail /dev/zero").await?;
    ensure!(end["error"] == "killed: out of memory" && end["exitCode"] == -1, "{end}");
    ensure!(end["status"] == "signal: killed", "{end}");
    // Of what a shell has started, it is told as well.
    let (_, end) = Http::open(guest, BOX).await?.run("tail /dev/zero; exit $?").await?;
    ensure!(end["error"] == "killed: out of memory" && end["exitCode"] == 137, "{end}");
    // Who is killed otherwise is not said to be.
    let (_, end) = Http::open(guest, BOX).await?.run("kill -9 $$").await?;
    ensure!(end["error"] == "signal: killed", "{end}");
    Ok(())
}

async fn no_space(guest: &Guest) -> Result<()> {
    let mut http = Http::open(guest, BOX).await?;
    let bytes = vec![7; 2 << 20];
    let (status, body) = http.ask("POST /files?path=/full/f", "application/octet-stream", &bytes).await?;
    let answer: Value = serde_json::from_slice(&body)?;
    let text = answer["message"].as_str().unwrap_or_default();
    ensure!(
        status == 507 && answer["code"] == 507 && text.starts_with("not enough disk space"),
        "{status} {answer}"
    );
    let (status, body) =
        http.ask("POST /files?path=/full/f", "application/octet-stream", &bytes[..1000]).await?;
    ensure!(status == 200, "{status} {}", String::from_utf8_lossy(&body));
    Ok(())
}

/// As many files as a large `npm install` makes are told of by one question; a stream tells them as well.
async fn floods(guest: &Guest) -> Result<()> {
    let mut http = Http::open(guest, BOX).await?;
    let (status, made) = http.call("filesystem.Filesystem/MakeDir", &json!({ "path": "/tmp/tree" })).await?;
    ensure!(status == 200, "{made}");
    let asked = json!({ "path": "/tmp/tree", "recursive": true });
    let (status, created) = http.call("filesystem.Filesystem/CreateWatcher", &asked).await?;
    ensure!(status == 200, "{created}");
    let mut streamed = Http::open(guest, BOX).await?;
    streamed.stream("filesystem.Filesystem/WatchDir", &asked).await?;
    let script = "cd /tmp/tree; for d in $(seq 100); do mkdir -p package-$d/lib; cd package-$d/lib; \
        for f in $(seq 50); do echo text > module-$f.js; done; cd ../..; done; echo made";
    let (output, _) = Http::open(guest, BOX).await?.run(script).await?;
    ensure!(output == "made\n", "{output:?}");
    let (status, told) = http.call("filesystem.Filesystem/GetWatcherEvents", &created).await?;
    ensure!(status == 200, "{told}");
    let names = |events: Vec<&Value>| {
        let created = events.iter().filter(|event| event["type"] == "EVENT_TYPE_CREATE");
        let mut names: Vec<_> =
            created.filter_map(|event| event["name"].as_str()).map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    };
    let all = 100 * (2 + 50);
    let count = names(told["events"].as_array().context("no events")?.iter().collect());
    ensure!(count == all, "{count} of {all} are told to who asks");
    // The stream's end, so that the answer has one.
    let (status, body) = http.call("filesystem.Filesystem/Remove", &json!({ "path": "/tmp/tree" })).await?;
    ensure!(status == 200, "{body}");
    let mut seen = Vec::new();
    while !seen.iter().any(|event: &Value| event["name"] == "." && event["type"] == "EVENT_TYPE_REMOVE") {
        let message = streamed.message().await?;
        seen.extend(message.get("filesystem").cloned());
    }
    let count = names(seen.iter().collect());
    ensure!(count == all, "{count} of {all} are told to a stream");
    let (status, body) = http.call("filesystem.Filesystem/RemoveWatcher", &created).await?;
    ensure!(status == 200, "{body}");
    Ok(())
}

async fn certificates(guest: &Guest) -> Result<()> {
    let mut http = Http::open(guest, BOX).await?;
    let bundle = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    for times in 1..=2 {
        let asked = json!({ "caBundle": bundle }).to_string();
        let (status, body) = http.ask("POST /init", "application/json", asked.as_bytes()).await?;
        ensure!(status == 204, "{times}: {status} {}", String::from_utf8_lossy(&body));
        let (status, store) = http.ask("GET /files?path=/etc/ssl/certs/ca-certificates.crt", "", b"").await?;
        ensure!(
            status == 200 && store == bundle.as_bytes(),
            "{times}: {status} {}",
            String::from_utf8_lossy(&store)
        );
    }
    let (status, body) = http.ask("POST /init", "application/json", br#"{"caBundle":"none"}"#).await?;
    ensure!(status == 400, "{status} {}", String::from_utf8_lossy(&body));
    Ok(())
}

/// More uploads and downloads than there are places, none of which goes on: others still pass, soon.
async fn stalled_transfers(guest: &Guest) -> Result<()> {
    let mut http = Http::open(guest, BOX).await?;
    let large = vec![7; 4 << 20];
    let (status, body) = http.ask("POST /files?path=/tmp/large", "application/octet-stream", &large).await?;
    ensure!(status == 200, "{status} {}", String::from_utf8_lossy(&body));
    let mut stalled = Vec::new();
    for number in 0..70 {
        let mut stream = guest.vm().dial(SANDBOX_PORT).await?;
        let upload = format!(
            "POST /files?path=/tmp/stalled-{number} HTTP/1.1\r\nE2b-Sandbox-Id: {BOX}\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\nbegin"
        );
        stream.write_all(upload.as_bytes()).await?;
        stalled.push(stream);
        let mut stream = guest.vm().dial(SANDBOX_PORT).await?;
        let download = format!("GET /files?path=/tmp/large HTTP/1.1\r\nE2b-Sandbox-Id: {BOX}\r\n\r\n");
        stream.write_all(download.as_bytes()).await?;
        stalled.push(stream);
    }
    let begun = std::time::Instant::now();
    let (status, _) = http.ask("GET /files?path=/full/f", "", b"").await?;
    ensure!(
        status == 200 && begun.elapsed() < Duration::from_secs(10),
        "{status} after {:?}",
        begun.elapsed()
    );
    let (status, _) = http.ask("POST /files?path=/tmp/small", "application/octet-stream", b"text").await?;
    ensure!(
        status == 200 && begun.elapsed() < Duration::from_secs(90),
        "{status} after {:?}",
        begun.elapsed()
    );
    println!("an upload beside 70 that stand still: {:?}", begun.elapsed());
    drop(stalled);
    Ok(())
}

/// In the pod's network nobody is let in before there is a token, which comes over vsock.
#[tokio::test]
async fn the_pods_network_is_served_with_a_token_only() -> Result<()> {
    let guest = boot("agent.sandbox_api=tcp").await?;
    let mut http = Http::open(&guest, BOX).await?;
    let get = |path: &str, token: &str| {
        let header =
            if token.is_empty() { String::new() } else { format!("--header 'X-Access-Token: {token}'") };
        format!("wget -q -O - {header} http://127.0.0.1:{SANDBOX_PORT}/{path} 2>&1; echo $?")
    };
    let (output, _) = http.run(&get("health", "")).await?;
    ensure!(output.contains("refused"), "without a token it is served: {output}");
    let (status, _) = http.ask("POST /init", "application/json", br#"{"accessToken":"secret"}"#).await?;
    ensure!(status == 204, "{status}");
    let mut http = http.token("secret");
    until("it listens", async || {
        Ok(http.run(&get("envs", "secret")).await?.0 == "{\"E2B_SANDBOX\":\"true\"}0\n")
    })
    .await?;
    for wrong in ["", "wrong"] {
        let (output, _) = http.run(&get("envs", wrong)).await?;
        ensure!(output.contains("401"), "{wrong:?}: {output}");
    }
    ports::over_tcp(&guest).await.context("ports")?;
    // Who has no token does not get rid of it.
    let reset = format!("wget -q -O - --post-data '{{}}' http://127.0.0.1:{SANDBOX_PORT}/init 2>&1; echo $?");
    let (output, _) = http.run(&reset).await?;
    ensure!(output.contains("401"), "{output}");
    guest.destroy().await
}
