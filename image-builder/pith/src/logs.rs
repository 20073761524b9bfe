//! `logs`: shows the output of a container, while it runs and after its end.

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use pods::run::output::Lines;
use pods::run::state::{self, ContainerPhase, LOG_SEGMENTS, Phase};
use store::text;

use crate::global::{Global, state, write};
use crate::look::POLL;
use crate::time::{self, Moment};

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Keep showing output until the container ends.
    #[arg(short, long)]
    follow: bool,
    /// Show only the last LINES lines.
    #[arg(short = 'n', long, value_name = "LINES", value_parser = lines)]
    tail: Option<usize>,
    /// Show only what was written since TIME: a point in time such as 2026-11-28T08:00:00Z, or an age such as 90s, 10m,
    /// 2h.
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    since: Option<Moment>,
    /// Show when each line was written.
    #[arg(short, long)]
    timestamps: bool,
    /// The pod.
    pod: String,
    /// The container. Only needed if the pod has several.
    container: Option<String>,
}

/// A line, as it was written.
struct Line {
    /// Milliseconds since 1970.
    time: u64,
    bytes: Vec<u8>,
}

impl LogsArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such pod or container, or when its log cannot be read.
    pub async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let state = state();
        let (dir, record) = state.find_any(&self.pod)?;
        let name = self.container.as_deref().or(record.container_in(&self.pod));
        let name = record.container(name)?.name.clone();
        let mut log = state::log(&dir, &name);
        let plain = !global.json && self.tail.is_none() && self.since.is_none() && !self.timestamps;
        // A terminal would obey what the container wrote; anything else gets it as it is.
        let mut lines = std::io::stdout().is_terminal().then(Lines::default);
        let mut cut = Cut { tail: self.tail, since: self.since.map(|Moment(ms)| ms), ..Cut::default() };
        loop {
            // Asked before reading: what was written before the end is read after it.
            let ended = match state.find_any(&record.name) {
                Ok((_, now)) => {
                    now.phase == Phase::Ended || now.container(Some(&name))?.phase == ContainerPhase::Exited
                }
                Err(_) => true,
            };
            if plain {
                copy_new(&name, &mut log, lines.as_mut())?;
            } else {
                self.copy_lines(&name, &mut log, &mut cut, ended || !self.follow, global)?;
            }
            if ended || !self.follow {
                if let Some(last) = lines.as_mut().and_then(Lines::finish) {
                    print(text::coloured(&last).as_bytes())?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Shows the lines that are new and wanted. At the `end`, also one that has none.
    fn copy_lines(
        &self,
        container: &str,
        log: &mut state::Reader,
        cut: &mut Cut,
        end: bool,
        global: &Global,
    ) -> anyhow::Result<()> {
        loop {
            let piece = log.next_piece().with_context(|| format!("cannot read the log of {container}"))?;
            if piece.bytes.is_empty() {
                break;
            }
            let mut starts = vec![piece.at];
            let ends = piece.bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            starts.extend(ends.map(|(at, _)| piece.at + at as u64 + 1));
            let times = log.times(&starts);
            for (number, bytes) in piece.bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
                let time = times.get(number).copied().unwrap_or_default();
                if let Some(line) = cut.feed(bytes, time) {
                    self.show(&line, global)?;
                }
            }
        }
        for line in cut.flush(end) {
            self.show(&line, global)?;
        }
        Ok(())
    }

    fn show(&self, line: &Line, global: &Global) -> anyhow::Result<()> {
        let stamp = time::rfc3339(line.time);
        if global.json {
            let text = String::from_utf8_lossy(&line.bytes);
            let text = text.trim_end_matches('\n').trim_end_matches('\r');
            let value = serde_json::json!({"time": stamp, "text": text});
            return write(&(text::json(&value.to_string()).into_owned() + "\n"));
        }
        let mut shown = if self.timestamps { (stamp + " ").into_bytes() } else { Vec::new() };
        if std::io::stdout().is_terminal() {
            let line = String::from_utf8_lossy(&line.bytes);
            let line = line.trim_end_matches('\n').trim_end_matches('\r');
            shown.extend_from_slice(text::coloured(line).as_bytes());
            shown.push(b'\n');
        } else {
            shown.extend_from_slice(&line.bytes);
        }
        print(&shown)
    }
}

/// The most of a line that is kept while its end is waited for.
const MAX_LINE: usize = 1 << 20;
/// Reads a value of `--tail`.
fn lines(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "it is a number of lines, such as 100".to_owned())
}

