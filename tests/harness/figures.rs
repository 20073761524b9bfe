//! Durations and other figures, and how they are told.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

/// A figure of one tree, or the same one of two trees.
#[derive(Debug)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// What it counts; `bytes` are printed without a fraction.
    pub unit: &'static str,
    /// Ours, then that of the other tree, if there is one.
    pub figures: Vec<f64>,
}

impl Row {
    /// A row of what was measured of each tree.
    pub fn of<T>(name: impl Into<String>, unit: &'static str, seen: &[T], figure: impl Fn(&T) -> f64) -> Row {
        Row { name: name.into(), unit, figures: seen.iter().map(figure).collect() }
    }

    fn ratio(&self) -> Option<f64> {
        self.figures.get(1).map(|other| self.figures[0] / other)
    }

    fn line(&self) -> String {
        let number = |figure: &f64| match self.unit {
            "bytes" => format!("{figure:.0}"),
            _ => format!("{figure:.1}"),
        };
        let other = self.figures.get(1).map(number).unwrap_or_default();
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        format!("{:<50} {:<17} {other:>10} {:>10} {ratio:>6}", self.name, self.unit, number(&self.figures[0]))
    }

    /// Prints rows: as a table with a head, or as JSON with the same facts.
    ///
    /// # Errors
    /// When the JSON cannot be written.
    pub fn print(rows: &[Row], head: &str, facts: serde_json::Value, as_json: bool) -> Result<()> {
        if as_json {
            let figures: Vec<_> = rows
                .iter()
                .map(|row| {
                    let other = row.figures.get(1);
                    json!({ "name": row.name, "unit": row.unit, "ours": row.figures[0], "other": other, "ratio": row.ratio() })
                })
                .collect();
            let text = json!({ "facts": facts, "figures": figures });
            println!("{}", serde_json::to_string_pretty(&text)?);
            return Ok(());
        }
        println!("{head}; other, ours, ratio");
        for row in rows {
            println!("{}", row.line());
        }
        Ok(())
    }
}

/// The middle one; the mean of two if there are two.
///
/// # Panics
/// When there is none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let half = figures.len() / 2;
    if figures.len() % 2 == 1 { figures[half] } else { (figures[half - 1] + figures[half]) / 2.0 }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_of_one_or_of_two() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_row_has_the_other_trees_figure_first_and_a_ratio() {
        let row = Row::of("small", "MiB", &[1.0, 4.0], |figure| *figure);
        assert_eq!(row.line().split_whitespace().collect::<Vec<_>>(), ["small", "MiB", "4.0", "1.0", "0.25"]);
        let row = Row::of("file", "bytes", &[7.0], |figure| *figure);
        assert_eq!(row.line().split_whitespace().collect::<Vec<_>>(), ["file", "bytes", "7"]);
    }
}
