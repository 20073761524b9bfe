//! Durations, and how they are told.

use std::time::Duration;

/// Durations of one kind of work.
#[derive(Debug, Default, Clone)]
pub struct Durations(Vec<Duration>);

impl Durations {
    /// Adds one.
    pub fn push(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// Adds all of another.
    pub fn extend(&mut self, other: Durations) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The duration that so many percent do not exceed; zero when there is none.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(at).copied().unwrap_or_default()
    }

    /// One line of a table.
    pub fn line(&self, name: &str) -> String {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1000.0;
        format!("{name:<12} {:>6} {:>10.1} {:>10.1} {:>10.1}", self.count(), ms(50), ms(99), ms(100))
    }
}

/// Head of a table of [`Durations::line`]s.
pub const HEAD: &str = "what          times     p50 ms     p99 ms     max ms";
