//! What a watch tells, and how much of it is kept.

use std::collections::VecDeque;

use rustix::fs::inotify::ReadFlags;
use serde_json::{Value, json};

use crate::sandbox_api::rooted::Entry;

/// Bytes of events that one watcher keeps for whoever asks; about two thousand events.
pub(crate) const MOST_KEPT: usize = 256 << 10;
/// What an event needs beside its texts.
const EACH: usize = 128;

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

/// Events that wait to be asked for.
#[derive(Debug, Default)]
pub(super) struct Kept {
    events: VecDeque<Event>,
    bytes: usize,
    /// Whether some were lost since somebody asked.
    lost: bool,
}

impl Kept {
    pub(super) fn push(&mut self, event: Event) {
        let entry = event.entry.as_ref().map_or(0, |entry| {
            let metadata: usize =
                entry.metadata.iter().map(|(key, value)| key.len() + value.len() + EACH).sum();
            let target = entry.symlink_target.as_ref().map_or(0, String::len);
            std::mem::size_of::<Entry>() + EACH + entry.name.len() + entry.path.len() + target + metadata
        });
        let bytes = EACH + event.name.len() + entry;
        if self.bytes + bytes > MOST_KEPT {
            self.lost = true;
            return;
        }
        self.bytes += bytes;
        self.events.push_back(event);
    }

    /// Some events were not seen.
    pub(super) fn lose(&mut self) {
        self.lost = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && !self.lost
    }

    /// All events, and whether some are missing after them.
    pub(super) fn take(&mut self) -> (Vec<Event>, bool) {
        self.bytes = 0;
        (std::mem::take(&mut self.events).into(), std::mem::take(&mut self.lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str) -> Event {
        Event { name: name.to_owned(), kind: Kind::Write, entry: None }
    }

    #[test]
    fn what_nobody_asks_for_has_a_bound_and_the_loss_is_told() {
        let mut kept = Kept::default();
        assert!(kept.is_empty());
        let fits = MOST_KEPT / (EACH + 4);
        for _ in 0..fits {
            kept.push(event("name"));
        }
        assert!(!kept.lost);
        kept.push(event("last"));
        let (events, lost) = kept.take();
        assert_eq!((events.len(), lost), (fits, true));
        assert!(events.iter().all(|event| event.name == "name"));
        kept.push(event("next"));
        assert_eq!(kept.take(), (vec![event("next")], false));
    }

    #[test]
    fn bits_have_an_order() {
        let all: Vec<Kind> = Kind::of(ReadFlags::all()).collect();
        assert_eq!(all, [Kind::Create, Kind::Rename, Kind::Chmod, Kind::Write, Kind::Remove]);
        assert_eq!(Kind::of(ReadFlags::IGNORED).count(), 0);
        let text = event("a").to_json().to_string();
        assert_eq!(text, r#"{"name":"a","type":"EVENT_TYPE_WRITE"}"#);
    }
}
