//! What a watch tells, and how much of it is kept.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use rustix::fs::inotify::ReadFlags;
use serde_json::{Value, json};

use super::budget::Budget;
use crate::sandbox_api::rooted::Entry;

/// Bytes of events that one watcher keeps for whoever asks: about two hundred thousand events.
pub(crate) const MOST_KEPT: usize = 4 << 20;
/// Bytes of events that all watchers keep together, beyond the first [`STEP`] bytes of each.
pub(crate) const MOST_KEPT_BY_ALL: usize = 8 << 20;
/// So many bytes are taken at once.
const STEP: usize = 16 << 10;
/// Bytes of entries that one watcher keeps. Events beyond that come without entries.
const MOST_ENTRIES: usize = 512 << 10;
/// What an entry needs beside its texts.
const EACH: usize = 128;
/// When so many bytes are kept, a change that a file had just before is not kept again.
const MERGES: usize = 64 << 10;
/// Files whose last event is known for that.
const RECENT: usize = 256;

/// `FilesystemEvent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Path below the watched directory; `.` is the directory itself.
    pub(crate) name: String,
    /// What happened.
    pub(crate) kind: Kind,
    /// What it happened to, if that was asked for and is still there.
    pub(crate) entry: Option<Box<Entry>>,
}

/// `EventType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Create,
    Rename,
    Chmod,
    Write,
    Remove,
}

impl Event {
    /// In protobuf's JSON.
    pub(crate) fn to_json(&self) -> Value {
        let mut event = json!({ "name": self.name, "type": self.kind.name() });
        if let Some(entry) = &self.entry {
            event["entry"] = entry.to_json();
        }
        event
    }
}

impl Kind {
    /// All, by number.
    const ALL: [Kind; 5] = [Kind::Create, Kind::Rename, Kind::Chmod, Kind::Write, Kind::Remove];

    fn name(self) -> &'static str {
        match self {
            Kind::Create => "EVENT_TYPE_CREATE",
            Kind::Rename => "EVENT_TYPE_RENAME",
            Kind::Chmod => "EVENT_TYPE_CHMOD",
            Kind::Write => "EVENT_TYPE_WRITE",
            Kind::Remove => "EVENT_TYPE_REMOVE",
        }
    }

    /// What inotify's bits mean, in the order in which it is told.
    pub(super) fn of(flags: ReadFlags) -> impl Iterator<Item = Kind> {
        let table = [
            (Kind::Create, ReadFlags::CREATE | ReadFlags::MOVED_TO),
            (Kind::Rename, ReadFlags::MOVED_FROM | ReadFlags::MOVE_SELF),
            (Kind::Chmod, ReadFlags::ATTRIB),
            (Kind::Write, ReadFlags::MODIFY),
            (Kind::Remove, ReadFlags::DELETE | ReadFlags::DELETE_SELF),
        ];
        table.into_iter().filter(move |(_, bits)| flags.intersects(*bits)).map(|(kind, _)| kind)
    }

    /// Whether what it happened to can be looked at.
    pub(super) fn has_entry(self) -> bool {
        matches!(self, Kind::Create | Kind::Chmod | Kind::Write)
    }
}

/// Events, oldest first. Each name is kept as what differs from the name before it: names of a tree repeat their directories.
///
/// An event is a byte for its kind, two numbers (how much of the name before it is the same, and how much is new), and what
/// is new. Reading begins at the front, and gives nothing back before all is dropped.
#[derive(Debug)]
pub(crate) struct Events {
    bytes: Vec<u8>,
    entries: VecDeque<Box<Entry>>,
    weight: usize,
    /// Name of the last event that was put in.
    last: String,
    /// Where the next event to be read is, and the name of the one before.
    at: usize,
    name: String,
    count: usize,
    json: usize,
    budget: Budget,
}

impl Events {
    fn new(budget: Budget) -> Events {
        Events {
            bytes: Vec::new(),
            entries: VecDeque::new(),
            weight: 0,
            last: String::new(),
            at: 0,
            name: String::new(),
            count: 0,
            json: 0,
            budget,
        }
    }

    /// How many are still to be read.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of all of them in JSON, without what separates them.
    pub(crate) fn json_bytes(&self) -> usize {
        self.json
    }

    /// Makes room for so many bytes more. False if there is none.
    fn reserve(&mut self, more: usize) -> bool {
        let had = self.bytes.capacity();
        let wanted = (self.bytes.len() + more).next_multiple_of(STEP);
        if wanted <= had {
            return true;
        }
        // The first step is everybody's.
        let step = if had == 0 { wanted.saturating_sub(STEP) } else { wanted - had };
        if wanted > MOST_KEPT || !self.budget.take(step) {
            return false;
        }
        self.bytes.reserve_exact(wanted - self.bytes.len());
        true
    }

