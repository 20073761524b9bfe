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
            if tokio::task::spawn_blocking(heap::trim).await.is_err() {
                tracing::error!("giving memory back panicked");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
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
        tokio::time::sleep(MOMENT * 3).await;
        assert!(!trimmer.is_due.load(Ordering::Relaxed));
        let after = resident_kib();
        assert!(after < before + 4096, "{before} KiB grew to {after} KiB, from {full}");
        drop(on_top);
    }
}
