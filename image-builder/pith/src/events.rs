//! `events`: shows the events of pods as they happen.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use pods::run::journal::Journal;
use serde_json::Value;
use store::text;

use crate::global::{Global, state, write};
use crate::time::{self, Moment};

/// Between two looks.
const POLL: Duration = Duration::from_millis(200);

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Show only the events of these pods.
    #[arg(value_name = "POD")]
    pods: Vec<String>,
    /// Begin with the events since TIME: a point in time, or an age such as 90s, 10m, 2h [default: now].
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    since: Option<Moment>,
    /// Show the events so far, and end.
    #[arg(long)]
    no_stream: bool,
}

impl EventsArgs {
    /// Runs the command, until a signal ends it.
    ///
    /// # Errors
    /// When the state directory is not this user's alone, or the journal in it cannot be read.
    pub async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let state = state();
        state.pods()?;
        let journal = Journal::of(&state);
        let read = || journal.read().context("cannot read what happened");
        let mut shown: Vec<Value> = match self.since {
            Some(_) => Vec::new(),
            None if self.no_stream => Vec::new(),
            None => read()?,
        };
        loop {
            let all = read()?;
            for event in news(&shown, &all) {
                let at = (event["time"].as_f64().unwrap_or_default() * 1e3) as u64;
                let is_late = self.since.is_none_or(|Moment(since)| at >= since);
                let pod = event["pod"].as_str().unwrap_or_default();
                if is_late && (self.pods.is_empty() || self.pods.iter().any(|name| name == pod)) {
                    let line = if global.json {
                        text::json(&event.to_string()).into_owned()
                    } else {
                        text::lines(&words(event, at)).into_owned()
                    };
                    write(&(line + "\n"))?;
                }
            }
            if self.no_stream {
                return Ok(());
            }
            shown = all;
            tokio::time::sleep(POLL).await;
        }
    }
}

/// What came behind the last one that was shown.
fn news<'a>(shown: &[Value], all: &'a [Value]) -> &'a [Value] {
    match shown.last().and_then(|last| all.iter().rposition(|event| event == last)) {
        Some(at) => &all[at + 1..],
        None => all,
    }
}

fn words(event: &Value, at: u64) -> String {
    let mut line = time::rfc3339(at);
    for name in ["pod", "event", "container", "text", "reason", "image", "accel", "error"] {
        if let Some(value) = event[name].as_str() {
            line += " ";
            line += value;
        }
    }
    match event["code"].as_i64() {
        Some(code) => format!("{line} ({code})"),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_event_is_shown_once_and_in_words() {
        let all = [json!({"time": 1.0}), json!({"time": 2.0}), json!({"time": 3.0})];
        assert_eq!(news(&[], &all).len(), 3);
        assert_eq!(news(&all[..2], &all), &all[2..]);
        assert!(news(&all, &all).is_empty());
        assert_eq!(news(&[json!({"time": 0.5})], &all[1..]).len(), 2, "the journal began anew");
        let event = json!({"time": 0, "pod": "web", "event": "exited", "container": "a", "code": 7});
        assert_eq!(words(&event, 0), "1970-01-01T00:00:00.000Z web exited a (7)");
    }
}
