//! A thread that shows events, with a bounded queue in front of it.
//!
//! The reader of a run's output may stall. Then only this thread blocks, in write(2). Containers' output waits for room in the
//! queue, as in a shell's pipe, so a container that goes on writing is blocked by its own pipe. Everything else goes on. When
//! the run has been asked to stop, output that finds no room is dropped and counted. So the end never waits for a reader.
//!
//! ```text
//! container ─ output().await ─ permits for its bytes ─┐
//! events ──── show() ─────────────────────────────────┴─► queue ─► thread ─► Sink ─► write(2)
//! ```

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::output::{Event, Sink};

/// Bytes of output that wait to be shown. One line is 64 KiB at most.
const ROOM: usize = 1 << 20;
/// What an event takes besides its text.
const OVERHEAD: usize = 64;
/// Other events that wait to be shown: a run makes a handful for each container.
const EVENTS: usize = 4096;
/// How long the end of a run that was asked to stop waits for its reader.
const PATIENCE: Duration = Duration::from_secs(1);

enum Item {
    Event(Event, Option<OwnedSemaphorePermit>),
    End,
}

/// The way to the screen. Clones share it.
#[derive(Clone)]
pub(super) struct Screen {
    queue: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    /// Bytes of output that were left out.
    lost: Arc<AtomicU64>,
    hurry: watch::Sender<bool>,
    ended: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
}

impl Screen {
    /// Starts the thread. Without one, nothing is shown.
    pub(super) fn new(sink: Arc<dyn Sink>) -> Self {
        let (queue, items) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&waiting);
        let show = move || {
            while let Ok(Item::Event(event, permit)) = items.recv() {
                sink.show(&event);
                if permit.is_none() {
                    counted.fetch_sub(1, Ordering::Relaxed);
                }
            }
            end.send(()).ok();
        };
        drop(std::thread::Builder::new().name("screen".into()).spawn(show));
        Self {
            queue,
            room: Arc::new(Semaphore::new(ROOM)),
            waiting,
            lost: Arc::default(),
            hurry: watch::Sender::new(false),
            ended: Arc::new(Mutex::new(Some(ended))),
        }
    }

    /// Shows an event of the run. Never waits.
    pub(super) fn show(&self, event: Event) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < EVENTS {
            drop(self.queue.send(Item::Event(event, None)));
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Shows a container's output, of `len` bytes, once there is room for it.
    pub(super) async fn output(&self, event: Event, len: usize) {
        let permits = u32::try_from((len + OVERHEAD).min(ROOM)).unwrap_or(u32::MAX);
        let mut hurry = self.hurry.subscribe();
        let room = Arc::clone(&self.room).acquire_many_owned(permits);
        let permit = tokio::select! {
            biased;
            permit = room => permit.ok(),
            _ = hurry.wait_for(|hurry| *hurry) => None,
        };
        match permit {
            Some(permit) => drop(self.queue.send(Item::Event(event, Some(permit)))),
            None => drop(self.lost.fetch_add(len as u64, Ordering::Relaxed)),
        }
    }

    /// From now on nothing waits for the reader.
    pub(super) fn hurry(&self) {
        self.hurry.send_replace(true);
    }

    /// Waits until all is shown; not long after [`Screen::hurry`].
    pub(super) async fn finish(&self) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            self.show(Event::Note {
                text: format!("{lost} bytes of output are not shown: nobody read them before the end"),
            });
        }
        drop(self.queue.send(Item::End));
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(ended) = ended else { return };
        let mut hurry = self.hurry.subscribe();
        let impatient = async {
            drop(hurry.wait_for(|hurry| *hurry).await);
            tokio::time::sleep(PATIENCE).await;
        };
        tokio::select! {
            _ = ended => {}
            () = impatient => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::output::{JsonSink, Stream, TextSink};
    use std::io::Read as _;

    fn line(text: &str) -> Event {
        Event::Output { container: "a".into(), stream: Stream::Stdout, text: text.into() }
    }

    #[tokio::test]
    async fn all_is_shown_in_order() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let screen = Screen::new(Arc::new(TextSink::new(vec!["a".into()], false, writer, std::io::sink())));
        for number in 0..1000 {
            screen.output(line(&number.to_string()), 4).await;
        }
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        screen.finish().await;
        drop(screen);
        let expected: String = (0..1000).map(|number| format!("a | {number}\n")).collect();
        assert_eq!(read.join().unwrap().unwrap(), expected);
    }

    #[tokio::test]
    async fn a_reader_that_stalls_holds_up_output_and_nothing_else() {
        // Nobody ever reads.
        let (_reader, writer) = std::io::pipe().unwrap();
        let screen = Screen::new(Arc::new(JsonSink::new(writer)));
        let long = "x".repeat(60 << 10);
        let mut shown = 0;
        let flood = async {
            loop {
                screen.output(line(&long), long.len()).await;
                shown += long.len();
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(300), flood).await.is_err());
        assert!(shown <= ROOM + (128 << 10), "{shown} bytes are kept");
        for _ in 0..2 * EVENTS {
            screen.show(Event::Started { container: "a".into() });
        }
        assert!(screen.waiting.load(Ordering::Relaxed) <= EVENTS);
        screen.hurry();
        for _ in 0..100 {
            screen.output(line(&long), long.len()).await;
        }
        assert!(screen.lost.load(Ordering::Relaxed) > 0);
        let begun = std::time::Instant::now();
        screen.finish().await;
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
