//! The latest records, for readers that come late or fall behind.
//!
//! Owns at most [`MOST`] bytes of lines, numbered from 0. Writers never wait: the oldest lines make room. Each reader has a
//! place of its own in the sequence, so several can read at once, and one that has fallen out of what is kept is told
//! how many lines it missed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::record;

/// Bytes of lines that are kept: some thousand records, a boot has a few dozen.
const MOST: usize = 256 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    lines: Mutex<Lines>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    queue: VecDeque<String>,
    bytes: usize,
    /// Number of the oldest line that is kept.
    first: u64,
}

impl Lines {
    fn end(&self) -> u64 {
        self.first + self.queue.len() as u64
    }
}

impl Backlog {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line. The newest is kept however long it is.
    pub(super) fn put(&self, line: String) {
        let mut lines = self.lines();
        lines.bytes += line.len();
        lines.queue.push_back(line);
        while lines.bytes > MOST && lines.queue.len() > 1 {
            lines.bytes -= lines.queue.pop_front().map_or(0, |oldest| oldest.len());
            lines.first += 1;
        }
        drop(lines);
        self.arrived.notify_waiters();
    }

    /// The number that the next line will have.
    pub(super) fn end(&self) -> u64 {
        self.lines().end()
    }
}

/// A place in the sequence of lines.
pub(super) struct Reader {
    backlog: Arc<Backlog>,
    at: u64,
}

impl Reader {
    /// A reader that begins with the first line there ever was.
    pub(super) fn new(backlog: Arc<Backlog>) -> Reader {
        Reader { backlog, at: 0 }
    }

    /// The number of the line that it reads next.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next lines, about `most` bytes of them, one at least; waits for it. Lines that are lost are counted in a
    /// record of their own in front.
    pub(super) async fn next(&mut self, most: usize) -> String {
        let backlog = Arc::clone(&self.backlog);
        loop {
            let mut arrived = std::pin::pin!(backlog.arrived.notified());
            // Registered before the look, so that what arrives in between is noticed.
            arrived.as_mut().enable();
            let text = self.take(most);
            if !text.is_empty() {
                return text;
            }
            arrived.await;
        }
    }

    fn take(&mut self, most: usize) -> String {
        let mut text = String::new();
        let lines = self.backlog.lines();
        if self.at < lines.first {
            text = record::dropped(lines.first - self.at, SystemTime::now());
            self.at = lines.first;
        }
        let skipped = usize::try_from(self.at - lines.first).unwrap_or(usize::MAX);
        for line in lines.queue.iter().skip(skipped) {
            if !text.is_empty() && text.len() + line.len() > most {
                break;
            }
            text.push_str(line);
            self.at += 1;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> String {
        format!("{number:0>1023}\n")
    }

    #[tokio::test]
    async fn late_and_several_readers_get_every_line_once() {
        let backlog = Arc::new(Backlog::default());
        backlog.put("one\n".into());
        let (mut early, mut late) = (Reader::new(Arc::clone(&backlog)), Reader::new(Arc::clone(&backlog)));
        assert_eq!(early.next(1000).await, "one\n");
        backlog.put("two\n".into());
        backlog.put("three\n".into());
        assert_eq!(early.next(1000).await, "two\nthree\n");
        assert_eq!(late.next(5).await, "one\n");
        assert_eq!(late.next(5).await, "two\n");
        assert_eq!(late.next(5).await, "three\n", "longer than asked for, but one line at least");
        assert_eq!((late.at(), backlog.end()), (3, 3));
    }

    #[tokio::test]
    async fn a_reader_waits_for_the_next_line() {
        let backlog = Arc::new(Backlog::default());
        let mut reader = Reader::new(Arc::clone(&backlog));
        let reading = tokio::spawn(async move { reader.next(10).await });
        tokio::task::yield_now().await;
        backlog.put("at last\n".into());
        assert_eq!(reading.await.unwrap(), "at last\n");
    }

    #[tokio::test]
    async fn what_is_lost_is_counted_and_memory_is_bounded() {
        let backlog = Arc::new(Backlog::default());
        let mut reader = Reader::new(Arc::clone(&backlog));
        for number in 0..1000 {
            backlog.put(line(number));
        }
        assert!(backlog.lines().bytes <= MOST);
        let kept = MOST / 1024;
        let text = reader.next(usize::MAX).await;
        let (first, rest) = text.split_once('\n').unwrap();
        let first: serde_json::Value = serde_json::from_str(first).unwrap();
        assert_eq!((&first["dropped"], &first["level"]), (&(1000 - kept).into(), &"WARN".into()));
        assert_eq!(rest, (1000 - kept..1000).map(line).collect::<String>());
    }

    #[tokio::test]
    async fn a_line_longer_than_the_bound_is_still_told() {
        let backlog = Arc::new(Backlog::default());
        backlog.put("short\n".into());
        backlog.put("x".repeat(MOST * 2));
        let text = Reader::new(Arc::clone(&backlog)).next(10).await;
        assert!(text.contains("\"dropped\":1"), "{text}");
    }
}
