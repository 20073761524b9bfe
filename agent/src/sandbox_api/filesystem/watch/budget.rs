//! What all watchers share: so much of something, and no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// See the module. A clone is the same budget.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    used: Arc<AtomicUsize>,
    most: usize,
}

impl Budget {
    /// Nothing is taken of it.
    pub(super) fn new(most: usize) -> Budget {
        Budget { used: Arc::default(), most }
    }

    /// Takes so much. False if there is not so much.
    pub(super) fn take(&self, count: usize) -> bool {
        let more = |used: usize| used.checked_add(count).filter(|used| *used <= self.most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&self, count: usize) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }

    /// How much is taken.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}
