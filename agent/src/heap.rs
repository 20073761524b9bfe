//! The agent's own memory, after something that took much of it has ended: a flood must not leave the agent as large as it was
//! in its midst, for as long as the pod lives.

use std::time::Duration;

use crate::sys::heap;

/// What has ended takes a moment to go: tasks that hold a part of it end one by one.
const MOMENT: Duration = Duration::from_secs(1);

/// Gives free memory back to the guest, in a moment and on a thread. Without a runtime there is nobody left to do it.
pub(crate) fn trim_soon() {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async {
        tokio::time::sleep(MOMENT).await;
        if tokio::task::spawn_blocking(heap::trim).await.is_err() {
            tracing::error!("giving memory back panicked");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
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
        trim_soon();
        tokio::time::sleep(MOMENT * 3).await;
        let after = resident_kib();
        assert!(after < before + 4096, "{before} KiB grew to {after} KiB, from {full}");
        drop(on_top);
    }
}
