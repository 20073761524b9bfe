//! The sandbox API by HTTP over vsock, without an SDK: for what SDKs do not do, and for whoever wants to be a hostile client.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::Guest;

/// The vsock port of the API.
pub const SANDBOX_PORT: u32 = 49983;

/// A connection to the API, whose requests are for one container.
pub struct Http {
    stream: BufReader<UnixStream>,
    container: String,
    token: Option<String>,
}

impl Http {
    /// Opens one.
    ///
    /// # Errors
    /// When the guest does not serve the API.
    pub async fn open(guest: &Guest, container: &str) -> Result<Http> {
        let stream = BufReader::new(guest.vm().dial(SANDBOX_PORT).await?);
        Ok(Http { stream, container: container.to_owned(), token: None })
    }

    /// Sends this token with each request.
    #[must_use]
    pub fn token(mut self, token: &str) -> Http {
        self.token = Some(token.to_owned());
        self
    }

    /// Sends a request, and does not look at the answer.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn send(&mut self, line: &str, kind: &str, body: &[u8]) -> Result<()> {
        let token =
            self.token.as_ref().map(|token| format!("X-Access-Token: {token}\r\n")).unwrap_or_default();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: box\r\nE2b-Sandbox-Id: {}\r\n{token}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.container,
            body.len()
        );
        self.stream.write_all(head.as_bytes()).await?;
        self.stream.write_all(body).await?;
        Ok(())
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn ask(&mut self, line: &str, kind: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.send(line, kind, body).await?;
        self.answer().await.with_context(|| line.to_owned())
    }

    /// Makes a unary call; the status and the message.
    ///
    /// # Errors
    /// When the answer is no JSON.
    pub async fn call(&mut self, name: &str, message: &Value) -> Result<(u16, Value)> {
        let line = format!("POST /{name}");
        let (status, body) = self.ask(&line, "application/json", message.to_string().as_bytes()).await?;
        let text = || format!("{name}: {status} {}", String::from_utf8_lossy(&body));
        Ok((status, serde_json::from_slice(&body).with_context(text)?))
    }

    /// Reads a line without its end.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line).await? > 0, "the connection has ended");
        Ok(line.trim_end().to_owned())
    }

    /// Reads an answer: its status and its body.
    ///
    /// # Errors
    /// When the connection has ended, or the answer is not understood.
    pub async fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
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
            self.stream.read_exact(&mut body).await?;
            return Ok((status, body));
        }
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16)?;
            let mut chunk = vec![0; size];
            self.stream.read_exact(&mut chunk).await?;
            body.extend(chunk);
            self.line().await?;
            if size == 0 {
                return Ok((status, body));
            }
        }
    }

    /// Begins a call whose answer is a stream.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn stream(&mut self, name: &str, message: &Value) -> Result<()> {
        let message = message.to_string();
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len())?.to_be_bytes());
        frame.extend(message.as_bytes());
        self.send(&format!("POST /{name}"), "application/connect+json", &frame).await
    }

    /// The next message of a stream's answer, whose head may not be read yet.
    ///
    /// # Errors
    /// When the connection or the stream has ended.
    pub async fn message(&mut self) -> Result<Value> {
        loop {
            let line = self.line().await?;
            // Chunks, one for each message, begin with their size alone.
            let Ok(size) = usize::from_str_radix(&line, 16) else { continue };
            ensure!(size > 5, "the stream has ended");
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk).await?;
            ensure!(chunk[0] == 0, "the stream ends: {}", String::from_utf8_lossy(&chunk[5..]));
            return Ok(serde_json::from_slice(&chunk[5..size])?);
        }
    }

    /// Begins a command.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn start(&mut self, script: &str) -> Result<()> {
        let process = json!({ "cmd": "/bin/sh", "args": ["-c", script] });
        self.stream("process.Process/Start", &json!({ "process": process, "stdin": false })).await
    }

    /// Runs a command to its end: what it wrote to stdout, and the event of its end.
    ///
    /// # Errors
    /// When the answer has no end.
    pub async fn run(&mut self, script: &str) -> Result<(String, Value)> {
        self.start(script).await?;
        ended(&self.answer().await?.1)
    }

    /// Whether the API answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn is_healthy(&mut self) -> Result<()> {
        self.send("GET /health", "text/plain", b"").await?;
        let (status, _) = self.answer().await?;
        ensure!(status == 204, "{status}");
        Ok(())
    }
}

/// What the frames of a command's stream come to: what it wrote to stdout, and the event of its end.
///
/// # Errors
/// When there is no end.
pub fn ended(body: &[u8]) -> Result<(String, Value)> {
    let frames = frames(body)?;
    let event = |name: &str| frames.iter().find_map(|frame| frame["event"].get(name).cloned());
    let end = event("end").with_context(|| format!("no end in {frames:?}"))?;
    let pieces = frames.iter().filter_map(|frame| frame["event"]["data"]["stdout"].as_str());
    let bytes = pieces.map(decoded).collect::<Result<Vec<_>>>()?.concat();
    Ok((String::from_utf8_lossy(&bytes).into_owned(), end))
}

/// Base64 with padding.
fn decoded(text: &str) -> Result<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Ok(byte - b'A'),
        b'a'..=b'z' => Ok(byte - b'a' + 26),
        b'0'..=b'9' => Ok(byte - b'0' + 52),
        b'+' => Ok(62),
        b'/' => Ok(63),
        _ => bail!("{text:?} is no base64"),
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut number = 0u32;
        for place in 0..4 {
            number = number << 6 | u32::from(four.get(place).map_or(Ok(0), |byte| digit(*byte))?);
        }
        bytes.extend_from_slice(&number.to_be_bytes()[1..four.len()]);
    }
    Ok(bytes)
}

/// The messages of a stream.
///
/// # Errors
/// When one is cut off, or is no JSON.
pub fn frames(mut body: &[u8]) -> Result<Vec<Value>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_decoded() {
        for (text, bytes) in [("", ""), ("YQ==", "a"), ("YWI=", "ab"), ("YWJj", "abc"), ("Pz8/Pg==", "???>")]
        {
            assert_eq!(decoded(text).unwrap(), bytes.as_bytes());
        }
        assert!(decoded("!").is_err());
    }
}
