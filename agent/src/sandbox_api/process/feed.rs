//! What a command writes, on its way to those who listen.
//!
//! Pure. Each listener has a queue. While nobody listens, the last of what is written is kept in a ring, and the next listener
//! gets it first. The command is as fast as the fastest of its listeners; one that falls behind the others is told that it has
//! missed something. So is nobody: what the last listener did not take goes back into the ring.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes that a listener may leave lying, and that the ring keeps.
pub(super) const ROOM: usize = 256 * 1024;
/// The same, while all commands together hold more than [`super::command::HELD`].
pub(super) const LITTLE_ROOM: usize = 16 * 1024;
/// What a piece counts at least: it takes memory beside its bytes. Else a command that writes byte by byte could make the agent
/// hold many times what is counted.
const EACH: usize = 128;
/// Pieces of one stream that lie behind each other become one of this many bytes at most.
const JOINED: usize = 4 * 1024;
/// Most listeners of a command.
const LISTENERS: usize = 32;

/// Which stream something was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// The terminal.
    Pty,
}

/// Something that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where.
    pub(super) stream: Stream,
    /// What.
    pub(super) bytes: Bytes,
}

/// What a listener gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken<E> {
    /// Something that was written.
    Piece(Piece),
    /// The command has ended.
    End(E),
    /// The listener was too slow, and has missed something.
    Behind,
    /// Nothing yet.
    Nothing,
}

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

impl Piece {
    /// What counts of it.
    fn weight(&self) -> usize {
        self.bytes.len().max(EACH)
    }
}

impl Queue {
    /// `room` is that of the queue: what is joined is a small part of it, so that the ring loses little at a time.
    fn push(&mut self, piece: Piece, room: usize) {
        let most = JOINED.min(room / 4);
        match self.pieces.back_mut() {
            Some(last) if last.stream == piece.stream && last.bytes.len() + piece.bytes.len() <= most => {
                self.bytes -= last.weight();
                last.bytes = [&last.bytes[..], &piece.bytes[..]].concat().into();
                self.bytes += last.weight();
            }
            _ => {
                self.bytes += piece.weight();
                self.pieces.push_back(piece);
            }
        }
    }

    fn pop(&mut self) -> Option<Piece> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.weight();
        Some(piece)
    }
}

#[derive(Debug)]
struct Listener {
    id: u64,
    queue: Queue,
    is_behind: bool,
}

/// See the module. `E` is how a command ended.
#[derive(Debug)]
pub(super) struct Feed<E> {
    ring: Queue,
    listeners: Vec<Listener>,
    next: u64,
    end: Option<E>,
}

impl<E: Clone> Feed<E> {
    /// Of a command that has written nothing.
    pub(super) fn new() -> Feed<E> {
        Feed { ring: Queue::default(), listeners: Vec::new(), next: 0, end: None }
    }

    /// Bytes that it holds, about.
    pub(super) fn held(&self) -> usize {
        self.ring.bytes + self.listeners.iter().map(|listener| listener.queue.bytes).sum::<usize>()
    }

    /// Adds a listener; none if there are too many.
    pub(super) fn listen(&mut self) -> Option<u64> {
        if self.listeners.len() >= LISTENERS {
            return None;
        }
        let id = self.next;
        self.next += 1;
        let queue = if self.listeners.is_empty() { std::mem::take(&mut self.ring) } else { Queue::default() };
        self.listeners.push(Listener { id, queue, is_behind: false });
        Some(id)
    }

    /// Takes a listener away.
    pub(super) fn leave(&mut self, id: u64) {
        let Some(at) = self.listeners.iter().position(|listener| listener.id == id) else { return };
        let listener = self.listeners.swap_remove(at);
        if self.listeners.is_empty() && !listener.is_behind {
            self.ring = listener.queue;
        }
    }

    /// Whether something may be written: nobody listens, or somebody has room.
    pub(super) fn has_room(&self, room: usize) -> bool {
        let mut waiting = self.listeners.iter().filter(|listener| !listener.is_behind).peekable();
        waiting.peek().is_none() || waiting.any(|listener| listener.queue.bytes < room)
    }

    /// Takes in what was written.
    pub(super) fn put(&mut self, piece: Piece, room: usize) {
        let has_faster = self.listeners.iter().any(|other| !other.is_behind && other.queue.bytes < room);
        for listener in self.listeners.iter_mut().filter(|listener| !listener.is_behind) {
            if listener.queue.bytes >= room && has_faster {
                listener.is_behind = true;
                listener.queue = Queue::default();
            } else {
                listener.queue.push(piece.clone(), room);
            }
        }
        if self.listeners.is_empty() {
            self.ring.push(piece, room);
            while self.ring.bytes > room && self.ring.pieces.len() > 1 {
                self.ring.pop();
            }
        }
    }

    /// Nothing more will be written.
    pub(super) fn finish(&mut self, end: E) {
        self.end.get_or_insert(end);
    }

    /// How the command has ended, if it has.
    pub(super) fn end(&self) -> Option<&E> {
        self.end.as_ref()
    }

