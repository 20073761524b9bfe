//! What can be set about reclaim and compaction, and what of it makes sense.
//!
//! Promises that a change is taken whole or not at all, and that only what it names changes.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config;
use crate::error::{ErrorKind, Kind};

/// A setting is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value}, not within {least} and {most}")]
pub(crate) struct SettingsError {
    name: &'static str,
    value: i128,
    least: i128,
    most: i128,
}

impl Kind for SettingsError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// When to reclaim how much of a container's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reclaim {
    pub(super) disabled: bool,
    /// Whether memory of processes may go to swap space, or the page cache alone is reclaimed.
    pub(super) swap: bool,
    /// The most that memory of processes may be preferred, as the kernel's swappiness: 0 to 200.
    pub(super) swappiness_max: u8,
    /// Between two looks.
    pub(super) period: Duration,
    /// Percent of a period: a container that stalled for longer is left alone.
    pub(super) period_stall_limit: u8,
    /// Percent of an eviction: it ends when the container stalls for longer.
    pub(super) eviction_stall_limit: u8,
    /// How many looks memory must have lain idle for.
    pub(super) looks: u64,
}

/// When to compact free memory, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compaction {
    pub(super) disabled: bool,
    /// Between two looks.
    pub(super) period: Duration,
    /// Percent of a period: a guest that stalled for longer is not compacted.
    pub(super) period_stall_limit: u8,
    /// Percent of a second: a compaction ends when the guest stalls for longer.
    pub(super) run_stall_limit: u8,
    /// The longest that a compaction may take.
    pub(super) longest: Duration,
    /// Free blocks below this order count as scattered.
    pub(super) order: u8,
    /// Scattered pages that must have come since the last compaction.
    pub(super) threshold: u64,
    /// After how many looks without a compaction there is one in any case; `u64::MAX` for never.
    pub(super) force_after: u64,
}

/// A change of [`Reclaim`]: what is none stays. Numbers as they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReclaimChange {
    /// See the option `mem_agent_memcg_disable`; the others alike.
    pub(crate) disabled: Option<bool>,
    pub(crate) swap: Option<bool>,
    pub(crate) swappiness_max: Option<u32>,
    pub(crate) period_secs: Option<u64>,
    pub(crate) period_psi_percent_limit: Option<u32>,
    pub(crate) eviction_psi_percent_limit: Option<u32>,
    pub(crate) eviction_run_aging_count_min: Option<u64>,
}

/// A change of [`Compaction`]: what is none stays. Numbers as they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct CompactionChange {
    /// See the option `mem_agent_compact_disable`; the others alike.
    pub(crate) disabled: Option<bool>,
    pub(crate) period_secs: Option<u64>,
    pub(crate) period_psi_percent_limit: Option<u32>,
    pub(crate) compact_psi_percent_limit: Option<u32>,
    pub(crate) compact_sec_max: Option<i64>,
    pub(crate) compact_order: Option<u32>,
    pub(crate) compact_threshold: Option<u64>,
    pub(crate) compact_force_times: Option<u64>,
}

const SECONDS: RangeInclusive<u64> = 1..=i64::MAX as u64;
const PERCENT: RangeInclusive<u32> = 0..=100;
/// The kernel's MAX_SWAPPINESS.
const SWAPPINESS: RangeInclusive<u32> = 0..=200;
/// Up to the kernel's largest block; below order 1 nothing could be scattered.
const ORDER: RangeInclusive<u32> = 1..=10;

/// Collects what is out of range while settings are changed one by one.
#[derive(Default)]
struct Refused(Vec<SettingsError>);

impl Refused {
    fn check<T: Copy + PartialOrd + Into<i128>>(
        &mut self,
        name: &'static str,
        value: Option<T>,
        range: &RangeInclusive<T>,
    ) -> Option<T> {
        let value = value?;
        if range.contains(&value) {
            return Some(value);
        }
        let (least, most) = ((*range.start()).into(), (*range.end()).into());
        self.0.push(SettingsError { name, value: value.into(), least, most });
        None
    }
}

