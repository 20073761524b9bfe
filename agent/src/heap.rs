//! The agent's own memory, after something that took much of it has ended: a flood must not leave the agent as large as it was
//! in its midst, for as long as the pod lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::sys::heap;

/// What has ended takes a moment to go: tasks that hold a part of it end one by one.
const MOMENT: Duration = Duration::from_secs(1);

/// Gives free memory back to the guest. Clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trimmer {
    is_due: Arc<AtomicBool>,
}

impl Trimmer {
    /// Does it in a moment and on a thread, once for all who ask until then. Without a runtime there is nobody left to do it.
    pub(crate) fn trim_soon(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.is_due.swap(true, Ordering::Relaxed) {
            return;
        }
        let is_due = Arc::clone(&self.is_due);
        runtime.spawn(async move {
            tokio::time::sleep(MOMENT).await;
            // Who asks from now on may have freed more.
            is_due.store(false, Ordering::Relaxed);
            // Of this thread: the runtime has no other that allocates for long.
            let cached = cached();
            let trim = move || {
                // A thread that ends gives what it freed to the heap.
                let freed = std::thread::Builder::new().name("heap".into()).spawn(move || drop(cached));
                let is_freed = freed.map(std::thread::JoinHandle::join);
                heap::trim();
                is_freed
            };
            match tokio::task::spawn_blocking(trim).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Err(error)) => tracing::warn!(%error, "no thread empties a cache of free memory"),
                Ok(Ok(Err(_))) | Err(_) => tracing::error!("giving memory back panicked"),
            }
        });
    }
}

/// Sizes of the pieces that glibc keeps free for one thread, and how many of each (mallopt(3), `glibc.malloc.tcache_max` and
/// `glibc.malloc.tcache_count` in its manual).
const CACHED_SIZES: std::ops::RangeInclusive<usize> = 24..=1032;
const CACHED_STEP: usize = 16;
const CACHED_EACH: usize = 7;

/// What the C library keeps for this thread, which malloc_trim(3) does not touch: some hundred pieces that lie all over the
/// heap, each of which keeps a page. Here they are in use; freed on another thread, they become part of the heap.
fn cached() -> Vec<Vec<u8>> {
    let sizes = CACHED_SIZES.step_by(CACHED_STEP);
    sizes.flat_map(|size| (0..CACHED_EACH).map(move |_| Vec::with_capacity(size))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// What is resident once it is less than so much, or after a while: on a busy machine the thread that trims waits for its
    /// turn.
    async fn settled_kib(most: u64) -> u64 {
        for _ in 0..20 {
            if resident_kib() < most {
                break;
            }
            tokio::time::sleep(MOMENT).await;
        }
        resident_kib()
    }

    #[tokio::test]
    async fn a_flood_does_not_stay() {
        let before = resident_kib();
        // Pieces too small to be mapped one by one, and one that stays on top of them.
        let mut flood: Vec<Box<[u8]>> = (0..2000).map(|_| vec![7; 40_000].into_boxed_slice()).collect();
        let on_top = flood.pop();
        let full = resident_kib();
        assert!(full > before + 60_000, "{before} KiB grew to {full} KiB");
        drop(flood);
        let trimmer = Trimmer::default();
        trimmer.trim_soon();
        trimmer.clone().trim_soon();
        assert!(trimmer.is_due.load(Ordering::Relaxed));
        while trimmer.is_due.load(Ordering::Relaxed) {
            tokio::time::sleep(MOMENT).await;
        }
        let after = settled_kib(before + 4096).await;
        assert!(after < before + 4096, "{before} KiB grew to {after} KiB, from {full}");
        drop(on_top);
    }

    #[tokio::test]
    async fn small_pieces_that_a_thread_keeps_do_not_hold_what_lies_between_them() {
        let (mut small, mut between) = (Vec::with_capacity(500), Vec::with_capacity(500));
        let before = resident_kib();
        for size in CACHED_SIZES.step_by(CACHED_STEP) {
            for _ in 0..CACHED_EACH {
                small.push(vec![7u8; size]);
                between.push(vec![7u8; 12_000]);
            }
        }
        drop(between);
        drop(small);
        let trimmer = Trimmer::default();
        trimmer.trim_soon();
        let after = settled_kib(before + 1024).await;
        assert!(after < before + 1024, "{before} KiB grew to {after} KiB");
    }
}
