//! The Filesystem service: what is told of files, changes of directories, and watches.

mod change;
mod list;
mod watch;

pub(super) use watch::Watches;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{FutureExt as _, TryFutureExt as _};
use futures_util::stream::{self, Stream};
use sandbox_api::connect::{
    self, Code, Error, Message, UNARY, client_stream, keepalive, read_unary, too_late,
};
use sandbox_api::http::{Head, Payload, Request, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::watch::{Event, Events, Options, Watch};
use super::answer::not_found;
use super::place::place;
use super::rooted::{Entry, FileError, FileErrorKind, Owner, Root};
use super::sandbox::{Caller, Sandbox};
use super::storage::LISTENING;

/// Lists of no more bytes than this are sent without a place.
const SMALL_LIST: usize = 256 << 10;
/// Bytes of events that are made JSON at once.
const EVENTS_PIECE: usize = 64 << 10;

/// Answers a call of `/filesystem.Filesystem/NAME`.
pub(super) async fn call(sandbox: &Arc<Sandbox>, name: &str, mut request: Request) -> Response {
    const UNARY_CALLS: [&str; 8] = [
        "Stat",
        "MakeDir",
        "Move",
        "ListDir",
        "Remove",
        "CreateWatcher",
        "GetWatcherEvents",
        "RemoveWatcher",
    ];
    if name == "WatchDir" {
        return watch_dir(sandbox, request).boxed().await;
    }
    if !UNARY_CALLS.contains(&name) {
        return not_found();
    }
    let message = match read_unary(&mut request, &sandbox.incoming).await {
        Ok(message) => message,
        Err(response) => return *response,
    };
    let head = &request.head;
    // Large, and not to be held as a whole tree of values.
    let work = match name {
        "ListDir" => list(sandbox, head, &message).boxed(),
        "GetWatcherEvents" => happened(sandbox, &message).boxed(),
        _ => answer(sandbox, name, head, &message).map_ok(|told| connect::unary(Ok(told))).boxed(),
    };
    connect::in_time(head, work.unwrap_or_else(|error| connect::unary(Err(error))).boxed()).await
}

/// What happened since the last question.
async fn happened(sandbox: &Sandbox, message: &Message) -> Result<Response, Error> {
    let mut events = sandbox.storage.watches.events(message.string("watcherId")?).await.map_err(told)?;
    let (head, end, count) = (b"{\"events\":[".as_slice(), b"]}".as_slice(), events.len());
    let length = head.len() + events.json_bytes() + count.saturating_sub(1) + end.len();
    let mut piece = Vec::with_capacity(length.min(EVENTS_PIECE));
    piece.extend_from_slice(head);
    let mut written = 0;
    let mut next = move || {
        while written < length && piece.len() < EVENTS_PIECE {
            match events.next() {
                Some(event) => {
                    piece.extend_from_slice(event.to_json().to_string().as_bytes());
                    if !events.is_empty() {
                        piece.push(b',');
                    }
                }
                None => piece.extend_from_slice(end),
            }
            if written + piece.len() >= length {
                break;
            }
        }
        written += piece.len();
        let piece = Bytes::from(std::mem::take(&mut piece));
        (!piece.is_empty()).then_some(piece)
    };
    if length <= EVENTS_PIECE {
        return Ok(Response::full(200, UNARY, next().unwrap_or_default()));
    }
    let pieces = stream::poll_fn(move |_| std::task::Poll::Ready(next().map(Ok)));
    let payload = Payload::Sized(length as u64, Box::pin(pieces));
    Ok(Response { payload, patience: Some(LISTENING), ..Response::full(200, UNARY, Bytes::new()) })
}
async fn answer(sandbox: &Sandbox, name: &str, head: &Head, message: &Message) -> Result<Value, Error> {
    let entry = |entry: Entry| json!({ "entry": entry.to_json() });
    match name {
        "RemoveWatcher" => {
            sandbox.storage.watches.remove(message.string("watcherId")?).map_err(told)?;
            Ok(json!({}))
        }
        "CreateWatcher" => {
            let watch = begin(sandbox, head, message).await?;
            Ok(json!({ "watcherId": sandbox.storage.watches.keep(watch) }))
        }
        "Move" => {
            let (root, owner) = place(&caller(sandbox, head).await?);
            let (from, to) = (path(&owner, message, "source")?, path(&owner, message, "destination")?);
            let moved = sandbox.storage.workers.run(move |_| change::rename(&root, &owner, &from, &to)).await;
            moved.map(entry).map_err(told)
        }
        _ => {
            let (root, owner) = place(&caller(sandbox, head).await?);
            let path = path(&owner, message, "path")?;
            let workers = &sandbox.storage.workers;
            match name {
                "Stat" => workers.run(move |_| Entry::of(&root, &root.names(), &path)).await.map(entry),
                "MakeDir" => {
                    workers.run(move |_| change::make_directory(&root, &owner, &path)).await.map(entry)
                }
                _ => workers.run(move |stop| change::remove(&root, &path, stop)).await.map(|()| json!({})),
            }
            .map_err(told)
        }
    }
}

async fn caller(sandbox: &Sandbox, head: &Head) -> Result<Caller, Error> {
    sandbox.caller(head, None).await.map_err(|error| error.to_connect())
}

fn path(owner: &Owner, message: &Message, field: &str) -> Result<String, Error> {
    owner.expand(message.string(field)?).map_err(told)
}

/// An error of files in the terms of the protocol.
fn told(error: FileError) -> Error {
    let code = match error.kind() {
        FileErrorKind::NotFound => Code::NotFound,
        FileErrorKind::Invalid => Code::InvalidArgument,
        FileErrorKind::Exists => Code::AlreadyExists,
        FileErrorKind::Precondition => Code::FailedPrecondition,
        FileErrorKind::Exhausted | FileErrorKind::Space => Code::ResourceExhausted,
        FileErrorKind::Denied => Code::PermissionDenied,
        FileErrorKind::Cancelled => Code::Canceled,
        FileErrorKind::Internal => Code::Internal,
    };
    Error::new(code, error.to_string())
}

async fn list(sandbox: &Sandbox, head: &Head, message: &Message) -> Result<Response, Error> {
    let (root, owner) = place(&caller(sandbox, head).await?);
    let (path, depth) = (path(&owner, message, "path")?, message.uint32("depth")?);
    let _room = sandbox.storage.list().await.map_err(told)?;
    let work = move |stop: &_| list::list(&root, &path, depth, stop);
    let entries = sandbox.storage.workers.run(work).await.map_err(told)?;
    let body = [b"{\"entries\":", entries.as_slice(), b"}"].concat();
    drop(entries);
    if body.len() <= SMALL_LIST {
        return Ok(Response::full(200, UNARY, body));
    }
    let place = sandbox.storage.unread_list().await.map_err(told)?;
    Ok(sent_with(body, place))
}

/// An answer that keeps something until it is sent.
fn sent_with<T: Send + 'static>(body: Vec<u8>, kept: T) -> Response {
    let length = body.len() as u64;
    let pieces = stream::unfold((Some(Bytes::from(body)), kept), |(body, kept)| async {
        body.map(|body| (Ok(body), (None, kept)))
    });
    let payload = Payload::Sized(length, Box::pin(pieces));
    Response { payload, patience: Some(LISTENING), ..Response::full(200, UNARY, Bytes::new()) }
}