fn put<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// A number that was checked to fit.
fn byte(value: u32) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

impl Default for Reclaim {
    fn default() -> Reclaim {
        Reclaim {
            disabled: false,
            swap: false,
            swappiness_max: 50,
            period: Duration::from_secs(600),
            period_stall_limit: 1,
            eviction_stall_limit: 1,
            looks: 3,
        }
    }
}

impl Reclaim {
    /// Those of the command line; what is out of range keeps its default and is told.
    pub(super) fn from_config(config: &config::MemAgent) -> (Reclaim, Vec<SettingsError>) {
        let mut settings = Reclaim::default();
        let refused = settings.take(&ReclaimChange {
            disabled: Some(config.memcg_disable),
            swap: Some(config.memcg_swap),
            swappiness_max: Some(config.memcg_swappiness_max.into()),
            period_secs: Some(config.memcg_period_secs),
            period_psi_percent_limit: Some(config.memcg_period_psi_percent_limit.into()),
            eviction_psi_percent_limit: Some(config.memcg_eviction_psi_percent_limit.into()),
            eviction_run_aging_count_min: Some(config.memcg_eviction_run_aging_count_min),
        });
        (settings, refused)
    }

    /// These settings with a change, or the first thing that is wrong with it.
    pub(super) fn with(&self, change: &ReclaimChange) -> Result<Reclaim, SettingsError> {
        let mut settings = self.clone();
        settings.take(change).into_iter().next().map_or(Ok(settings), Err)
    }

    fn take(&mut self, change: &ReclaimChange) -> Vec<SettingsError> {
        let mut refused = Refused::default();
        put(&mut self.disabled, change.disabled);
        put(&mut self.swap, change.swap);
        let swappiness = refused.check("swappiness_max", change.swappiness_max, &SWAPPINESS);
        put(&mut self.swappiness_max, swappiness.map(byte));
        let period = refused.check("period_secs", change.period_secs, &SECONDS);
        put(&mut self.period, period.map(Duration::from_secs));
        let limit = refused.check("period_psi_percent_limit", change.period_psi_percent_limit, &PERCENT);
        put(&mut self.period_stall_limit, limit.map(byte));
        let limit = refused.check("eviction_psi_percent_limit", change.eviction_psi_percent_limit, &PERCENT);
        put(&mut self.eviction_stall_limit, limit.map(byte));
        put(&mut self.looks, change.eviction_run_aging_count_min);
        refused.0
    }
}

impl Default for Compaction {
    fn default() -> Compaction {
        Compaction {
            disabled: false,
            period: Duration::from_secs(600),
            period_stall_limit: 1,
            run_stall_limit: 5,
            longest: Duration::from_secs(300),
            order: 9,
            threshold: 1024,
            force_after: i64::MAX as u64,
        }
    }
}

impl Compaction {
    /// Those of the command line; what is out of range keeps its default and is told.
    pub(super) fn from_config(config: &config::MemAgent) -> (Compaction, Vec<SettingsError>) {
        let mut settings = Compaction::default();
        let refused = settings.take(&CompactionChange {
            disabled: Some(config.compact_disable),
            period_secs: Some(config.compact_period_secs),
            period_psi_percent_limit: Some(config.compact_period_psi_percent_limit.into()),
            compact_psi_percent_limit: Some(config.compact_psi_percent_limit.into()),
            compact_sec_max: Some(config.compact_sec_max),
            compact_order: Some(config.compact_order.into()),
            compact_threshold: Some(config.compact_threshold),
            compact_force_times: Some(config.compact_force_times),
        });
        (settings, refused)
    }

    /// These settings with a change, or the first thing that is wrong with it.
    pub(super) fn with(&self, change: &CompactionChange) -> Result<Compaction, SettingsError> {
        let mut settings = self.clone();
        settings.take(change).into_iter().next().map_or(Ok(settings), Err)
    }

