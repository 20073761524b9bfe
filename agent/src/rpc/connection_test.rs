//! One connection against methods that wait, panic, and answer with much.

use super::*;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use ttrpc::r#async::MethodHandler;

/// What the methods of the service "s" work with.
#[derive(Default)]
struct Tools {
    /// Calls that were begun, and that were dropped or ended.
    begun: AtomicUsize,
    gone: AtomicUsize,
    go: Notify,
}

struct Method(&'static str, Arc<Tools>);

/// Counts a call that is gone.
struct Gone<'a>(&'a Tools);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.gone.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl MethodHandler for Method {
    async fn handler(&self, _: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let Method(name, tools) = self;
        tools.begun.fetch_add(1, Ordering::Relaxed);
        let _gone = Gone(tools);
        let payload = match *name {
            "Wait" => {
                tools.go.notified().await;
                b"th".to_vec()
            }
            "Panic" => panic!("a bug"),
            "Garbage" => return Err(ttrpc::Error::Others("no message".into())),
            "GetMetrics" => vec![7; 40_000],
            "Huge" => vec![7; LARGEST],
            _ => request.payload,
        };
        Ok(Response { payload, ..refusal(Code::OK, "") })
    }
}

const METHODS: [&str; 6] = ["Echo", "Wait", "Panic", "Garbage", "GetMetrics", "Huge"];

fn services() -> (Arc<Services>, Arc<Tools>) {
    let tools = Arc::<Tools>::default();
    let method = |name: &'static str| {
        let handler: Box<dyn MethodHandler + Send + Sync> = Box::new(Method(name, Arc::clone(&tools)));
        (name.to_owned(), handler)
    };
    let service = Service { methods: METHODS.map(method).into(), streams: HashMap::new() };
    (Arc::new([("s".to_owned(), service)].into()), tools)
}

/// A client, and the task that serves it.
fn served() -> (UnixStream, Arc<Tools>, tokio::task::JoinHandle<()>) {
    let ((services, tools), (near, far)) = (services(), UnixStream::pair().unwrap());
    (far, tools, tokio::spawn(serve(near, services, Trimmer::default())))
}

fn frame(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = response_header(stream, payload.len()).to_vec();
    bytes[8] = kind;
    bytes.extend(payload);
    bytes
}

fn asked(stream: u32, method: &str, payload: &[u8], timeout_nano: i64) -> Vec<u8> {
    let (service, method, payload) = ("s".to_owned(), method.to_owned(), payload.to_vec());
    let request = Request { service, method, payload, timeout_nano, ..Request::default() };
    frame(stream, REQUEST, &request.write_to_bytes().unwrap())
}

/// The next answer: its stream, code, text and payload.
async fn answer(client: &mut UnixStream) -> (u32, Code, String, Vec<u8>) {
    let mut header = [0; HEADER];
    client.read_exact(&mut header).await.unwrap();
    let word = |at: usize| u32::from_be_bytes(*header[at..].first_chunk().unwrap());
    let mut payload = vec![0; word(0) as usize];
    client.read_exact(&mut payload).await.unwrap();
    let response = Response::parse_from_bytes(&payload).unwrap();
    let status = response.status.unwrap_or_default();
    (word(4), status.code(), status.message, response.payload)
}

