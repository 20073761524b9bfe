//! Where the data of a file with holes is.

use super::number::integer;

/// A stretch of a file that is data; what lies between them is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Fragment {
    /// From the file's beginning, in bytes.
    pub(in super::super) offset: u64,
    /// In bytes.
    pub(in super::super) len: u64,
}

impl Fragment {
    /// The first byte after it.
    pub(in super::super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// Whether the fragments are in order, apart, and inside the file.
pub(super) fn is_valid(fragments: &[Fragment], size: u64) -> bool {
    let mut before = 0;
    fragments.iter().all(|fragment| {
        let fits = fragment.offset >= before
            && fragment.offset.checked_add(fragment.len).is_some_and(|end| end <= size);
        before = fragment.end();
        fits
    })
}

/// The map of PAX's sparse format 1.0 as it is read, a block at a time: how many fragments, then an offset and a length of each.
#[derive(Default)]
pub(super) struct MapText {
    text: Vec<u8>,
    lines: usize,
}

impl MapText {
    pub(super) fn push(&mut self, block: &[u8]) {
        self.lines += block.iter().filter(|byte| **byte == b'\n').count();
        self.text.extend(block);
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether all lines are there.
    pub(super) fn is_complete(&self) -> Result<bool, &'static str> {
        Ok(self.lines > 0 && self.lines > 2 * self.count()?)
    }

    pub(super) fn fragments(&self) -> Result<Vec<Fragment>, &'static str> {
        let mut numbers = self.numbers().skip(1);
        let mut value = || numbers.next().flatten().ok_or("a sparse map cannot be read");
        (0..self.count()?).map(|_| Ok(Fragment { offset: value()?, len: value()? })).collect()
    }

    fn count(&self) -> Result<usize, &'static str> {
        let count = self.numbers().next().flatten().and_then(|count| usize::try_from(count).ok());
        count.filter(|count| *count < usize::MAX / 2).ok_or("a sparse map does not say how long it is")
    }

    fn numbers(&self) -> impl Iterator<Item = Option<u64>> {
        let lines = self.text.split(|byte| *byte == b'\n');
        lines.map(|line| integer(line).and_then(|value| u64::try_from(value).ok()))
    }
}