    fn take(&mut self, change: &CompactionChange) -> Vec<SettingsError> {
        let mut refused = Refused::default();
        put(&mut self.disabled, change.disabled);
        let period = refused.check("period_secs", change.period_secs, &SECONDS);
        put(&mut self.period, period.map(Duration::from_secs));
        let limit = refused.check("period_psi_percent_limit", change.period_psi_percent_limit, &PERCENT);
        put(&mut self.period_stall_limit, limit.map(byte));
        let limit = refused.check("compact_psi_percent_limit", change.compact_psi_percent_limit, &PERCENT);
        put(&mut self.run_stall_limit, limit.map(byte));
        let longest = refused.check("compact_sec_max", change.compact_sec_max, &(1..=i64::MAX));
        put(&mut self.longest, longest.map(|seconds| Duration::from_secs(seconds.unsigned_abs())));
        put(&mut self.order, refused.check("compact_order", change.compact_order, &ORDER).map(byte));
        put(&mut self.threshold, change.compact_threshold);
        put(&mut self.force_after, change.compact_force_times);
        refused.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_defaults_are_the_settings() {
        let config = config::MemAgent::default();
        assert_eq!(Reclaim::from_config(&config), (Reclaim::default(), vec![]));
        assert_eq!(Compaction::from_config(&config), (Compaction::default(), vec![]));
    }

    #[test]
    fn only_what_is_named_changes() {
        let before = Reclaim::default();
        assert_eq!(before.with(&ReclaimChange::default()).unwrap(), before);
        let change = ReclaimChange { period_secs: Some(5), swap: Some(true), ..Default::default() };
        let expected = Reclaim { period: Duration::from_secs(5), swap: true, ..before.clone() };
        assert_eq!(before.with(&change).unwrap(), expected);
        let before = Compaction::default();
        assert_eq!(before.with(&CompactionChange::default()).unwrap(), before);
        let change =
            CompactionChange { compact_order: Some(10), compact_sec_max: Some(7), ..Default::default() };
        let expected = Compaction { order: 10, longest: Duration::from_secs(7), ..before.clone() };
        assert_eq!(before.with(&change).unwrap(), expected);
    }

    #[test]
    fn a_change_out_of_range_is_refused_by_name() {
        let settings = Reclaim::default();
        for (change, text) in [
            (
                ReclaimChange { swappiness_max: Some(201), ..Default::default() },
                "swappiness_max is 201, not within 0 and 200",
            ),
            (
                ReclaimChange { period_secs: Some(0), ..Default::default() },
                "period_secs is 0, not within 1 and 9223372036854775807",
            ),
            (
                ReclaimChange { eviction_psi_percent_limit: Some(101), ..Default::default() },
                "eviction_psi_percent_limit is 101, not within 0 and 100",
            ),
        ] {
            let error = settings.with(&change).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.kind()), (text, ErrorKind::Invalid));
        }
        for change in [
            CompactionChange { compact_order: Some(11), ..Default::default() },
            CompactionChange { compact_order: Some(0), ..Default::default() },
            CompactionChange { compact_sec_max: Some(-1), ..Default::default() },
            CompactionChange { period_psi_percent_limit: Some(u32::MAX), ..Default::default() },
        ] {
            assert!(Compaction::default().with(&change).is_err(), "{change:?}");
        }
    }

    #[test]
    fn on_the_command_line_the_default_replaces_what_is_out_of_range() {
        let config = config::MemAgent {
            memcg_swappiness_max: 255,
            memcg_period_secs: 9,
            compact_sec_max: 0,
            ..config::MemAgent::default()
        };
        let (settings, refused) = Reclaim::from_config(&config);
        assert_eq!(settings, Reclaim { period: Duration::from_secs(9), ..Reclaim::default() });
        assert_eq!(refused.len(), 1);
        assert_eq!(Compaction::from_config(&config).1.len(), 1);
    }
}
