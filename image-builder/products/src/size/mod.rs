//! What takes the room, as a picture.
//!
//! Owns the tree of sizes and its drawing. Promises that areas are in proportion to bytes, that the same sizes give the same
//! picture, and that a name never breaks the file it is written into. Must never decide what is too large.

mod squarify;
mod svg;

use std::collections::BTreeMap;

use crate::inspect::Entry;
use crate::kernel;

pub use svg::draw;

/// How deep parts lie in one another. They are visited by recursion.
const MAX_DEPTH: usize = 128;

/// Something with a size, or with parts that have one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weight {
    /// Its own bytes, without its parts.
    own: u64,
    parts: BTreeMap<String, Weight>,
}

impl Weight {
    /// Adds bytes at a path of names; parts on the way are made. What lies deeper than a picture can show counts for the last
    /// part that it can.
    pub fn add<'a>(&mut self, path: impl IntoIterator<Item = &'a str>, bytes: u64) {
        let mut at = self;
        for name in path.into_iter().take(MAX_DEPTH) {
            at = at.parts.entry(name.to_owned()).or_default();
        }
        at.own += bytes;
    }

    /// All bytes in it.
    pub fn total(&self) -> u64 {
        self.own + self.parts.values().map(Weight::total).sum::<u64>()
    }

    /// The parts that have any bytes, largest first; of equal ones, in order of name. Bytes of its own beside parts are one
    /// without parts.
    fn by_size(&self) -> Vec<Part<'_>> {
        let mut parts: Vec<_> = self
            .parts
            .iter()
            .map(|(name, weight)| Part { name, bytes: weight.total(), weight: Some(weight) })
            .collect();
        if !parts.is_empty() {
            parts.push(Part { name: "(itself)", bytes: self.own, weight: None });
        }
        parts.retain(|part| part.bytes > 0);
        parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
        parts
    }
}

/// A part as it is drawn.
struct Part<'a> {
    name: &'a str,
    bytes: u64,
    weight: Option<&'a Weight>,
}

/// What a kernel's object files weigh, by directory.
pub fn of_kernel(report: &kernel::size::Report) -> Weight {
    let mut weight = Weight::default();
    for row in &report.subsystems {
        weight.add(row.name.split('/'), row.bytes());
    }
    weight
}

/// The files of a root file system by their directories.
pub fn of_entries(entries: &[Entry]) -> Weight {
    let mut weight = Weight::default();
    for entry in entries {
        weight.add(entry.path.split('/').skip(1), entry.size);
    }
    weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_deeper_than_a_stack_is_weighed_as_far_as_can_be_shown() {
        let path = "/d".repeat(250_000);
        let weight = of_entries(&[Entry { path, mode: 0, uid: 0, gid: 0, size: 7, target: None }]);
        assert_eq!(weight.total(), 7);
    }

    #[test]
    fn directories_weigh_what_is_in_them() {
        let entry =
            |path: &str, size| Entry { path: path.into(), mode: 0, uid: 0, gid: 0, size, target: None };
        let weight = of_entries(&[entry("/a", 0), entry("/a/b", 7), entry("/a/c", 9), entry("/d", 1)]);
        assert_eq!(weight.total(), 17);
        let names = |weight: &Weight| {
            weight.by_size().iter().map(|part| (part.name.to_owned(), part.bytes)).collect::<Vec<_>>()
        };
        assert_eq!(names(&weight), [("a".to_owned(), 16), ("d".to_owned(), 1)]);
        assert_eq!(names(&weight.parts["a"]), [("c".to_owned(), 9), ("b".to_owned(), 7)]);
        let mut both = Weight::default();
        both.add(["fs"], 5);
        both.add(["fs", "ext4"], 3);
        assert_eq!(names(&both.parts["fs"]), [("(itself)".to_owned(), 5), ("ext4".to_owned(), 3)]);
    }
}