/// Begins the watch that a request asks for.
async fn begin(sandbox: &Sandbox, head: &Head, message: &Message) -> Result<Watch, Error> {
    let caller = caller(sandbox, head).await?;
    let (_, owner) = place(&caller);
    // A watch lives on, and users come and go: they are read when they are told of.
    let root = Root::new(Arc::clone(&caller.root));
    let options = Options {
        path: path(&owner, message, "path")?,
        recursive: message.bool("recursive")?,
        include_entry: message.bool("includeEntry")?,
    };
    let allow_network = message.bool("allowNetworkMounts")?;
    let first = caller.target.container.process("").ok();
    let gone = async move {
        if let Some(first) = first {
            // However it ends.
            drop(first.end().await);
        }
    };
    sandbox.storage.watches.watch(root, options, allow_network, gone).await.map_err(told)
}

async fn watch_dir(sandbox: &Arc<Sandbox>, request: Request) -> Response {
    let head = request.head.clone();
    let messages = match client_stream(request, &sandbox.incoming) {
        Ok(messages) => messages,
        Err(response) => return *response,
    };
    let begun = async {
        let message = messages.only().await?;
        let deadline = connect::deadline(&head)?;
        let watch = begin(sandbox, &head, &message).await?;
        Ok((watch, deadline))
    };
    match begun.await {
        Ok((watch, deadline)) => connect::stream(told_as_it_comes(watch, deadline, keepalive(&head))),
        Err(error) => connect::stream(stream::iter([Err(error)])),
    }
}

