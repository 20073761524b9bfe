//! The output of a run: events, and the containers' output, cut into lines with the container's name in front.
//!
//! The run only makes [`Event`]s. A [`Sink`] shows them, as text for people or as JSON lines for programs. Must never lose a
//! byte of output, nor mix the output of two containers in one line.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::timing::Timings;
pub use protocols::client::Stream;
use store::text;

/// A line longer than this is shown in pieces.
const MAX_LINE: usize = 64 << 10;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// Something worth knowing.
    Note {
        /// In words.
        text: String,
    },
    /// An image is on disk.
    Image {
        /// The container that uses it.
        container: String,
        /// Where it came from.
        image: String,
        /// Bytes of its disk.
        bytes: u64,
        /// Whether the cache had it.
        cached: bool,
    },
    /// The guest's agent answers.
    Booted {
        /// `kvm` or `tcg`.
        accel: String,
        /// The agent's version.
        version: String,
        /// From starting QEMU to the first Check.
        ms: f64,
    },
    /// A container runs.
    Started {
        /// Which.
        container: String,
    },
    /// A line of a container's output, without its end.
    Output {
        /// Which container.
        container: String,
        /// Which stream.
        stream: Stream,
        /// The line; bytes that are not UTF-8 are replaced.
        text: String,
    },
    /// Bytes of a container's output as they came, for a terminal that shows them as they are.
    Piece {
        /// Which container.
        container: String,
        /// Which stream.
        stream: Stream,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A container ended.
    Exited {
        /// Which.
        container: String,
        /// Its status; 128 and the signal's number for a death by signal.
        code: i32,
    },
    /// All containers are up (or ended already).
    Running {
        /// The pod.
        pod: String,
    },
    /// The pod is being ended.
    Stopping {
        /// Why.
        reason: String,
    },
    /// The figures.
    Timings(Timings),
}

/// Shows events.
pub trait Sink: Send + Sync {
    /// Shows one.
    fn show(&self, event: &Event);
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes bytes, and calls `line` for each line that is complete.
    pub fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(String)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.pending.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.pending.len() >= MAX_LINE {
                line(self.take());
            }
        }
    }

    /// The last line, when the stream ended without a newline.
    pub fn finish(&mut self) -> Option<String> {
        (!self.pending.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.pending);
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            // A terminal ends its lines with both.
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Text: containers' lines with a name in front, everything else on the second stream.
pub struct TextSink<O, E> {
    names: Vec<String>,
    colour: bool,
    /// Whether output goes to a terminal, which would obey what containers write: both streams of it.
    terminals: (bool, bool),
    alone: bool,
    streams: Mutex<(O, E)>,
}

/// Foreground colours that are readable on light and dark: cyan, yellow, magenta, green, blue.
const COLOURS: [u8; 5] = [36, 33, 35, 32, 34];

impl<O: Write + Send, E: Write + Send> TextSink<O, E> {
    /// Container output goes to `out` and `err`, everything else to `err`.
    pub fn new(names: Vec<String>, colour: bool, out: O, err: E) -> Self {
        Self { names, colour, terminals: (false, false), alone: false, streams: Mutex::new((out, err)) }
    }

    /// Says which of the two streams are terminals. Containers' lines are shown there without control sequences but colours;
    /// elsewhere they come as they are.
    #[must_use]
    pub fn on_terminals(self, out: bool, err: bool) -> Self {
        Self { terminals: (out, err), ..self }
    }

    /// Shows one container as if it ran right here: no name in front of its lines, and of all else only what its user should
    /// know.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    fn prefix(&self, container: &str) -> String {
        if self.alone {
            return String::new();
        }
        let width = self.names.iter().map(String::len).max().unwrap_or(0);
        let padded = format!("{container:width$} | ");
        match self.names.iter().position(|name| name == container) {
            Some(index) if self.colour => format!("\x1b[{}m{padded}\x1b[0m", COLOURS[index % COLOURS.len()]),
            _ => padded,
        }
    }

    fn note(&self, text: &str) -> io::Result<()> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(streams.1, "pith: {}", text::lines(text))?;
        streams.1.flush()
    }
}

impl<O: Write + Send, E: Write + Send> Sink for TextSink<O, E> {
    fn show(&self, event: &Event) {
        let written = match event {
            Event::Output { container, stream, text } => {
                let prefix = self.prefix(container);
                let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
                let (out, err) = &mut *streams;
                let (target, is_terminal): (&mut dyn Write, bool) = match stream {
                    Stream::Stdout => (out, self.terminals.0),
                    Stream::Stderr => (err, self.terminals.1),
                };
                let text = if is_terminal { text::coloured(text) } else { text.into() };
                writeln!(target, "{prefix}{text}").and_then(|()| target.flush())
            }
            Event::Piece { stream, bytes, .. } => {
                let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
                let (out, err) = &mut *streams;
                let target: &mut dyn Write = match stream {
                    Stream::Stdout => out,
                    Stream::Stderr => err,
                };
                target.write_all(bytes).and_then(|()| target.flush())
            }
            Event::Note { text } => self.note(text),
            Event::Image { .. }
            | Event::Booted { .. }
            | Event::Started { .. }
            | Event::Exited { .. }
            | Event::Running { .. }
            | Event::Stopping { .. }
                if self.alone =>
            {
                Ok(())
            }
            Event::Image { container, image, bytes, cached } => {
                let how = if *cached { "from the cache" } else { "made" };
                self.note(&format!("{container}: {image}, a disk of {} KiB {how}", bytes / 1024))
            }
            Event::Booted { accel, version, ms } => {
                self.note(&format!("guest up after {ms:.0} ms ({accel}, agent {version})"))
            }
            Event::Started { container } => self.note(&format!("{container} started")),
            Event::Exited { container, code } => self.note(&format!("{container} ended with status {code}")),
            Event::Running { pod } => self.note(&format!("pod {pod} is running")),
            Event::Stopping { reason } => self.note(&format!("stopping: {reason}")),
            Event::Timings(timings) => {
                let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
                write!(streams.0, "\n{}", timings.table()).and_then(|()| streams.0.flush())
            }
        };
        // Nobody listens any more; the pod goes on.
        drop(written);
    }
}

