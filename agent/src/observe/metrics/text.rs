//! The Prometheus text format.
//!
//! Source: "Exposition formats" in Prometheus' documentation, text format 0.0.4. Scrapers of kata-monitor parse it
//! strictly, so a family is written in one piece: its HELP, its TYPE, then all its samples.

use std::fmt::Display;

/// What a family's values mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricType {
    /// Goes up only.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A text in the making.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

/// One family of a text.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a family.
    pub(super) fn family(&mut self, name: &'static str, kind: MetricType, help: &str) -> Family<'_> {
        let kind = match kind {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
        };
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { text: &mut self.0, name }
    }

    /// The whole text.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a value without labels.
    pub(super) fn value(&mut self, value: impl Display) -> &mut Self {
        self.sample(&[], value)
    }

    /// Adds a value under the label `item`, which most families of Kata's have.
    pub(super) fn item(&mut self, item: &str, value: impl Display) -> &mut Self {
        self.sample(&[("item", item)], value)
    }

    /// Adds a value with labels.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.text.push_str(self.name);
        for (at, (name, text)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.text.push_str(&format!(" {value}\n"));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_help_type_and_samples_with_escaped_labels() {
        let mut text = Exposition::default();
        text.family("a_total", MetricType::Counter, "How many.").value(3u64);
        text.family("b", MetricType::Gauge, "What.")
            .item("x", 0.5)
            .sample(&[("m", "a\\b\"c\nd"), ("n", "")], -1);
        assert_eq!(
            text.finish(),
            "# HELP a_total How many.\n# TYPE a_total counter\na_total 3\n\
             # HELP b What.\n# TYPE b gauge\nb{item=\"x\"} 0.5\nb{m=\"a\\\\b\\\"c\\nd\",n=\"\"} -1\n"
        );
    }
}