    /// The next thing for a listener.
    pub(super) fn take(&mut self, id: u64) -> Taken<E> {
        let Some(listener) = self.listeners.iter_mut().find(|listener| listener.id == id) else {
            return Taken::Behind;
        };
        match (listener.queue.pop(), &self.end) {
            (Some(piece), _) => Taken::Piece(piece),
            (None, _) if listener.is_behind => Taken::Behind,
            (None, Some(end)) => Taken::End(end.clone()),
            (None, None) => Taken::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str) -> Piece {
        Piece { stream: Stream::Out, bytes: text.to_owned().into() }
    }

    fn texts(feed: &mut Feed<i32>, id: u64) -> (String, Taken<i32>) {
        let mut all = String::new();
        loop {
            match feed.take(id) {
                Taken::Piece(piece) => all.push_str(std::str::from_utf8(&piece.bytes).unwrap()),
                other => return (all, other),
            }
        }
    }

    #[test]
    fn what_nobody_hears_is_kept_for_the_next_and_told_once() {
        let mut feed = Feed::new();
        feed.put(piece("a"), ROOM);
        feed.put(piece("b"), ROOM);
        let first = feed.listen().unwrap();
        let second = feed.listen().unwrap();
        feed.put(piece("c"), ROOM);
        assert_eq!(texts(&mut feed, first), ("abc".into(), Taken::Nothing));
        assert_eq!(texts(&mut feed, second), ("c".into(), Taken::Nothing));
        feed.finish(7);
        feed.finish(8);
        assert_eq!(texts(&mut feed, first), (String::new(), Taken::End(7)));
        assert_eq!((feed.end(), feed.held()), (Some(&7), 0));
    }

    #[test]
    fn what_the_last_listener_did_not_take_is_the_next_ones() {
        let mut feed = Feed::<i32>::new();
        let (first, second) = (feed.listen().unwrap(), feed.listen().unwrap());
        feed.put(piece("a"), ROOM);
        feed.leave(first);
        feed.leave(second);
        feed.put(piece("b"), ROOM);
        let third = feed.listen().unwrap();
        assert_eq!(texts(&mut feed, third).0, "ab");
        assert_eq!(feed.take(first), Taken::Behind);
    }

    #[test]
    fn the_ring_keeps_the_last_of_it() {
        let mut feed = Feed::<i32>::new();
        for n in 0..1000 {
            assert!(feed.has_room(1000));
            feed.put(piece(&format!("{n:0200}")), 1000);
        }
        assert_eq!(feed.held(), 1000);
        let id = feed.listen().unwrap();
        assert!(texts(&mut feed, id).0.starts_with(&format!("{:0200}", 995)));
        feed.leave(id);
        // What is larger than the room is kept whole: it is as much as was read at once.
        feed.put(piece(&"x".repeat(2000)), 1000);
        assert_eq!(feed.held(), 2000);
    }

    #[test]
    fn what_comes_byte_by_byte_takes_little_more_than_its_bytes() {
        let mut feed = Feed::<i32>::new();
        for n in 0..ROOM {
            feed.put(piece(&(n % 10).to_string()), ROOM);
        }
        assert_eq!((feed.held(), feed.ring.pieces.len()), (ROOM, ROOM / JOINED));
        feed.put(piece("x"), ROOM);
        let id = feed.listen().unwrap();
        let all = texts(&mut feed, id).0;
        assert!(all.len() >= ROOM - JOINED && all.ends_with("123x"), "{}", all.len());
        feed.leave(id);
        // Streams that take turns are not joined, and still do not take more.
        for n in 0..ROOM {
            let stream = if n % 2 == 0 { Stream::Out } else { Stream::Err };
            feed.put(Piece { stream, bytes: Bytes::from_static(b"x") }, ROOM);
        }
        assert_eq!((feed.held(), feed.ring.pieces.len()), (ROOM, ROOM / EACH));
    }

    #[test]
    fn one_listener_holds_the_command_up_and_one_that_falls_behind_does_not() {
        let mut feed = Feed::<i32>::new();
        let slow = feed.listen().unwrap();
        feed.put(piece(&"x".repeat(200)), 200);
        assert!(!feed.has_room(200));
        let fast = feed.listen().unwrap();
        assert!(feed.has_room(200));
        feed.put(piece("y"), 200);
        assert_eq!(texts(&mut feed, fast), ("y".into(), Taken::Nothing));
        assert_eq!(texts(&mut feed, slow), (String::new(), Taken::Behind));
        feed.leave(fast);
        assert!(feed.has_room(200), "who is behind holds nobody up");
        feed.leave(slow);
        assert_eq!(feed.held(), 0);
    }

    #[test]
    fn listeners_have_a_bound() {
        let mut feed = Feed::<i32>::new();
        let ids: Vec<u64> = (0..LISTENERS).map(|_| feed.listen().unwrap()).collect();
        assert_eq!(feed.listen(), None);
        feed.leave(ids[0]);
        assert!(feed.listen().is_some());
    }
}
