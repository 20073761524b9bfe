//! What came of the cases: a table for people, JSON and JUnit for machines.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::api::Method;
use crate::case::{Case, Expect};

/// How a case went.
pub(crate) struct Outcome {
    pub(crate) case: &'static Case,
    pub(crate) time: Duration,
    /// Why it failed.
    pub(crate) failure: Option<String>,
}

/// Everything that was found.
pub(crate) struct Report {
    pub(crate) outcomes: Vec<Outcome>,
    /// Methods without enough cases, and cases without a method.
    pub(crate) gaps: Vec<String>,
}

impl Report {
    pub(crate) fn is_good(&self) -> bool {
        self.gaps.is_empty() && self.failed().count() == 0
    }

    fn failed(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.failure.is_some())
    }

    /// One line for each method and case, in the order of the `.proto` files.
    pub(crate) fn table(&self, methods: &[Method]) -> String {
        let mut text = format!("\n{:<31} {:<8} {:<62} {:>7}  result\n", "method", "kind", "case", "seconds");
        let names = methods.iter().map(|method| method.name.as_str()).chain(["*"]);
        for method in names {
            let mut shown = method;
            for outcome in self.outcomes.iter().filter(|outcome| outcome.case.method == method) {
                let (case, seconds) = (outcome.case, outcome.time.as_secs_f64());
                let result =
                    outcome.failure.as_deref().map_or("pass".to_owned(), |why| format!("FAIL {why}"));
                let kind = case.expect.name();
                text += &format!("{shown:<31} {kind:<8} {:<62} {seconds:>7.2}  {result}\n", case.name);
                shown = "";
            }
        }
        for gap in &self.gaps {
            text += &format!("GAP {gap}\n");
        }
        let of = |expect: Expect| {
            let all = self.outcomes.iter().filter(|outcome| outcome.case.expect == expect);
            let (all, good) = (all.clone().count(), all.filter(|outcome| outcome.failure.is_none()).count());
            format!("{good} of {all} {}", expect.name())
        };
        let time: f64 = self.outcomes.iter().map(|outcome| outcome.time.as_secs_f64()).sum();
        text += &format!(
            "\n{} methods; passed: {}, {}, {}; {time:.0} s in cases; {}\n",
            methods.len(),
            of(Expect::Success),
            of(Expect::Failure),
            of(Expect::Misuse),
            if self.is_good() { "PASS" } else { "FAIL" },
        );
        text
    }

    /// A list of objects.
    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let cases: Vec<_> = self
            .outcomes
            .iter()
            .map(|outcome| {
                serde_json::json!({
                    "method": outcome.case.method,
                    "kind": outcome.case.expect.name(),
                    "case": outcome.case.name,
                    "seconds": outcome.time.as_secs_f64(),
                    "failure": outcome.failure,
                })
            })
            .collect();
        let all = serde_json::json!({ "passed": self.is_good(), "gaps": self.gaps, "cases": cases });
        write(path, &serde_json::to_string_pretty(&all)?)
    }

    /// As CI systems read it: a class for each method.
    pub(crate) fn write_junit(&self, path: &Path) -> Result<()> {
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        text += &format!(
            "<testsuite name=\"conformance\" tests=\"{}\" failures=\"{}\">\n",
            self.outcomes.len(),
            self.failed().count()
        );
        for Outcome { case, time, failure } in &self.outcomes {
            text += &format!(
                "<testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
                case.method,
                case.name,
                time.as_secs_f64()
            );
            text += &match failure {
                None => "/>\n".to_owned(),
                Some(why) => format!("><failure>{}</failure></testcase>\n", escaped(why)),
            };
        }
        text += "</testsuite>\n";
        write(path, &text)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// Text inside of XML.
fn escaped(text: &str) -> String {
    let legal = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t'));
    legal.collect::<String>().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