/// The most lines that are kept for `--tail`.
const MAX_TAIL: usize = 1 << 20;

/// Puts lines together, and leaves out those that nobody wants.
#[derive(Default)]
struct Cut {
    tail: Option<usize>,
    since: Option<u64>,
    /// A line without its end.
    begun: Option<Line>,
    /// The last lines, while it is not known which of them are wanted.
    kept: VecDeque<Line>,
}

impl Cut {
    /// Takes a piece that has at most one end of a line, at its end. Answers a line to show.
    fn feed(&mut self, bytes: &[u8], time: u64) -> Option<Line> {
        let mut line = self.begun.take().unwrap_or(Line { time, bytes: Vec::new() });
        line.bytes.extend_from_slice(bytes);
        if !line.bytes.ends_with(b"\n") && line.bytes.len() < MAX_LINE {
            self.begun = Some(line);
            return None;
        }
        self.take(line)
    }

    fn take(&mut self, line: Line) -> Option<Line> {
        if self.since.is_some_and(|since| line.time < since) {
            return None;
        }
        let Some(tail) = self.tail else { return Some(line) };
        self.kept.push_back(line);
        while self.kept.len() > tail.min(MAX_TAIL) {
            self.kept.pop_front();
        }
        None
    }

    /// All that is there was read: what of it is to be shown. Lines that come later are all wanted.
    fn flush(&mut self, end: bool) -> Vec<Line> {
        let last = if end { self.begun.take() } else { None };
        let mut lines = Vec::new();
        if let Some(last) = last {
            lines.extend(self.take(last));
        }
        self.tail = None;
        let mut kept: Vec<Line> = self.kept.drain(..).collect();
        kept.extend(lines);
        kept
    }
}

/// Copies what is new in a log, which may not exist yet, to standard output, and says what is gone.
pub(crate) fn copy_new(
    container: &str,
    log: &mut state::Reader,
    mut lines: Option<&mut Lines>,
) -> anyhow::Result<()> {
    loop {
        let piece = log.next_piece().with_context(|| format!("cannot read the log of {container}"))?;
        if piece.missing > 0 {
            eprintln!(
                "pith: {} bytes of the log of {container} are gone: its last {LOG_SEGMENTS} MiB are kept",
                piece.missing
            );
        }
        if piece.bytes.is_empty() {
            return Ok(());
        }
        match lines.as_mut() {
            Some(lines) => {
                let mut shown = String::new();
                lines.feed(&piece.bytes, |line| shown.extend([text::coloured(&line).as_ref(), "\n"]));
                print(shown.as_bytes())?;
            }
            None => print(&piece.bytes)?,
        }
    }
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn cut(tail: Option<usize>, since: Option<u64>, pieces: &[(&str, u64)], end: bool) -> Vec<String> {
        let mut cut = Cut { tail, since, ..Cut::default() };
        let mut shown: Vec<Line> =
            pieces.iter().filter_map(|(text, time)| cut.feed(text.as_bytes(), *time)).collect();
        shown.extend(cut.flush(end));
        shown
            .into_iter()
            .map(|line| format!("{}:{}", line.time, String::from_utf8(line.bytes).unwrap()))
            .collect()
    }

    #[test]
    fn lines_are_whole_and_have_the_time_of_their_beginning() {
        let pieces = [("one\n", 1), ("tw", 2), ("o\n", 3), ("three", 4)];
        assert_eq!(cut(None, None, &pieces, true), ["1:one\n", "2:two\n", "4:three"]);
        assert_eq!(cut(None, None, &pieces, false), ["1:one\n", "2:two\n"], "its end may come");
        assert_eq!(cut(Some(2), None, &pieces, true), ["2:two\n", "4:three"]);
        assert_eq!(cut(Some(0), None, &pieces, true), Vec::<String>::new());
        assert_eq!(cut(None, Some(2), &pieces, true), ["2:two\n", "4:three"]);
        assert_eq!(cut(Some(1), Some(2), &pieces, false), ["2:two\n"]);
    }

    #[test]
    fn a_span_ends_now() {
        let Moment(since) = time::moment("90s").unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        assert!(u128::from(since).abs_diff(now - 90_000) < 5000);
    }
}
