//! Output that the agent holds because nobody has read it yet, of all processes together.
//!
//! A living process can wait, so it is only given less room when all of them hold much. An ended one cannot; what it left is
//! kept for whoever asks, and where that becomes too much, the output that has lain longest is thrown away. So neither the
//! number of processes nor what they write can take the guest's memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Bytes of one output that are held while its process lives.
pub(super) const ROOM: usize = 64 * 1024;
/// As [`ROOM`], where the living hold more than [`LIVING`] together.
const LITTLE_ROOM: usize = 4 * 1024;
/// See [`LITTLE_ROOM`].
const LIVING: usize = 4 << 20;
/// Bytes that ended processes leave at most.
const ENDED: usize = 4 << 20;
/// Bytes that all the reads that wait for output may bring at once, about.
const READING: usize = 4 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    living: AtomicUsize,
    ended: AtomicUsize,
    queue: Mutex<Queue>,
    reads: AtomicUsize,
}

/// Outputs of ended processes, the oldest first.
#[derive(Debug, Default)]
struct Queue {
    outputs: VecDeque<Weak<dyn Left>>,
    /// How many are there when those are sorted out that were read or forgotten.
    full: usize,
}

/// Fewer outputs than this are not worth a look.
const FEW: usize = 16;

impl Queue {
    /// Sorts out what is nothing any more, whenever the queue has doubled: so each output is looked at twice on the average.
    fn push(&mut self, output: Weak<dyn Left>) {
        if self.outputs.len() >= self.full.max(FEW) {
            self.outputs.retain(|output| output.upgrade().is_some_and(|output| output.is_something()));
            self.full = 2 * self.outputs.len();
        }
        self.outputs.push_back(output);
    }
}

/// An output that an ended process has left.
pub(super) trait Left: std::fmt::Debug + Send + Sync {
    /// Throws it away, and tells how many bytes that were.
    fn throw_away(&self) -> usize;
    /// Whether there is, or will be, something to throw away.
    fn is_something(&self) -> bool;
}

impl Unread {
    /// Bytes that an output of a living process may hold.
    pub(super) fn room(&self) -> usize {
        if self.living.load(Ordering::Relaxed) > LIVING { LITTLE_ROOM } else { ROOM }
    }

    /// Notes that a process has ended whose output this is.
    pub(super) fn has_ended(&self, output: Weak<dyn Left>) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(output);
    }

    /// Throws away what has lain longest, until the rest is not too much.
    pub(super) fn settle(&self) {
        while self.ended.load(Ordering::Relaxed) > ENDED {
            let oldest = self.queue.lock().unwrap_or_else(PoisonError::into_inner).outputs.pop_front();
            let Some(oldest) = oldest else { return };
            let bytes = oldest.upgrade().map_or(0, |output| output.throw_away());
            if bytes > 0 {
                tracing::warn!(bytes, "output of an ended process that nobody has read was thrown away");
            }
        }
    }

    /// A read that begins to wait.
    pub(crate) fn reading(&self) -> Reading<'_> {
        Reading { unread: self, number: self.reads.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

/// See [`Unread::reading`].
pub(crate) struct Reading<'a> {
    unread: &'a Unread,
    number: usize,
}

impl Reading<'_> {
    /// Bytes that it may bring of `asked`: the more of them wait, the less each. At least one, since none would be the end.
    pub(crate) fn most(&self, asked: usize) -> usize {
        asked.min((READING / self.number).max(LITTLE_ROOM)).max(1)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.unread.reads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one output holds, as part of the whole.
#[derive(Debug)]
pub(super) struct Account {
    unread: Arc<Unread>,
    bytes: usize,
    has_ended: bool,
}

impl Account {
    pub(super) fn new(unread: Arc<Unread>) -> Account {
        Account { unread, bytes: 0, has_ended: false }
    }

    /// It holds this much now.
    pub(super) fn set(&mut self, bytes: usize) {
        let total = if self.has_ended { &self.unread.ended } else { &self.unread.living };
        if bytes >= self.bytes {
            total.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            total.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Its process has ended.
    pub(super) fn end(&mut self) {
        let bytes = self.bytes;
        self.set(0);
        self.has_ended = true;
        self.set(bytes);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_follows_the_outputs() {
        let unread = Arc::new(Unread::default());
        let totals = || (unread.living.load(Ordering::Relaxed), unread.ended.load(Ordering::Relaxed));
        let mut one = Account::new(Arc::clone(&unread));
        let mut two = Account::new(Arc::clone(&unread));
        one.set(100);
        two.set(LIVING);
        assert_eq!((totals(), unread.room()), ((LIVING + 100, 0), LITTLE_ROOM));
        two.end();
        assert_eq!((totals(), unread.room()), ((100, LIVING), ROOM));
        two.set(7);
        drop(one);
        assert_eq!(totals(), (0, 7));
        drop(two);
        assert_eq!(totals(), (0, 0));
    }

    #[derive(Debug)]
    struct Output;

    impl Left for Output {
        fn throw_away(&self) -> usize {
            0
        }

        fn is_something(&self) -> bool {
            true
        }
    }

    #[test]
    fn the_queue_forgets_what_is_gone_and_nothing_else() {
        let mut queue = Queue::default();
        let push = |queue: &mut Queue, output: &Arc<Output>| {
            let weak: Weak<Output> = Arc::downgrade(output);
            queue.push(weak);
        };
        let kept: Vec<_> = (0..100).map(|_| Arc::new(Output)).collect();
        for output in &kept {
            push(&mut queue, output);
            for _ in 0..100 {
                push(&mut queue, &Arc::new(Output));
            }
            assert!(queue.outputs.len() <= 2 * (kept.len() + FEW), "{}", queue.outputs.len());
        }
        let left: Vec<_> = queue.outputs.iter().filter_map(Weak::upgrade).collect();
        assert_eq!(left.len(), kept.len());
    }

    #[test]
    fn many_reads_bring_little_each() {
        let unread = Unread::default();
        let reads: Vec<_> = (0..4096).map(|_| unread.reading()).collect();
        assert_eq!(reads[0].most(1 << 20), 1 << 20);
        assert_eq!(reads[0].most(0), 1);
        assert_eq!(reads[127].most(1 << 20), 32 * 1024);
        assert_eq!(reads[4095].most(1 << 20), LITTLE_ROOM);
        drop(reads);
        assert_eq!(unread.reading().most(1 << 20), 1 << 20);
    }
}
