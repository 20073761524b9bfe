//! The calls of the Process service.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use futures_util::stream;
use sandbox_api::connect::encode_base64;
use sandbox_api::connect::{self, Code, Error, Message, keepalive, too_late};
use sandbox_api::http::{Head, Request, Response};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::super::answer::not_found;
use super::super::rooted::texts_to_json;
use super::super::sandbox::Sandbox;
use super::command::{Command, Input, Listening};
use super::feed::{Piece, Stream, Taken};
use super::registry::Selector;
use super::start::{self, Asked, fell_behind, size};

/// Inputs of more bytes than this are written a few at a time.
const LARGE_INPUT: usize = 64 * 1024;

/// The signals that can be sent.
const SIGNALS: [(&str, i64); 3] = [("SIGNAL_UNSPECIFIED", 0), ("SIGNAL_SIGTERM", 15), ("SIGNAL_SIGKILL", 9)];

/// Answers a call of `/process.Process/NAME`.
pub(in crate::sandbox_api) async fn call(
    sandbox: &Arc<Sandbox>,
    name: &str,
    mut request: Request,
) -> Response {
    match name {
        "Start" | "Connect" => {
            let head = request.head.clone();
            let messages = match connect::client_stream(request, &sandbox.incoming) {
                Ok(messages) => messages,
                Err(refused) => return *refused,
            };
            let message = messages.only().await;
            let events = match (message, name) {
                (Err(error), _) => Err(error),
                (Ok(message), "Start") => begin(sandbox, &head, &message).boxed().await,
                (Ok(message), _) => attach(sandbox, &head, &message),
            };
            match events {
                Ok(events) => connect::stream(stream::unfold(events, Events::next)),
                Err(error) => connect::stream(stream::iter([Err(error)])),
            }
        }
        "StreamInput" => {
            let head = request.head.clone();
            let messages = match connect::client_stream(request, &sandbox.incoming) {
                Ok(messages) => messages,
                Err(refused) => return *refused,
            };
            let result = stream_input(sandbox, &head, messages).boxed().await;
            connect::stream(stream::iter([result.map(|()| json!({}))]))
        }
        "List" | "Update" | "SendInput" | "SendSignal" | "CloseStdin" => {
            let message = match connect::read_unary(&mut request, &sandbox.incoming).await {
                Ok(message) => message,
                Err(refused) => return *refused,
            };
            let work = unary(sandbox, &request.head, name, message).map(connect::unary);
            connect::in_time(&request.head, work.boxed()).await
        }
        _ => not_found(),
    }
}

async fn unary(sandbox: &Arc<Sandbox>, head: &Head, name: &str, message: Message) -> Result<Value, Error> {
    match name {
        "List" => Ok(list(sandbox, head)),
        "Update" => update(sandbox, head, &message),
        "SendInput" => send_input(sandbox, head, message).await,
        "SendSignal" => send_signal(sandbox, head, &message).await,
        _ => {
            find(sandbox, head, &message)?.close_stdin().await?;
            Ok(json!({}))
        }
    }
}

/// The container that a call about running commands is for. It may not run any more.
fn container(sandbox: &Sandbox, head: &Head) -> String {
    sandbox.target_now(head).map(|target| target.id().to_owned()).unwrap_or_default()
}

fn selector(message: &Message) -> Result<Selector, Error> {
    let selected = message.optional_message("process")?.unwrap_or_default();
    if selected.has("pid") {
        return Ok(Selector::Pid(selected.uint32("pid")?));
    }
    match selected.optional_string("tag")? {
        Some(tag) => Ok(Selector::Tag(tag.to_owned())),
        None => Err(Error::invalid("a process is selected by pid or tag")),
    }
}

fn find(sandbox: &Sandbox, head: &Head, message: &Message) -> Result<Arc<Command>, Error> {
    sandbox.commands.find(&container(sandbox, head), &selector(message)?)
}

fn list(sandbox: &Sandbox, head: &Head) -> Value {
    let running = sandbox.commands.running(&container(sandbox, head));
    let processes: Vec<Value> = running.iter().map(|command| describe(command)).collect();
    if processes.is_empty() { json!({}) } else { json!({ "processes": processes }) }
}

/// A command as List tells it: what has its default value is left out.
fn describe(command: &Command) -> Value {
    let config = &command.config;
    let mut told = Map::new();
    told.insert("cmd".into(), config.cmd.clone().into());
    if !config.args.is_empty() {
        told.insert("args".into(), config.args.clone().into());
    }
    if !config.envs.is_empty() {
        let mut envs = config.envs.iter().map(|(name, value)| (name, value));
        told.insert("envs".into(), texts_to_json(&mut envs));
    }
    if let Some(cwd) = &config.cwd {
        told.insert("cwd".into(), cwd.clone().into());
    }
    let mut info = Map::new();
    info.insert("config".into(), told.into());
    info.insert("pid".into(), command.pid.into());
    if let Some(tag) = &config.tag {
        info.insert("tag".into(), tag.clone().into());
    }
    info.into()
}

fn update(sandbox: &Sandbox, head: &Head, message: &Message) -> Result<Value, Error> {
    let command = find(sandbox, head, message)?;
    if let Some(pty) = message.optional_message("pty")? {
        let (rows, columns) = size(&pty)?;
        command.resize(rows, columns)?;
    }
    Ok(json!({}))
}

