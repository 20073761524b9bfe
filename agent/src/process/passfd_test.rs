//! Claims, and copies over real pipes with in-memory connections.

use super::*;
use std::os::fd::OwnedFd;
use tokio::io::{DuplexStream, duplex};

fn ports(ports: [u32; 3]) -> Ports {
    Ports::parse(ports).unwrap()
}

fn open() -> Waiting {
    let waiting = Waiting::default();
    waiting.open();
    waiting
}

fn peer(capacity: usize) -> (Peer, DuplexStream) {
    let (near, far) = duplex(capacity);
    (Box::new(near), far)
}

fn port(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

async fn refused(waiting: &Waiting, numbers: [u32; 3]) -> PassfdError {
    waiting.claim(ports(numbers)).await.err().expect("claimed")
}

#[test]
fn a_port_is_one_stream() {
    assert_eq!(Ports::parse([7, 0, 7]), Err(PassfdError::Twice(port(7))));
    assert_eq!(ports([0, 0, 0]), Ports::default());
}

#[tokio::test(start_paused = true)]
async fn a_claim_takes_all_or_none_and_only_once() {
    let waiting = open();
    waiting.put(5, peer(1).0);
    assert_eq!(refused(&waiting, [5, 6, 0]).await, PassfdError::Absent(port(6)));
    waiting.put(6, peer(1).0);
    let claimed = waiting.claim(ports([0, 5, 6])).await.ok().unwrap();
    assert!(claimed.stdin.is_none() && claimed.stdout.is_some() && claimed.stderr.is_some());
    assert_eq!(refused(&waiting, [5, 0, 0]).await, PassfdError::Absent(port(5)));
}

#[tokio::test(start_paused = true)]
async fn a_claim_waits_for_what_is_on_its_way() {
    let waiting = open();
    let late = async {
        tokio::time::sleep(CLAIM / 2).await;
        waiting.put(9, peer(1).0);
    };
    let (claimed, ()) = tokio::join!(waiting.claim(ports([9, 0, 0])), late);
    assert!(claimed.ok().unwrap().stdin.is_some());
}

#[tokio::test]
async fn without_a_listener_only_requests_without_ports_are_served() {
    let waiting = Waiting::default();
    assert!(waiting.claim(Ports::default()).await.is_ok());
    let error = refused(&waiting, [0, 3, 0]).await;
    assert_eq!((&error, error.kind()), (&PassfdError::Off(port(3)), ErrorKind::State));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_claims_is_closed_in_time() {
    let waiting = open();
    let (near, mut far) = peer(1);
    waiting.put(5, near);
    tokio::time::advance(AGE / 2).await;
    waiting.put(6, peer(1).0);
    assert!(waiting.sweep().is_some());
    assert!(waiting.queue().peers.contains_key(&5));
    tokio::time::advance(AGE / 2).await;
    assert!(waiting.sweep().is_some(), "the younger one stays");
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    tokio::time::advance(AGE).await;
    assert_eq!(waiting.sweep(), None);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_of_too_many_makes_room() {
    let waiting = open();
    for number in 1..=MOST as u32 + 1 {
        waiting.put(number, peer(1).0);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let queue = waiting.queue();
    assert_eq!((queue.peers.len(), queue.peers.contains_key(&1)), (MOST, false));
}

struct Output {
    child: OwnedFd,
    exit: watch::Sender<Option<i32>>,
    far: DuplexStream,
    copied: watch::Receiver<bool>,
}

/// An output whose host takes `capacity` bytes before it has to read.
fn output(capacity: usize) -> Output {
    let (read, child) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (exit, watcher) = watch::channel(None);
    let (near, far) = peer(capacity);
    let fd = super::super::stdio::reader(read).unwrap();
    Output { child, exit, far, copied: Drain::start(fd, near, Exit::of(&watcher), false) }
}

async fn wait_for_copy(copied: &mut watch::Receiver<bool>) {
    tokio::time::timeout(Duration::from_secs(600), copied.wait_for(|copied| *copied)).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_output_arrives_whole_and_ends_with_its_pipe() {
    let Output { child, exit: _exit, mut far, mut copied } = output(1000);
    let data: Vec<u8> = (0..400_000u32).map(|n| (n % 251) as u8).collect();
    let expected = data.clone();
    let writer = std::thread::spawn(move || {
        use std::io::Write as _;
        std::fs::File::from(child).write_all(&data).unwrap();
    });
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    assert!(all == expected);
    wait_for_copy(&mut copied).await;
    writer.join().unwrap();
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipe_keeps_nobody_waiting() {
    let Output { child, exit, mut far, mut copied } = output(1000);
    rustix::io::write(&child, b"last words").unwrap();
    exit.send_replace(Some(0));
    wait_for_copy(&mut copied).await;
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"last words");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_never_reads_is_given_up_in_two_steps() {
    let Output { child, exit, mut far, mut copied } = output(4);
    rustix::io::write(&child, b"more than four").unwrap();
    exit.send_replace(Some(0));
    drop(child);
    let began = Instant::now();
    wait_for_copy(&mut copied).await;
    assert!(began.elapsed() >= STALL && began.elapsed() < GIVE_UP, "{:?}", began.elapsed());
    // The sender goes with the task.
    while copied.has_changed().is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() >= GIVE_UP);
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"more");
}

#[tokio::test]
async fn a_host_that_hung_up_does_not_stop_the_process() {
    let Output { child, exit: _exit, far, mut copied } = output(4);
    drop(far);
    let writer = std::thread::spawn(move || {
        use std::io::Write as _;
        std::fs::File::from(child).write_all(&[1; 400_000])
    });
    wait_for_copy(&mut copied).await;
    writer.join().unwrap().unwrap();
}

struct Fed {
    child: OwnedFd,
    exit: watch::Sender<Option<i32>>,
    far: DuplexStream,
    inputs: mpsc::Sender<Input>,
    is_passed: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

fn stdin(is_terminal: bool) -> Fed {
    let (near, far) = peer(1000);
    fed(near, far, Stdin { is_terminal, is_init: false })
}

fn fed(near: Peer, far: DuplexStream, kind: Stdin) -> Fed {
    let (child, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (exit, watcher) = watch::channel(None);
    let (inputs, receiver) = mpsc::channel(4);
    let fd = super::super::stdio::writer(write).unwrap();
    let is_passed = Arc::new(AtomicBool::new(true));
    let task = tokio::spawn(feed(fd, near, receiver, kind, Arc::clone(&is_passed), Exit::of(&watcher)));
    Fed { child, exit, far, inputs, is_passed, task }
}

fn read_to_end(child: OwnedFd) -> tokio::task::JoinHandle<Vec<u8>> {
    tokio::task::spawn_blocking(|| {
        use std::io::Read as _;
        let mut all = Vec::new();
        std::fs::File::from(child).read_to_end(&mut all).unwrap();
        all
    })
}

#[tokio::test]
async fn the_end_of_a_connection_closes_a_pipe() {
    let Fed { child, exit: _exit, mut far, inputs: _inputs, task, .. } = stdin(false);
    let read = read_to_end(child);
    far.write_all(&[7; 300_000]).await.unwrap();
    drop(far);
    assert!(read.await.unwrap() == [7; 300_000]);
    task.await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_connection_leaves_a_terminal_open() {
    let Fed { child, exit, mut far, inputs, task, .. } = stdin(true);
    far.write_all(b"typed").await.unwrap();
    drop(far);
    let mut buffer = [0; 5];
    while rustix::io::ioctl_fionread(&child).unwrap() < 5 {
        tokio::task::yield_now().await;
    }
    rustix::io::read(&child, &mut buffer).unwrap();
    let (reply, answer) = tokio::sync::oneshot::channel();
    assert!(inputs.send(Input::Data(vec![1], reply)).await.is_ok(), "the feeder is gone");
    assert!(matches!(answer.await.unwrap(), Err(StreamError::Passed("stdin"))));
    exit.send_replace(Some(0));
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_stdin_comes_after_what_was_sent() {
    let Fed { child, exit: _exit, mut far, inputs, task, .. } = stdin(false);
    assert!(inputs.send(Input::Close).await.is_ok());
    far.write_all(b"sent before").await.unwrap();
    task.await.unwrap();
    let mut buffer = [0; 100];
    let count = rustix::io::read(&child, &mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"sent before");
    assert_eq!(rustix::io::read(&child, &mut buffer).unwrap(), 0);
    assert_eq!(far.read(&mut buffer).await.unwrap(), 0, "the host is not told");
}

#[tokio::test]
async fn a_process_that_closed_its_end_is_told_to_the_host() {
    let Fed { child, exit: _exit, mut far, inputs: _inputs, task, .. } = stdin(false);
    drop(child);
    far.write_all(b"for nobody").await.unwrap();
    task.await.unwrap();
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
}

/// A connection whose device has begun anew.
struct Reset;

impl AsyncRead for Reset {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

/// One, and what notices when it is let go.
fn broken() -> (Peer, DuplexStream) {
    let (near, far) = duplex(1);
    (Box::new(tokio::io::join(Reset, near)), far)
}

fn reset(kind: Stdin) -> Fed {
    let (near, far) = broken();
    fed(near, far, kind)
}

#[tokio::test]
async fn a_reset_ends_the_connection_of_an_idle_output() {
    let (read, child) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (_exit, watcher) = watch::channel(None);
    let (near, mut far) = broken();
    let mut copied =
        Drain::start(super::super::stdio::reader(read).unwrap(), near, Exit::of(&watcher), false);
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    // The process goes on, and writes to nobody.
    rustix::io::write(&child, b"unheard").unwrap();
    drop(child);
    wait_for_copy(&mut copied).await;
}

#[tokio::test]
async fn a_reset_closes_the_stdin_of_an_exec() {
    let Fed { child, exit: _exit, inputs: _inputs, task, .. } =
        reset(Stdin { is_terminal: false, is_init: false });
    assert_eq!(read_to_end(child).await.unwrap(), b"");
    task.await.unwrap();
}

#[tokio::test]
async fn a_reset_leaves_the_stdin_of_a_container_to_the_api() {
    for kind in [Stdin { is_terminal: false, is_init: true }, Stdin { is_terminal: true, is_init: false }] {
        let Fed { child, exit: _exit, mut far, inputs, is_passed, task } = reset(kind);
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "the connection is let go");
        // Calls look at this before they send anything.
        while is_passed.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        let (reply, answer) = tokio::sync::oneshot::channel();
        assert!(inputs.send(Input::Data(b"by call".to_vec(), reply)).await.is_ok());
        answer.await.unwrap().unwrap();
        drop(inputs);
        assert_eq!(read_to_end(child).await.unwrap(), b"by call");
        task.await.unwrap();
    }
}