async fn ends_within(task: &mut tokio::task::JoinHandle<()>, time: Duration) -> bool {
    tokio::time::timeout(time, task).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn the_end_comes_with_the_last_answer() {
    let (mut client, tools, mut task) = served();
    client.write_all(&asked(1, "Wait", b"", 0)).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(!ends_within(&mut task, Duration::from_secs(3600)).await);
    tools.go.notify_one();
    assert!(ends_within(&mut task, LOOK / 4).await);
    assert_eq!(answer(&mut client).await, (1, Code::OK, String::new(), b"th".to_vec()));
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_is_owed_nothing() {
    let (mut client, tools, mut task) = served();
    client.write_all(&asked(1, "Wait", b"", 0)).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(!ends_within(&mut task, LOOK * 5).await);
    drop(client);
    assert!(ends_within(&mut task, LOOK * 2).await);
    assert_eq!(tools.gone.load(Ordering::Relaxed), 1, "its call runs on");
    // One that leaves without a word in between is known at once.
    let (mut client, _, mut task) = served();
    client.write_all(&asked(1, "Wait", b"", 0)).await.unwrap();
    drop(client);
    assert!(ends_within(&mut task, LOOK / 4).await);
}

#[tokio::test(start_paused = true)]
async fn who_asked_nothing_ends_at_once() {
    let (mut client, _, mut task) = served();
    client.shutdown().await.unwrap();
    assert!(ends_within(&mut task, LOOK / 4).await);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_is_noticed_though_nothing_is_read() {
    let (mut client, tools, mut task) = served();
    for stream in 0..=8 {
        // Methods that are named in no usual way count among the large.
        let request = [&[0x0a, 0x81, 1][..], &[b'x'; 0x81]].concat();
        let request = [request, asked(1, "Wait", b"", 0)[HEADER..].to_vec()].concat();
        client.write_all(&frame(2 * stream + 1, REQUEST, &request)).await.unwrap();
    }
    assert!(!ends_within(&mut task, LOOK * 5).await);
    assert_eq!(tools.begun.load(Ordering::Relaxed), 8, "a ninth was read");
    drop(client);
    assert!(ends_within(&mut task, LOOK * 2).await);
}

#[tokio::test]
async fn what_cannot_be_understood_is_answered_and_harms_nothing() {
    let (mut client, _, _task) = served();
    let unknown = Request { service: "x".into(), ..Request::default() }.write_to_bytes().unwrap();
    let cases: [(Vec<u8>, u32, Code, &str); 9] = [
        (frame(2, REQUEST, b""), 2, Code::INVALID_ARGUMENT, "stream id must be odd"),
        (frame(3, REQUEST, &unknown), 3, Code::INVALID_ARGUMENT, "x service does not exist"),
        (asked(5, "Nothing", b"", 0), 5, Code::UNIMPLEMENTED, "Nothing method"),
        (frame(7, DATA, b"data"), 7, Code::INVALID_ARGUMENT, "Stream is no longer active"),
        (frame(9, REQUEST, &vec![0; LARGEST + 1]), 9, Code::INVALID_ARGUMENT, "exceed maximum message size"),
        (frame(11, REQUEST, b"\xff\xff"), 11, Code::INVALID_ARGUMENT, ""),
        (
            asked(13, "Garbage", b"", 0),
            13,
            Code::INVALID_ARGUMENT,
            "request of Garbage cannot be read: no message",
        ),
        (asked(15, "Panic", b"", 0), 15, Code::INTERNAL, "panicked"),
        (asked(17, "Huge", b"", 0), 17, Code::INVALID_ARGUMENT, "exceed maximum message size"),
    ];
    for (bytes, stream, code, text) in cases {
        // Of a kind that nobody knows: no answer.
        client.write_all(&frame(1, 9, b"later")).await.unwrap();
        client.write_all(&bytes).await.unwrap();
        let (answered, said, message, _) = answer(&mut client).await;
        assert_eq!((answered, said), (stream, code), "{message}");
        assert!(message.contains(text), "{message}");
    }
    client.write_all(&asked(19, "Echo", b"alive", 0)).await.unwrap();
    assert_eq!(answer(&mut client).await, (19, Code::OK, String::new(), b"alive".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_call_and_others_go_on() {
    let (mut client, tools, _task) = served();
    client.write_all(&asked(1, "Wait", b"", 0)).await.unwrap();
    client.write_all(&asked(3, "Wait", b"", 1_000_000)).await.unwrap();
    let (stream, code, message, _) = answer(&mut client).await;
    assert_eq!((stream, code, message.as_str()), (3, Code::DEADLINE_EXCEEDED, "timeout"));
    tools.go.notify_waiters();
    assert_eq!(answer(&mut client).await.0, 1);
}

#[tokio::test]
async fn answers_of_all_sizes_arrive_whole() {
    let (mut client, _, _task) = served();
    for (stream, size) in [0, 1, 127, 128, 16_383, 16_384, 70_000, 2 << 20].into_iter().enumerate() {
        let data: Vec<u8> = (0..size).map(|n: u32| n as u8).collect();
        let stream = 2 * stream as u32 + 1;
        let (mut near, mut far) = client.split();
        let request = asked(stream, "Echo", &data, 0);
        let sent = async { far.write_all(&request).await.unwrap() };
        let heard = async {
            let mut header = [0; HEADER];
            near.read_exact(&mut header).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes(*header.first_chunk().unwrap()) as usize];
            near.read_exact(&mut payload).await.unwrap();
            Response::parse_from_bytes(&payload).unwrap()
        };
        let ((), response) = tokio::join!(sent, heard);
        assert!(response.payload == data && response.status.is_some(), "{size}");
    }
}

fn serve_at(path: &Path) -> Arc<Tools> {
    let (services, tools) = services();
    let listener = crate::listen::unix(path).unwrap();
    drop(super::super::server::accept(listener, services, Trimmer::default()));
    tools
}

#[tokio::test]
async fn all_that_was_asked_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    serve_at(&path);
    for count in [1, 1, 1, 20, 300] {
        let mut client = UnixStream::connect(&path).await.unwrap();
        let all: Vec<u8> = (0..count).flat_map(|n| asked(2 * n + 1, "Echo", b"x", 0)).collect();
        client.write_all(&all).await.unwrap();
        client.shutdown().await.unwrap();
        for _ in 0..count {
            assert_eq!(answer(&mut client).await.1, Code::OK);
        }
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_client_that_leaves_its_answers_lying_is_served_no_further() {
    const REQUESTS: u32 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let tools = serve_at(&path);
    let (answers, mut requests) = UnixStream::connect(&path).await.unwrap().into_split();
    let sent = tokio::spawn(async move {
        let all: Vec<u8> = (0..REQUESTS).flat_map(|n| asked(2 * n + 1, "GetMetrics", b"", 0)).collect();
        requests.write_all(&all).await.unwrap();
        requests
    });
    let begun = || tools.begun.load(Ordering::Relaxed);
    let mut before = usize::MAX;
    while begun() != before {
        before = begun();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // What the socket's buffer takes, and what may run at once.
    assert!(begun() < 40, "{} calls were made for a client that reads nothing", begun());
    // It has only to read.
    let mut client = answers;
    for _ in 0..REQUESTS {
        let mut header = [0; HEADER];
        client.read_exact(&mut header).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes(*header.first_chunk().unwrap()) as usize];
        client.read_exact(&mut payload).await.unwrap();
        assert!(payload.len() > 40_000);
    }
    assert_eq!(begun(), REQUESTS as usize);
    drop(sent.await.unwrap());
}