/// One JSON object per line.
pub struct JsonSink<O> {
    out: Mutex<O>,
}

impl<O: Write + Send> JsonSink<O> {
    /// Everything goes to `out`.
    pub fn new(out: O) -> Self {
        Self { out: Mutex::new(out) }
    }
}

impl<O: Write + Send> Sink for JsonSink<O> {
    fn show(&self, event: &Event) {
        if let Ok(line) = serde_json::to_string(event) {
            let mut line = text::json(&line).into_owned();
            line.push('\n');
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            // As above.
            drop(out.write_all(line.as_bytes()).and_then(|()| out.flush()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for piece in pieces {
            lines.feed(piece, |line| out.push(line));
        }
        out.extend(lines.finish());
        out
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        assert_eq!(lines(&[b"one\ntw", b"o\r\n\nlast"]), ["one", "two", "", "last"]);
        assert_eq!(lines(&[b"a\xff\n"]), ["a\u{fffd}"]);
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn an_endless_line_comes_in_pieces() {
        let long = vec![b'x'; MAX_LINE];
        let out = lines(&[&long, &long, b"y"]);
        assert_eq!(out.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE, MAX_LINE, 1]);
    }

    fn output(stream: Stream) -> Event {
        Event::Output { container: "a".into(), stream, text: "hello".into() }
    }

    #[test]
    fn text_has_aligned_prefixes_on_the_right_stream() {
        let sink = TextSink::new(vec!["a".into(), "curl".into()], false, Vec::new(), Vec::new());
        sink.show(&output(Stream::Stdout));
        sink.show(&output(Stream::Stderr));
        sink.show(&Event::Exited { container: "a".into(), code: 7 });
        let (out, err) = sink.streams.into_inner().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a    | hello\n");
        assert_eq!(String::from_utf8(err).unwrap(), "a    | hello\npith: a ended with status 7\n");
    }

    #[test]
    fn one_container_alone_is_shown_as_if_it_ran_here() {
        let sink = TextSink::new(vec!["a".into()], true, Vec::new(), Vec::new()).alone();
        sink.show(&output(Stream::Stdout));
        sink.show(&Event::Started { container: "a".into() });
        sink.show(&Event::Piece { container: "a".into(), stream: Stream::Stderr, bytes: b"\xff".into() });
        sink.show(&Event::Note { text: "worth knowing".into() });
        let (out, err) = sink.streams.into_inner().unwrap();
        assert_eq!(out, b"hello\n");
        assert_eq!(err, b"\xffpith: worth knowing\n");
    }

    #[test]
    fn a_terminal_gets_no_control_sequences_and_a_file_gets_what_was_written() {
        let event = |stream| Event::Output { container: "a".into(), stream, text: "\x1b[2J\x1b[1mx".into() };
        let sink = TextSink::new(vec!["a".into()], false, Vec::new(), Vec::new()).on_terminals(true, false);
        sink.show(&event(Stream::Stdout));
        sink.show(&event(Stream::Stderr));
        sink.show(&Event::Note { text: "image \x1b]0;x".into() });
        let (out, err) = sink.streams.into_inner().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a | \\u{1b}[2J\x1b[1mx\x1b[0m\n");
        assert_eq!(String::from_utf8(err).unwrap(), "a | \x1b[2J\x1b[1mx\npith: image \\u{1b}]0;x\n");
    }

    #[test]
    fn colours_only_touch_the_prefix() {
        let sink = TextSink::new(vec!["a".into()], true, Vec::new(), Vec::new());
        sink.show(&output(Stream::Stdout));
        let (out, _) = sink.streams.into_inner().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\x1b[36ma | \x1b[0mhello\n");
    }

    #[test]
    fn json_is_one_object_per_line() {
        let sink = JsonSink::new(Vec::new());
        sink.show(&output(Stream::Stderr));
        sink.show(&Event::Timings(Timings { exec_ms: vec![1.5], ..Timings::default() }));
        let text = String::from_utf8(sink.out.into_inner().unwrap()).unwrap();
        let values: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            values[0],
            serde_json::json!({"event": "output", "container": "a", "stream": "stderr", "text": "hello"})
        );
        assert_eq!(values[1]["event"], "timings");
        assert_eq!(values[1]["exec_ms"][0], 1.5);
    }
}
