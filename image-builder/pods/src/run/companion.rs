//! Connects to ports of the pod from inside its network. The agent's own program does this, in an extra container of the pod.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot};

use super::RunError;
use super::exec::{self, ExecCommand, ExecStreams, PassedSignal};
use super::pod::HttpGet;
use super::spec::COMPANION;
use super::state::ContainerRecord;
use machine::vm::AgentClient;

/// The most of a command's output that is kept.
const MOST_OUTPUT: usize = 16 << 10;
/// How long a command that was killed may take to be gone.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
const SIGKILL: u32 = 9;
/// So long may take what has no bound of its own.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// Runs a command in a container within a time. Answers its status and what it wrote.
pub(super) async fn run_within(
    client: &AgentClient,
    container: &ContainerRecord,
    args: Vec<String>,
    input: Option<Vec<u8>>,
    within: Duration,
) -> Result<(i32, Vec<u8>), String> {
    let output = Capture::default();
    let (signals, passed) = mpsc::channel(1);
    let stdin = match input {
        Some(bytes) => {
            let (sender, receiver) = mpsc::channel(1);
            sender.try_send(bytes).ok();
            Some(receiver)
        }
        None => None,
    };
    let streams = ExecStreams {
        stdin,
        stdout: Box::new(output.clone()),
        stderr: Box::new(output.clone()),
        resizes: None,
        signals: Some(passed),
    };
    let command = ExecCommand { args, ..ExecCommand::default() };
    let mut running = std::pin::pin!(exec::exec(client, container, &command, streams));
    let done = tokio::time::timeout(within.min(LONGEST), &mut running).await;
    let Ok(done) = done else {
        let (taken, _) = oneshot::channel();
        signals.try_send(PassedSignal { number: SIGKILL, taken }).ok();
        // Whether it is gone or not: the answer has not come.
        drop(tokio::time::timeout(KILLED_WITHIN, &mut running).await);
        return Err(format!("no answer within {} s", within.as_secs()));
    };
    let code = done.map_err(|error| error.to_string())?;
    Ok((code, output.take()))
}

/// Connects to a port, and leaves it.
pub(super) async fn reach(
    client: &AgentClient,
    companion: &ContainerRecord,
    host: &str,
    port: u16,
    within: Duration,
) -> Result<(), String> {
    let (code, output) = run_within(client, companion, words("reach", host, port), None, within).await?;
    if code == 0 { Ok(()) } else { Err(said(code, &output)) }
}

/// Waits until somebody answers at a port.
pub(super) async fn answers(
    client: &AgentClient,
    companion: &ContainerRecord,
    host: &str,
    port: u16,
) -> Result<(), RunError> {
    let output = Capture::default();
    let streams = ExecStreams { stderr: Box::new(output.clone()), ..ExecStreams::none() };
    let command = ExecCommand { args: words("until", host, port), ..ExecCommand::default() };
    match exec::exec(client, companion, &command, streams).await? {
        0 => Ok(()),
        code => Err(RunError::io("wait for", port, io::Error::other(said(code, &output.take())))),
    }
}

/// Asks by HTTP.
pub(super) async fn get(
    client: &AgentClient,
    companion: &ContainerRecord,
    host: &str,
    get: &HttpGet,
    within: Duration,
) -> Result<(), String> {
    let input = Some(request(host, get).into_bytes());
    let (code, output) = run_within(client, companion, words("talk", host, get.port), input, within).await?;
    if code != 0 {
        return Err(said(code, &output));
    }
    match status(&output) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("HTTP status {status}")),
        None => Err("the answer is no HTTP".to_owned()),
    }
}

fn words(verb: &str, host: &str, port: u16) -> Vec<String> {
    [COMPANION, verb, host].map(str::to_owned).into_iter().chain([port.to_string()]).collect()
}

/// What a command said, in one line.
pub(super) fn said(code: i32, output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    match text.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => format!("status {code}: {}", line.chars().take(200).collect::<String>()),
        None => format!("status {code}"),
    }
}

fn request(host: &str, get: &HttpGet) -> String {
    let named = |name: &str| get.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut text = format!("GET {} HTTP/1.1\r\n", get.path);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let usual = [
        ("Host", format!("{host}:{}", get.port)),
        ("User-Agent", "pith-probe".into()),
        ("Accept", "*/*".into()),
    ];
    let own = get.headers.iter().map(|(name, value)| (name.as_str(), value.clone()));
    for (name, value) in usual.into_iter().filter(|(name, _)| !named(name)).chain(own) {
        text += &format!("{name}: {value}\r\n");
    }
    text + "Connection: close\r\n\r\n"
}

/// The status of an answer.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let version = words.next()?;
    let status = words.next().filter(|_| version.starts_with("HTTP/1."))?;
    status.parse().ok().filter(|status| (100..600).contains(status))
}

/// Keeps the beginning of what is written to it.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsyncWrite for Capture {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST_OUTPUT - kept.len().min(MOST_OUTPUT);
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_what_servers_want() {
        let get = |headers: &[(&str, &str)]| HttpGet {
            host: None,
            port: 80,
            path: "/healthz?x=1".into(),
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        };
        let text = request("10.0.0.1", &get(&[("host", "example.org"), ("X-A", "b")]));
        assert!(text.starts_with("GET /healthz?x=1 HTTP/1.1\r\nUser-Agent: pith-probe\r\n"), "{text}");
        assert!(text.contains("host: example.org\r\nX-A: b\r\n") && !text.contains("Host:"), "{text}");
        assert!(text.ends_with("Connection: close\r\n\r\n"));
        assert!(request("::1", &get(&[])).contains("Host: [::1]:80\r\n"));
    }

    #[test]
    fn an_answer_has_a_status() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Some(200)),
            ("HTTP/1.0 404\r\n", Some(404)),
            ("HTTP/1.1 302 Found", Some(302)),
            ("SSH-2.0-x\r\n", None),
            ("HTTP/1.1 abc", None),
            ("HTTP/2 200", None),
            ("", None),
        ] {
            assert_eq!(status(answer.as_bytes()), expected, "{answer}");
        }
    }

    #[test]
    fn the_last_words_of_a_command_are_told() {
        assert_eq!(said(1, b"one\n two \n\n"), "status 1: two");
        assert_eq!(said(2, b""), "status 2");
    }
}
