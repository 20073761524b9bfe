//! Shows the progress of long work: as a moving line on a terminal, as plain lines elsewhere, and not at all with `--json`.
//!
//! Everything goes to standard error. Results go to standard output, but not through this module. Promises that a log file gets
//! few lines and no control characters. Must never fail: progress is not worth an error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The least time between two plain lines of one step.
const PLAIN_INTERVAL: Duration = Duration::from_secs(15);

/// Whether and how to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// One line per step that redraws itself.
    Terminal,
    /// A line when a step begins, ends, and every quarter of a minute between.
    Plain,
    /// Nothing.
    Silent,
}

impl Progress {
    /// Silent when results are for machines; else by what standard error is.
    pub fn detect(machine_readable: bool) -> Self {
        match (machine_readable, std::io::stderr().is_terminal()) {
            (true, _) => Self::Silent,
            (false, true) => Self::Terminal,
            (false, false) => Self::Plain,
        }
    }

    /// Begins a step called `name`. With `total`, the number of pieces it has is known beforehand.
    pub fn step(self, name: &str, total: Option<u64>) -> Step {
        let bar = match self {
            Self::Terminal => Some(bar(name, total)),
            Self::Plain => {
                eprintln!("{name} …");
                None
            }
            Self::Silent => None,
        };
        let now = Instant::now();
        Step { progress: self, name: name.to_string(), total, count: 0, begun: now, spoken: now, bar }
    }
}

/// One step under way. Dropped without [`Step::done`], it disappears from a terminal and says nothing.
#[derive(Debug)]
pub struct Step {
    progress: Progress,
    name: String,
    total: Option<u64>,
    count: u64,
    begun: Instant,
    spoken: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// One more piece is done; `what` names it.
    pub fn advance(&mut self, what: &str) {
        self.count += 1;
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.count);
                bar.set_message(what.to_string());
            }
            None if self.progress == Progress::Plain && self.spoken.elapsed() >= PLAIN_INTERVAL => {
                self.spoken = Instant::now();
                eprintln!("{}: {}, {}", self.name, self.pieces(), seconds(self.begun.elapsed()));
            }
            None => {}
        }
    }

    /// Says how far it has come, where pieces cannot be counted.
    pub fn say(&mut self, how_far: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(how_far.to_string()),
            None if self.progress == Progress::Plain && self.spoken.elapsed() >= PLAIN_INTERVAL => {
                self.spoken = Instant::now();
                eprintln!("{}: {how_far}, {}", self.name, seconds(self.begun.elapsed()));
            }
            None => {}
        }
    }

    /// [`Step::advance`] if there is a piece.
    pub fn advance_if(&mut self, what: Option<&str>) {
        if let Some(what) = what {
            self.advance(what);
        }
    }

    /// How many pieces have been done.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The step ended well; `result` says in few words with what.
    pub fn done(mut self, result: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if self.progress != Progress::Silent {
            eprintln!("{}: {result} ({})", self.name, seconds(self.begun.elapsed()));
        }
    }

    fn pieces(&self) -> String {
        match self.total {
            Some(total) => format!("{} of about {total}", self.count),
            None => self.count.to_string(),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(name: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), "{spinner} {prefix} [{bar:24}] {pos}/{len} {elapsed} {wide_msg}")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {prefix} {pos} {elapsed} {wide_msg}"),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = bar.with_style(style).with_prefix(name.to_string());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// `7.3 s`, `2 min 5 s`.
fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}

/// `987 B`, `12.3 kB`, `4.56 MB`: decimal units, three significant digits, as size budgets are decimal.
pub fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(12_340), "12.3 kB");
        assert_eq!(bytes(5_200_000), "5.20 MB");
        assert_eq!(bytes(20_000_000_000), "20.00 GB");
        assert_eq!(seconds(Duration::from_millis(7_340)), "7.3 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 5 s");
    }

    #[test]
    fn the_terminal_templates_are_valid() {
        for total in [None, Some(3)] {
            let mut step = Progress::Terminal.step("step", total);
            step.advance("piece");
            assert_eq!(step.count(), 1);
        }
    }

    #[test]
    fn pieces_name_the_estimate() {
        let mut step = Progress::Silent.step("step", Some(9));
        step.advance("a");
        assert_eq!(step.pieces(), "1 of about 9");
    }
}