/// The events of a watch, for one stream.
struct Told {
    watch: Watch,
    waiting: Option<Events>,
    is_started: bool,
    end: Option<Instant>,
    keepalive: Duration,
}

fn told_as_it_comes(
    watch: Watch,
    deadline: Option<Duration>,
    keepalive: Duration,
) -> impl Stream<Item = Result<Value, Error>> + Send + 'static {
    let end = deadline.map(|deadline| Instant::now() + deadline);
    let told = Told { watch, waiting: None, is_started: false, end, keepalive };
    stream::unfold(told, |mut told| async move { Some((told.next().await, told)) })
}

impl Told {
    async fn next(&mut self) -> Result<Value, Error> {
        if !std::mem::replace(&mut self.is_started, true) {
            return Ok(json!({ "start": {} }));
        }
        if self.end.is_some_and(|end| end <= Instant::now()) {
            return Err(too_late());
        }
        let tell = |event: Event| json!({ "filesystem": event.to_json() });
        if let Some(event) = self.waiting.as_mut().and_then(Events::next) {
            return Ok(tell(event));
        }
        // What is told needs no room any more.
        self.waiting = None;
        let silence = Instant::now() + self.keepalive;
        let until = self.end.map_or(silence, |end| end.min(silence));
        match tokio::time::timeout_at(until, self.watch.next()).await {
            Ok(events) => {
                let events = self.waiting.insert(events.map_err(told)?);
                // It has some.
                Ok(events.next().map_or_else(|| json!({ "keepalive": {} }), tell))
            }
            Err(_) if self.end == Some(until) => Err(too_late()),
            Err(_) => Ok(json!({ "keepalive": {} })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;

    #[tokio::test]
    async fn an_answer_keeps_its_place_until_it_is_sent() {
        let place = Arc::new(());
        let response = sent_with(b"{}".to_vec(), Arc::clone(&place));
        assert_eq!(response.headers, [("content-type", UNARY.to_owned())]);
        let Payload::Sized(2, mut pieces) = response.payload else { panic!("of another kind") };
        assert_eq!(pieces.next().await.unwrap().unwrap(), "{}");
        assert_eq!(Arc::strong_count(&place), 2);
        assert!(pieces.next().await.is_none());
        assert_eq!(Arc::strong_count(&place), 1);
    }

    /// The body of an answer, and the sizes of its pieces.
    async fn body(response: Response) -> (Value, Vec<usize>) {
        let (length, pieces) = match response.payload {
            Payload::Full(bytes) => (bytes.len(), vec![bytes]),
            Payload::Sized(length, pieces) => {
                (length as usize, pieces.map(|piece| piece.unwrap()).collect().await)
            }
            _ => panic!("of another kind"),
        };
        let sizes: Vec<usize> = pieces.iter().map(Bytes::len).collect();
        assert_eq!(sizes.iter().sum::<usize>(), length);
        (serde_json::from_slice(&pieces.concat()).unwrap(), sizes)
    }

    #[tokio::test]
    async fn few_events_are_one_answer_and_many_come_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = crate::sandbox_api::sandbox::empty(dir.path());
        let root = Root::new(Arc::new(std::fs::File::open(dir.path()).unwrap().into()));
        let options = Options { path: "/".into(), recursive: false, include_entry: true };
        let watch =
            sandbox.storage.watches.watch(root, options, false, std::future::pending()).await.unwrap();
        let id = sandbox.storage.watches.keep(watch);
        let message = Message::parse(json!({ "watcherId": id }).to_string().as_bytes()).unwrap();
        for (files, pieces) in [(0, 1), (1, 1), (1000, 2)] {
            for file in 0..files {
                std::fs::write(dir.path().join(format!("file \"{file}\" é")), "").unwrap();
            }
            let (told, sizes) = body(happened(&sandbox, &message).await.unwrap()).await;
            let told = told["events"].as_array().unwrap();
            assert!(told.len() >= files && (files > 0 || told.is_empty()), "{}", told.len());
            assert!(told.iter().all(|event| event["entry"]["path"].as_str().unwrap().starts_with("/file")));
            assert!(sizes.len() >= pieces && sizes.iter().all(|size| *size < 2 * EVENTS_PIECE), "{sizes:?}");
        }
    }
}