    /// False if there is no room for it.
    fn push(&mut self, mut event: Event) -> bool {
        const MOST_HEAD: usize = 1 + 2 * 5;
        let same = self.last.bytes().zip(event.name.bytes()).take_while(|(one, other)| one == other).count();
        let same = (0..=same).rev().find(|at| event.name.is_char_boundary(*at)).unwrap_or(0);
        if !self.reserve(MOST_HEAD + event.name.len() - same) {
            return false;
        }
        let weight = event.entry.as_deref().map_or(0, weigh);
        if self.weight + weight > MOST_ENTRIES {
            event.entry = None;
        }
        self.json += event.to_json().to_string().len();
        self.count += 1;
        let rest = &event.name.as_bytes()[same..];
        self.bytes.push(event.kind as u8 | if event.entry.is_some() { WITH_ENTRY } else { 0 });
        put_number(&mut self.bytes, same);
        put_number(&mut self.bytes, rest.len());
        self.bytes.extend_from_slice(rest);
        if let Some(entry) = event.entry {
            self.weight += weight;
            self.entries.push_back(entry);
        }
        self.last = event.name;
        true
    }

    fn number(&mut self) -> usize {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let byte = self.bytes[self.at];
            self.at += 1;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }
}

/// In the byte of a kind: an entry comes along.
const WITH_ENTRY: u8 = 0x80;

fn put_number(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Bytes that an entry takes, about.
fn weigh(entry: &Entry) -> usize {
    let metadata: usize = entry.metadata.iter().map(|(key, value)| key.len() + value.len() + EACH).sum();
    let target = entry.symlink_target.as_ref().map_or(0, String::len);
    std::mem::size_of::<Entry>() + EACH + entry.name.len() + entry.path.len() + target + metadata
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.count = self.count.checked_sub(1)?;
        let tag = self.bytes[self.at];
        self.at += 1;
        let (same, length) = (self.number(), self.number());
        self.name.truncate(same);
        // It was put in as a text.
        self.name.push_str(std::str::from_utf8(&self.bytes[self.at..self.at + length]).unwrap_or_default());
        self.at += length;
        let entry = if tag & WITH_ENTRY == 0 { None } else { self.entries.pop_front() };
        Some(Event { name: self.name.clone(), kind: Kind::ALL[usize::from(tag & !WITH_ENTRY)], entry })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes.capacity().saturating_sub(STEP));
    }
}

/// Events that wait to be asked for.
#[derive(Debug)]
pub(super) struct Kept {
    events: Events,
    /// Whether some were lost since somebody was told so.
    lost: bool,
    /// The last event of some files: a number for the name, and what happened.
    recent: Vec<(u64, Kind)>,
    numbers: RandomState,
}

impl Kept {
    /// Nothing. `budget` is what all watchers share.
    pub(super) fn new(budget: Budget) -> Kept {
        Kept { events: Events::new(budget), lost: false, recent: Vec::new(), numbers: RandomState::new() }
    }

    pub(super) fn push(&mut self, event: Event) {
        if self.events.bytes.len() >= MERGES && self.is_repeated(&event) {
            return;
        }
        if !self.events.push(event) {
            self.lost = true;
        }
    }

    /// Whether the same happened to a file the last time. As with the kernel's own queue, one event tells of all such changes
    /// that were not read yet.
    fn is_repeated(&mut self, event: &Event) -> bool {
        if self.recent.is_empty() {
            self.recent.resize(RECENT, (0, Kind::Create));
        }
        let number = self.numbers.hash_one(&event.name);
        let place = &mut self.recent[number as usize % RECENT];
        let is_repeated = *place == (number, event.kind)
            && matches!(event.kind, Kind::Write | Kind::Chmod)
            && event.entry.is_none();
        *place = (number, event.kind);
        is_repeated
    }

