//! `/metrics`: what the machine has and uses.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use sandbox_api::http::{Head, Response};
use serde_json::json;

use super::sandbox::Sandbox;

/// Jiffies of all processors since the machine started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Jiffies {
    all: u64,
    idle: u64,
}

/// How things were at the last call.
#[derive(Debug, Default)]
pub(super) struct Last(Mutex<Jiffies>);

/// Answers with what the machine has and uses; the disk is the container's root.
pub(super) async fn metrics(sandbox: &Arc<Sandbox>, head: &Head) -> Response {
    let (sandbox, target) = (Arc::clone(sandbox), sandbox.target_now(head));
    let work = move || {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let now = jiffies(&text("/proc/stat"));
        let last =
            std::mem::replace(&mut *sandbox.last.0.lock().unwrap_or_else(PoisonError::into_inner), now);
        let memory = text("/proc/meminfo");
        let bytes = |name: &str| item(&memory, name) * 1024;
        let (total, used) = (bytes("MemTotal"), bytes("MemTotal").saturating_sub(bytes("MemAvailable")));
        let disk = target.and_then(|target| rustix::fs::fstatvfs(target.root().ok()?).ok());
        let (disk_total, disk_used) = disk.map_or((0, 0), |disk| {
            (disk.f_blocks * disk.f_frsize, disk.f_blocks.saturating_sub(disk.f_bavail) * disk.f_frsize)
        });
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        json!({
            "ts": seconds,
            "cpu_count": std::thread::available_parallelism().map_or(1, usize::from),
            "cpu_used_pct": used_percent(last, now),
            "mem_total": total,
            "mem_used": used,
            "mem_cache": bytes("Cached"),
            "mem_total_mib": total >> 20,
            "mem_used_mib": used >> 20,
            "disk_used": disk_used,
            "disk_total": disk_total,
        })
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(metrics) => Response::json(200, &metrics),
        Err(_) => Response::failure(500, "reading the metrics panicked"),
    }
}

/// The first line of `/proc/stat` (proc(5)): idle are the fourth and the fifth number.
fn jiffies(text: &str) -> Jiffies {
    let line = text.lines().next().unwrap_or_default();
    let numbers: Vec<u64> =
        line.split_whitespace().skip(1).take(8).filter_map(|number| number.parse().ok()).collect();
    Jiffies { all: numbers.iter().sum(), idle: numbers.iter().skip(3).take(2).sum() }
}

/// Percent of all processors that were busy in between, with two decimals.
fn used_percent(last: Jiffies, now: Jiffies) -> f64 {
    let all = now.all.saturating_sub(last.all);
    let idle = now.idle.saturating_sub(last.idle).min(all);
    if all == 0 { 0.0 } else { ((all - idle) as f64 * 10_000.0 / all as f64).round() / 100.0 }
}

/// A line of `/proc/meminfo`, in KiB.
fn item(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_counted_since_the_last_call() {
        let last = jiffies("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1\n");
        assert_eq!(last, Jiffies { all: 100, idle: 80 });
        let now = jiffies("cpu  43 0 10 130 17 0 0 0 5 5\n");
        assert_eq!(used_percent(last, now), 33.0);
        assert_eq!(used_percent(now, now), 0.0);
        assert_eq!(used_percent(Jiffies::default(), last), 20.0);
        assert_eq!(item("MemTotal:  100 kB\nMemFree: 5 kB\n", "MemFree"), 5);
        assert_eq!(item("", "MemFree"), 0);
    }
}
