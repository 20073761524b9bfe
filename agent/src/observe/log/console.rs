//! The bounded queue in front of the console and the thread that empties it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::record;

/// Records that wait at most. The console of a VM is slow, and bursts at boot and create are tens of records.
const CAPACITY: usize = 1024;

/// How long a console that says "try again" is asked for one record.
const PATIENCE: Duration = Duration::from_millis(100);

const PAUSE: Duration = Duration::from_millis(2);

enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

/// The sending side of the queue. The thread ends with the last of its clones.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    /// A queue to this process's standard output. It gets a descriptor of its own, since nobody else's lock on
    /// standard output may depend on how fast the console is.
    pub(super) fn to_stdout() -> io::Result<Queue> {
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        Queue::to(File::from(stdout), CAPACITY)
    }

    fn to(console: impl Write + Send + 'static, capacity: usize) -> io::Result<Queue> {
        let (sender, receiver) = sync_channel(capacity);
        let dropped = Arc::new(AtomicU64::new(0));
        let queue = Queue { sender, dropped: Arc::clone(&dropped) };
        thread::Builder::new()
            .name("log".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || write_all(Console { out: console, midline: false }, &receiver, &dropped))?;
        Ok(queue)
    }

    /// Queues a line, or counts it as dropped when the queue is full.
    pub(super) fn send(&self, line: String) {
        if self.sender.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything queued before is written, at most `within`. Tells whether it is.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        loop {
            match self.sender.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(_)) if Instant::now() >= deadline => return false,
                Err(TrySendError::Full(back)) => message = back,
            }
            thread::sleep(PAUSE);
        }
        written.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }
}

fn write_all(mut console: Console<impl Write>, receiver: &Receiver<Message>, dropped: &AtomicU64) {
    while let Ok(message) = receiver.recv() {
        match message {
            Message::Line(line) => console.write(&line),
            Message::Flush(done) => drop(done.try_send(())),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            console.write(&record::lost(lost, SystemTime::now()));
        }
    }
}

/// A console that may be slow, gone or back again.
struct Console<W> {
    out: W,
    /// The last line was written in part only.
    midline: bool,
}

impl<W: Write> Console<W> {
    /// Writes a line as well as the console allows; what it refuses is lost.
    fn write(&mut self, line: &str) {
        let mut rest = line.as_bytes();
        let ended;
        if self.midline {
            ended = format!("\n{line}");
            rest = ended.as_bytes();
        }
        let deadline = Instant::now() + PATIENCE;
        let whole = rest.len();
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => break,
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    thread::sleep(PAUSE);
                }
                Err(_) => break,
            }
        }
        if rest.len() < whole {
            self.midline = !rest.is_empty();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    /// A console that does what it is told at each write, then takes everything.
    #[derive(Clone, Default)]
    struct Script {
        answers: Arc<Mutex<VecDeque<io::Result<usize>>>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Script {
        fn new(answers: impl IntoIterator<Item = io::Result<usize>>) -> Self {
            let script = Script::default();
            script.answers.lock().unwrap().extend(answers);
            script
        }

        fn text(&self) -> String {
            String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Script {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let count = self.answers.lock().unwrap().pop_front().unwrap_or(Ok(data.len()))?.min(data.len());
            self.written.lock().unwrap().extend(&data[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn error(kind: io::ErrorKind) -> io::Result<usize> {
        Err(kind.into())
    }

    #[test]
    fn short_writes_and_retries_lose_nothing() {
        let script =
            Script::new([Ok(2), error(io::ErrorKind::Interrupted), error(io::ErrorKind::WouldBlock)]);
        let mut console = Console { out: script.clone(), midline: false };
        console.write("hello\n");
        assert_eq!(script.text(), "hello\n");
    }

    #[test]
    fn after_a_broken_line_the_next_starts_afresh() {
        let gone = || error(io::ErrorKind::BrokenPipe);
        let script = Script::new([Ok(3), gone(), gone()]);
        let mut console = Console { out: script.clone(), midline: false };
        console.write("first\n");
        console.write("lost\n");
        console.write("third\n");
        console.write("fourth\n");
        assert_eq!(script.text(), "fir\nthird\nfourth\n");
    }

    #[test]
    fn a_console_that_never_takes_anything_costs_a_bounded_time() {
        let script = Script::new((0..10_000).map(|_| error(io::ErrorKind::WouldBlock)));
        let began = Instant::now();
        Console { out: script.clone(), midline: false }.write("line\n");
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(script.text(), "");
    }

    /// Blocks in each write until told to go on.
    struct Stuck(Receiver<()>, Script);

    impl Write for Stuck {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.write(data)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_console_drops_and_counts_and_never_blocks_the_sender() {
        let (go, gate) = channel();
        let script = Script::default();
        let queue = Queue::to(Stuck(gate, script.clone()), 2).unwrap();
        let began = Instant::now();
        for number in 0..100 {
            queue.send(format!("{number}\n"));
        }
        assert!(!queue.flush(Duration::from_millis(50)));
        assert!(began.elapsed() < Duration::from_secs(5));
        for _ in 0..10 {
            go.send(()).unwrap();
        }
        assert!(queue.flush(Duration::from_secs(10)));
        let text = script.text();
        assert!(text.starts_with("0\n"), "{text}");
        assert!(text.contains("log records dropped"), "{text}");
        assert!(text.lines().count() <= 5, "{text}");
    }

    #[test]
    fn flush_waits_for_what_was_sent_before() {
        let script = Script::default();
        let queue = Queue::to(script.clone(), 16).unwrap();
        for number in 0..10 {
            queue.send(format!("{number}\n"));
        }
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!(script.text(), "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    }
}