    /// Some events were not seen.
    pub(super) fn lose(&mut self) {
        self.lost = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.has_events() && !self.lost
    }

    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether events are missing after those that are kept.
    pub(super) fn take_loss(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// All events.
    pub(super) fn take(&mut self) -> Events {
        self.recent = Vec::new();
        let none = Events::new(self.events.budget.clone());
        std::mem::replace(&mut self.events, none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str) -> Event {
        Event { name: name.to_owned(), kind: Kind::Write, entry: None }
    }

    fn kept() -> (Kept, Budget) {
        let budget = Budget::new(MOST_KEPT_BY_ALL);
        (Kept::new(budget.clone()), budget)
    }

    /// Names as `npm install` makes them.
    fn names() -> impl Iterator<Item = String> {
        (0..60_000).map(|n| format!("node_modules/package-{}/dist/lib/module-{}.js", n / 40, n % 40))
    }

    #[test]
    fn what_an_installation_of_packages_makes_is_kept_whole() {
        let (mut kept, budget) = kept();
        let kinds = [Kind::Create, Kind::Chmod, Kind::Write];
        for name in names() {
            for kind in kinds {
                kept.push(Event { name: name.clone(), kind, entry: None });
            }
        }
        assert!(!kept.take_loss() && kept.events.bytes.capacity() <= MOST_KEPT);
        let (events, used) = (kept.take(), budget.used());
        assert_eq!((events.len(), used), (180_000, events.bytes.capacity() - STEP));
        let mut json = 0;
        let expected = names().flat_map(|name| kinds.map(|kind| (name.clone(), kind)));
        for (event, expected) in events.zip(expected) {
            json += event.to_json().to_string().len();
            assert_eq!((event.name, event.kind), expected);
        }
        assert!(json > 10 << 20, "{json}");
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_nobody_asks_for_has_a_bound_and_the_loss_is_told() {
        let (mut kept, _) = kept();
        assert!(kept.is_empty());
        let long = "x".repeat(200);
        let mut pushed = 0;
        while !kept.lost {
            // Nothing of a name is that of the one before.
            kept.push(event(&format!("{pushed:07}{long}")));
            pushed += 1;
        }
        assert!(kept.events.bytes.capacity() <= MOST_KEPT);
        assert!(kept.take_loss() && !kept.take_loss());
        let events: Vec<Event> = kept.take().collect();
        assert_eq!(events.len(), pushed - 1);
        assert!(events.iter().all(|event| event.name.ends_with(&long)));
        kept.push(event("next"));
        assert_eq!(kept.take().collect::<Vec<_>>(), [event("next")]);
        assert!(!kept.take_loss());
    }

    #[test]
    fn entries_have_a_bound_and_events_come_without() {
        let dir = tempfile::tempdir().unwrap();
        let directory = std::sync::Arc::new(std::fs::File::open(dir.path()).unwrap().into());
        let root = crate::sandbox_api::rooted::Root::new(directory);
        let entry = Entry::of(&root, &root.names(), "/").unwrap();
        let (mut kept, _) = kept();
        for n in 0..10_000 {
            kept.push(Event { entry: Some(Box::new(entry.clone())), ..event(&n.to_string()) });
        }
        let events = kept.take();
        assert!(events.weight <= MOST_ENTRIES && events.weight + weigh(&entry) > MOST_ENTRIES);
        let (with, json) = (events.entries.len(), events.json_bytes());
        let all: Vec<Event> = events.collect();
        assert_eq!(all.iter().position(|event| event.entry.is_none()), Some(with));
        assert_eq!(
            (all.len(), all.iter().map(|event| event.to_json().to_string().len()).sum::<usize>()),
            (10_000, json)
        );
    }

    #[test]
    fn one_watcher_leaves_room_for_others() {
        let budget = Budget::new(STEP);
        let (mut greedy, mut modest) = (Kept::new(budget.clone()), Kept::new(budget.clone()));
        for n in 0..10_000 {
            greedy.push(event(&n.to_string()));
        }
        assert!(greedy.lost && budget.used() == STEP);
        for n in 0..1000 {
            modest.push(event(&n.to_string()));
        }
        assert!(!modest.lost && modest.take().count() == 1000);
        drop(greedy);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_file_that_changes_all_the_time_is_told_of_once_in_a_while() {
        let (mut kept, _) = kept();
        for _ in 0..1_000_000 {
            kept.push(event("log"));
            kept.push(event("other"));
        }
        assert!(!kept.lost && kept.events.bytes.len() < 2 * MERGES);
        kept.push(Event { kind: Kind::Remove, ..event("log") });
        kept.push(event("log"));
        let last: Vec<Kind> =
            kept.take().filter(|event| event.name == "log").map(|event| event.kind).collect();
        assert_eq!(last[last.len() - 2..], [Kind::Remove, Kind::Write]);
    }

    #[test]
    fn names_that_begin_alike_come_back_as_they_were() {
        let (mut kept, _) = kept();
        let names = ["é", "è", "", "a/b", "a", "a/bé", "漢字", "漢", &"n".repeat(300), "."];
        names.iter().for_each(|name| kept.push(event(name)));
        let events = kept.take();
        assert_eq!(
            events.json_bytes(),
            names.iter().map(|name| event(name).to_json().to_string().len()).sum::<usize>()
        );
        assert_eq!(events.map(|event| event.name).collect::<Vec<_>>(), names);
    }

    #[test]
    fn bits_have_an_order() {
        let all: Vec<Kind> = Kind::of(ReadFlags::all()).collect();
        assert_eq!(all, [Kind::Create, Kind::Rename, Kind::Chmod, Kind::Write, Kind::Remove]);
        assert_eq!(Kind::of(ReadFlags::IGNORED).count(), 0);
        assert!(Kind::ALL.iter().enumerate().all(|(number, kind)| *kind as usize == number));
        let text = event("a").to_json().to_string();
        assert_eq!(text, r#"{"name":"a","type":"EVENT_TYPE_WRITE"}"#);
    }
}
