//! Commands to a running QEMU: stop, continue, plug and unplug.
//!
//! Source: QEMU's "QMP protocol specification". Each command has a connection of its own, because QEMU serves one client at a
//! time and greets each of them.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;

use super::VmError;

/// How long QEMU may take to answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// Executes one command and gives what it returned.
pub(super) async fn execute(socket: &Path, command: &str, arguments: Value) -> Result<Value, VmError> {
    let order = async {
        let stream = UnixStream::connect(socket).await?;
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut ask = async |order: Value| -> std::io::Result<()> {
            write.write_all(format!("{order}\n").as_bytes()).await
        };
        ask(json!({ "execute": "qmp_capabilities" })).await?;
        let ready = answer(&mut lines).await?;
        if ready.get("error").is_some() {
            return Ok(ready);
        }
        let mut order = json!({ "execute": command });
        if !arguments.is_null() {
            order["arguments"] = arguments;
        }
        ask(order).await?;
        answer(&mut lines).await
    };
    let io = |source| VmError::io("ask", format!("QEMU to {command}"), source);
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    let mut reply =
        tokio::time::timeout(DEADLINE, order).await.map_err(late).and_then(|reply| reply).map_err(io)?;
    match reply.get("error") {
        Some(error) => Err(VmError::Qmp {
            command: command.to_owned(),
            messages: error.get("desc").and_then(Value::as_str).unwrap_or("no reason given").to_owned(),
        }),
        None => Ok(reply["return"].take()),
    }
}

/// The next line that is an answer; greetings and events are passed over.
async fn answer(lines: &mut Lines<BufReader<OwnedReadHalf>>) -> std::io::Result<Value> {
    while let Some(line) = lines.next_line().await? {
        let line: Value = serde_json::from_str(&line).map_err(std::io::Error::from)?;
        if line.get("return").is_some() || line.get("error").is_some() {
            return Ok(line);
        }
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixListener;

    /// A QEMU that answers each line with the next of its own.
    async fn qemu(socket: &Path, lines: &'static [&'static str]) -> tokio::task::JoinHandle<String> {
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for line in lines {
                stream.write_all(line.as_bytes()).await.unwrap();
                stream.write_all(b"\n").await.unwrap();
            }
            let mut heard = String::new();
            stream.read_to_string(&mut heard).await.unwrap();
            heard
        })
    }

    #[tokio::test]
    async fn an_order_follows_the_handshake_and_events_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("q");
        let lines = &[
            r#"{"QMP":{}}"#,
            r#"{"return":{}}"#,
            r#"{"event":"STOP"}"#,
            r#"{"return":{"status":"paused"}}"#,
        ];
        let peer = qemu(&socket, lines).await;
        let reply = execute(&socket, "query-status", Value::Null).await.unwrap();
        assert_eq!(reply["status"], "paused");
        let heard = peer.await.unwrap();
        assert!(heard.contains("qmp_capabilities") && heard.contains("query-status"), "{heard}");
    }

    #[tokio::test]
    async fn a_refusal_has_qemus_words() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("q");
        let lines =
            &[r#"{"QMP":{}}"#, r#"{"return":{}}"#, r#"{"error":{"class":"X","desc":"no such device"}}"#];
        let peer = qemu(&socket, lines).await;
        let error = execute(&socket, "device_del", json!({ "id": "d" })).await.unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused device_del: no such device");
        assert!(peer.await.unwrap().contains(r#""id":"d""#));
    }
}
