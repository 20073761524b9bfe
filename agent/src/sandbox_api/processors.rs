//! How busy the processors are.

use std::sync::{Mutex, PoisonError};

/// Jiffies of all processors since the machine started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Jiffies {
    all: u64,
    idle: u64,
}

/// Remembers how things were at the last look.
#[derive(Debug, Default)]
pub(super) struct Processors(Mutex<Jiffies>);

impl Processors {
    /// Percent of all processors that were busy since the last look, with two decimals. `text` is `/proc/stat`.
    pub(super) fn used_percent(&self, text: &str) -> f64 {
        let now = jiffies(text);
        let last = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), now);
        let all = now.all.saturating_sub(last.all);
        let idle = now.idle.saturating_sub(last.idle).min(all);
        if all == 0 { 0.0 } else { ((all - idle) as f64 * 10_000.0 / all as f64).round() / 100.0 }
    }
}

/// How many processors there are. `text` is `/proc/stat`, where each has a line after the first.
pub(super) fn count(text: &str) -> usize {
    text.lines().skip(1).take_while(|line| line.starts_with("cpu")).count().max(1)
}

/// The first line of `/proc/stat` (proc(5)): idle are the fourth and the fifth number.
fn jiffies(text: &str) -> Jiffies {
    let line = text.lines().next().unwrap_or_default();
    let numbers: Vec<u64> =
        line.split_whitespace().skip(1).take(8).filter_map(|number| number.parse().ok()).collect();
    Jiffies { all: numbers.iter().sum(), idle: numbers.iter().skip(3).take(2).sum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted() {
        assert_eq!(count("cpu  1 2\ncpu0 1 1\ncpu1 0 1\nintr 7 cpu\n"), 2);
        assert_eq!(count(""), 1);
    }

    #[test]
    fn what_is_used_is_counted_since_the_last_look() {
        let processors = Processors::default();
        assert_eq!(processors.used_percent("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1\n"), 20.0);
        assert_eq!(processors.used_percent("cpu  43 0 10 130 17 0 0 0 5 5\n"), 33.0);
        assert_eq!(processors.used_percent("cpu  43 0 10 130 17 0 0 0 5 5\n"), 0.0);
        assert_eq!(processors.used_percent(""), 0.0);
    }
}
