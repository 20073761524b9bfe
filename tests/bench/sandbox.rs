//! What the sandbox API takes: a command with its output, and files up and down, in a guest of this tree.
//!
//! Each is measured beside a floor: a plain HTTP server in Python on this host that starts the same program, and a copy over the
//! same vsock by a program that does nothing else. They take turns, so that a busy moment of the host hits all alike. Must never
//! assert a time: it prints.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::figures::Durations;
use tests::{Guest, Http, Machine, Options, ended};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

const USAGE: &str = "usage: bench-sandbox [--rounds N] [--json]\n\
    Prints medians of N rounds (40 unless told) of what the sandbox API of a guest does, in milliseconds, beside a floor.";

const BOX: &str = "box";
/// The program that all run.
const SCRIPT: &str = "echo hello";
/// Bytes of a file.
const BULK: usize = 64 << 20;
/// Files are measured in one round of this many: each takes as long as all the rest.
const BULK_ROUNDS: usize = 8;
/// The vsock port of the bare copy.
const COPY_PORT: u32 = 5000;

/// The floor of a command: one request starts a program, and the answer is what it wrote. Prints its port.
const STUB: &str = r#"
import http.server, subprocess
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        script = self.rfile.read(int(self.headers["Content-Length"])).decode()
        out = subprocess.run(["/bin/sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True).stdout
        self.send_response(200)
        self.send_header("Content-Length", str(len(out)))
        self.end_headers()
        self.wfile.write(out)
    def log_message(self, *args): pass
    disable_nagle_algorithm = True
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

#[derive(Debug, Clone, Copy)]
enum Work {
    Health,
    Command,
    Exec,
    Stub,
    Up,
    CopyUp,
    Down,
    CopyDown,
}

impl Work {
    const ALL: [Work; 8] = [
        Work::Health,
        Work::Command,
        Work::Exec,
        Work::Stub,
        Work::Up,
        Work::CopyUp,
        Work::Down,
        Work::CopyDown,
    ];

    fn name(self) -> &'static str {
        match self {
            Work::Health => "a vsock round trip (GET /health)",
            Work::Command => "a command and its output",
            Work::Exec => "the same by the agent's ttrpc calls",
            Work::Stub => "the same by Python on this host",
            Work::Up => "64 MiB up (POST /files)",
            Work::CopyUp => "the same, bare",
            Work::Down => "64 MiB down (GET /files)",
            Work::CopyDown => "the same, bare",
        }
    }
}

/// Python's server, ended with this.
struct Stub {
    server: Child,
    stream: BufReader<TcpStream>,
}

impl Stub {
    async fn start() -> Result<Stub> {
        use std::io::BufRead as _;
        let mut server = Command::new("python3")
            .args(["-c", STUB])
            .stdout(Stdio::piped())
            .spawn()
            .context("run python3")?;
        let mut line = String::new();
        std::io::BufReader::new(server.stdout.take().context("no output")?).read_line(&mut line)?;
        let port: u16 = line.trim().parse().with_context(|| format!("no port: {line:?}"))?;
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Stub { server, stream: BufReader::new(stream) })
    }

    async fn run(&mut self, script: &str) -> Result<Vec<u8>> {
        let request =
            format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{script}", script.len());
        self.stream.write_all(request.as_bytes()).await?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line).await? > 0, "the server has ended");
            let field = line.trim_end().to_ascii_lowercase();
            if field.is_empty() {
                break;
            }
            if let Some(text) = field.strip_prefix("content-length:") {
                length = text.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

#[derive(Default)]
struct Times([Durations; Work::ALL.len()]);

impl Times {
    async fn of<T>(&mut self, work: Work, done: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let result = done.await.with_context(|| work.name())?;
        self.0[work as usize].push(begun.elapsed());
        Ok(result)
    }

    fn median(&self, work: Work) -> Duration {
        self.0[work as usize].percentile(50)
    }
}

/// Bytes over the same vsock, by a program that only copies.
async fn bare(guest: &Guest, is_up: bool, data: &mut [u8]) -> Result<()> {
    let mut stream = guest.vm().dial(COPY_PORT).await?;
    stream.write_all(if is_up { b"u" } else { b"d" }).await?;
    if is_up {
        stream.write_all(data).await?;
        ensure!(stream.read(&mut [0]).await? == 1, "no word of the end");
    } else {
        stream.read_exact(data).await?;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::read(USAGE, 40, |_, _| Ok(false))?;
    let Some(Options { rounds, as_json }) = options else { return Ok(()) };
    let guest = Guest::builder()
        .machine(Machine::Microvm)
        .memory(768)
        .flavour("sandbox")
        .cmdline(&["agent.sandbox_api=vsock"])
        .program("/probe", "probe")?;
    let guest = guest.boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let container = guest.container(BOX).mount("/probe", "bind", "/probe", &["bind", "ro"]);
    let container = container.mount("/files", "tmpfs", "tmpfs", &["size=80m"]).run().await?;
    let copy =
        container.exec(["/probe", "--copy", &COPY_PORT.to_string(), &BULK.to_string()]).start().await?;
    let (mut http, mut stub) = (Http::open(&guest, BOX).await?, Stub::start().await?);
    let mut data = vec![7; BULK];
    let mut times = Times::default();
    // Once each in small: code that has never run is no part of what is resident.
    ensure!(http.run(SCRIPT).await?.0 == "hello\n");
    let path = "POST /files?path=/files/f";
    ensure!(http.ask(path, "application/octet-stream", &data[..BULK / 8]).await?.0 == 200);
    ensure!(http.ask("GET /files?path=/files/f", "", b"").await?.0 == 200);
    let before = inspector.agent_rss_kib().await?;
    for round in 0..rounds {
        times.of(Work::Health, http.is_healthy()).await?;
        times
            .of(Work::Command, async {
                http.start(SCRIPT).await?;
                let (output, end) = ended(&http.answer().await?.1)?;
                ensure!(output == "hello\n", "{output:?} {end}");
                Ok(())
            })
            .await?;
        times
            .of(Work::Exec, async { container.exec(["/bin/sh", "-c", SCRIPT]).run().await?.success() })
            .await?;
        let output = times.of(Work::Stub, stub.run(SCRIPT)).await?;
        ensure!(output == b"hello\n", "{output:?}");
        if round % BULK_ROUNDS == 0 {
            let up = times.of(Work::Up, http.ask(path, "application/octet-stream", &data)).await?;
            ensure!(up.0 == 200, "{} {}", up.0, String::from_utf8_lossy(&up.1));
            times.of(Work::CopyUp, bare(&guest, true, &mut data)).await?;
            let (status, body) = times.of(Work::Down, http.ask("GET /files?path=/files/f", "", b"")).await?;
            ensure!(status == 200 && body.len() == BULK, "{status}, {} bytes", body.len());
            drop(body);
            times.of(Work::CopyDown, bare(&guest, false, &mut data)).await?;
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    let after = inspector.agent_rss_kib().await?;
    drop(copy);
    print(&times, rounds, (before, after), as_json)?;
    guest.destroy().await
}

fn print(times: &Times, rounds: usize, (before, after): (u64, u64), as_json: bool) -> Result<()> {
    let ms = |work| times.median(work).as_secs_f64() * 1000.0;
    let speed = |work, bare| ms(bare) / ms(work);
    let (up, down) = (speed(Work::Up, Work::CopyUp), speed(Work::Down, Work::CopyDown));
    let floors = [("on this host", Work::Stub), ("of the agent", Work::Exec)];
    // What a command may take: as long as elsewhere, and two round trips.
    let over = floors.map(|(name, floor)| (name, ms(Work::Command) / (ms(floor) + 2.0 * ms(Work::Health))));
    if as_json {
        let figures = Work::ALL.map(|work| json!({ "work": work.name(), "median_ms": ms(work) }));
        let value = json!({
            "rounds": rounds,
            "figures": figures,
            "command_to_stub_and_two_round_trips": over[0].1,
            "command_to_exec_and_two_round_trips": over[1].1,
            "speed_up_to_bare": up,
            "speed_down_to_bare": down,
            "agent_rss_kib": [before, after],
        });
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    println!("the sandbox API, medians of {rounds} rounds taking turns, in ms");
    for work in Work::ALL {
        println!("{:<38} {:>9.2}", work.name(), ms(work));
    }
    for (name, ratio) in over {
        println!("a command against the floor {name} and two round trips: {ratio:.2} (at most 1 is wanted)");
    }
    println!("files against the bare copy, as speeds: {up:.2} up, {down:.2} down (at least 0.8 is wanted)");
    println!("the agent's resident memory: {before} KiB before, {after} KiB after");
    Ok(())
}