/// The bytes of an input, and where they go.
fn input(mut message: Message) -> Result<(Vec<u8>, Input), Error> {
    let input = message.take_message("input")?;
    if let Some(data) = input.optional_bytes("stdin")? {
        return Ok((data, Input::Pipe));
    }
    match input.optional_bytes("pty")? {
        Some(data) => Ok((data, Input::Pty)),
        None => Err(Error::new(Code::Unimplemented, "an input is of the type stdin or pty")),
    }
}

async fn write(sandbox: &Sandbox, command: &Command, (data, to): (Vec<u8>, Input)) -> Result<(), Error> {
    // What a process does not take is held here: only a few may be large.
    let room = match data.len() > LARGE_INPUT {
        true => sandbox.inputs.acquire().await.ok(),
        false => None,
    };
    let written = command.write(data, to).await;
    drop(room);
    written
}

async fn send_input(sandbox: &Sandbox, head: &Head, message: Message) -> Result<Value, Error> {
    let command = find(sandbox, head, &message)?;
    write(sandbox, &command, input(message)?).await?;
    Ok(json!({}))
}

async fn stream_input(
    sandbox: &Sandbox,
    head: &Head,
    mut messages: connect::ClientStream,
) -> Result<(), Error> {
    let mut command = None;
    while let Some(mut message) = messages.next().await? {
        if let Some(start) = message.optional_message("start")? {
            command = Some(find(sandbox, head, &start)?);
        } else if message.has("data") {
            let command = command.as_ref();
            let command = command
                .ok_or_else(|| Error::invalid("the first message of a stream of input is its start"))?;
            write(sandbox, command, input(message.take_message("data")?)?).await?;
        } else if !message.has("keepalive") {
            return Err(Error::new(
                Code::Unimplemented,
                "a message of a stream of input is a start, data or a keepalive",
            ));
        }
    }
    Ok(())
}

async fn send_signal(sandbox: &Sandbox, head: &Head, message: &Message) -> Result<Value, Error> {
    let command = find(sandbox, head, message)?;
    match message.enumeration("signal", &SIGNALS)? {
        Some(15) => command.terminate()?,
        Some(9) => command.kill().await?,
        other => {
            let what = other
                .map_or_else(|| message.string("signal").unwrap_or_default().to_owned(), |n| n.to_string());
            return Err(Error::new(
                Code::Unimplemented,
                format!("invalid signal: {what}: SIGTERM and SIGKILL can be sent"),
            ));
        }
    }
    Ok(json!({}))
}

async fn begin(sandbox: &Arc<Sandbox>, head: &Head, message: &Message) -> Result<Events, Error> {
    let asked = Asked::parse(message)?;
    let limit = connect::deadline(head)?;
    let began = Instant::now();
    let caller = sandbox.caller(head, None).await.map_err(|error| error.to_connect())?;
    let listening = start::start(sandbox, caller, asked, limit).await?;
    Ok(Events {
        listening,
        stage: Stage::Start,
        keepalive: keepalive(head),
        until: limit.map(|limit| began + limit),
        is_owner: true,
    })
}

fn attach(sandbox: &Arc<Sandbox>, head: &Head, message: &Message) -> Result<Events, Error> {
    let limit = connect::deadline(head)?;
    let command = sandbox.commands.find_kept(&container(sandbox, head), &selector(message)?)?;
    let until = limit.map(|limit| Instant::now() + limit);
    Ok(Events {
        listening: command.listen()?,
        stage: Stage::Start,
        keepalive: keepalive(head),
        until,
        is_owner: false,
    })
}

/// The events of a command, for one stream.
struct Events {
    listening: Listening,
    stage: Stage,
    keepalive: Duration,
    until: Option<Instant>,
    /// Whether the command's time is this stream's.
    is_owner: bool,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Start,
    Running,
    Over,
}

impl Events {
    async fn next(mut self) -> Option<(Result<Value, Error>, Events)> {
        let event = match self.stage {
            Stage::Over => return None,
            Stage::Start => {
                self.stage = Stage::Running;
                Ok(json!({ "start": { "pid": self.listening.command.pid } }))
            }
            Stage::Running => self.running().await,
        };
        if event.is_err() {
            self.stage = Stage::Over;
        }
        Some((event.map(|event| json!({ "event": event })), self))
    }

    async fn running(&mut self) -> Result<Value, Error> {
        let late = async {
            match self.until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let taken = tokio::select! {
            biased;
            // First: a command that never stops writing must not keep it from being seen.
            () = late => return Err(too_late()),
            taken = self.listening.next() => taken,
            () = tokio::time::sleep(self.keepalive) => return Ok(json!({ "keepalive": {} })),
        };
        match taken {
            Taken::Piece(Piece { stream, bytes }) => {
                let name = match stream {
                    Stream::Out => "stdout",
                    Stream::Err => "stderr",
                    Stream::Pty => "pty",
                };
                Ok(json!({ "data": { name: encode_base64(&bytes) } }))
            }
            Taken::End(_) if self.is_owner && self.listening.command.is_late() => Err(too_late()),
            Taken::End(end) => {
                self.stage = Stage::Over;
                Ok(json!({ "end": end.to_json() }))
            }
            Taken::Behind | Taken::Nothing => Err(fell_behind()),
        }
    }
}
