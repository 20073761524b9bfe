//! What is set about reclaim and compaction of the guest's memory.

use protocols::agent::{MemAgentCompactConfig, MemAgentMemcgConfig};

use super::status::Failure;
use crate::guest::memory::{CompactionChange, MemAgent, ReclaimChange};

pub(super) fn reclaim(memory: &MemAgent, request: &MemAgentMemcgConfig) -> Result<(), Failure> {
    let change = ReclaimChange {
        disabled: request.disabled,
        swap: request.swap,
        swappiness_max: request.swappiness_max,
        period_secs: request.period_secs,
        period_psi_percent_limit: request.period_psi_percent_limit,
        eviction_psi_percent_limit: request.eviction_psi_percent_limit,
        eviction_run_aging_count_min: request.eviction_run_aging_count_min,
    };
    Ok(memory.set_reclaim(&change)?)
}

pub(super) fn compaction(memory: &MemAgent, request: &MemAgentCompactConfig) -> Result<(), Failure> {
    let change = CompactionChange {
        disabled: request.disabled,
        period_secs: request.period_secs,
        period_psi_percent_limit: request.period_psi_percent_limit,
        compact_psi_percent_limit: request.compact_psi_percent_limit,
        compact_sec_max: request.compact_sec_max,
        compact_order: request.compact_order,
        compact_threshold: request.compact_threshold,
        compact_force_times: request.compact_force_times,
    };
    Ok(memory.set_compaction(&change)?)
}
