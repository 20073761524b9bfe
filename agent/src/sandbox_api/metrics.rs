//! `/metrics`: what the machine has and uses.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sandbox_api::http::{Head, Response};
use serde_json::json;

use super::processors;
use super::sandbox::Sandbox;
use super::task;
use crate::reserve::meminfo;

/// Answers with what the machine has and uses; the disk is the container's root.
pub(super) async fn metrics(sandbox: &Arc<Sandbox>, head: &Head) -> Response {
    let (sandbox, target) = (Arc::clone(sandbox), sandbox.target_now(head));
    let work = move || {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (memory, processor_times) = (text("/proc/meminfo"), text("/proc/stat"));
        let bytes = |name: &str| meminfo(&memory, name).unwrap_or_default();
        let (total, used) = (bytes("MemTotal"), bytes("MemTotal").saturating_sub(bytes("MemAvailable")));
        let disk = target.and_then(|target| rustix::fs::fstatvfs(target.root().ok()?).ok());
        let (disk_total, disk_used) = disk.map_or((0, 0), |disk| {
            (disk.f_blocks * disk.f_frsize, disk.f_blocks.saturating_sub(disk.f_bavail) * disk.f_frsize)
        });
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        json!({
            "ts": seconds,
            "cpu_count": processors::count(&processor_times),
            "cpu_used_pct": sandbox.processors.used_percent(&processor_times),
            "mem_total": total,
            "mem_used": used,
            "mem_cache": bytes("Cached"),
            "mem_total_mib": total >> 20,
            "mem_used_mib": used >> 20,
            "disk_used": disk_used,
            "disk_total": disk_total,
        })
    };
    match task::blocking(work).await {
        Ok(metrics) => Response::json(200, &metrics),
        Err(_) => Response::failure(500, "reading the metrics panicked"),
    }
}
