//! The guest's serial console.
//!
//! A thread reads QEMU's serial output, keeps the end of it in memory and in files, and looks for the ready line of a boot.
//! Promises to read until QEMU closes the stream, whatever the rest of this process does: a guest stops if nobody reads its
//! console. A guest may write forever, so memory and files are bounded. Must never take a line for the end of the machine: a
//! privileged container can write any line. Only QEMU's end closes the stream.

use std::io::Read;
use std::path::Path;
use std::process::ChildStdout;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::VmError;
use store::segments::Segments;

/// What its files are called.
pub(super) const NAME: &str = "console";
/// How many segments of 1 MiB are kept in files.
const SEGMENTS: usize = 4;
/// How much is kept in memory, in bytes, at the least; at the most it is twice that. The debug log of a boot is a third of it.
const KEPT: usize = 4 << 20;
/// A line longer than this, in bytes, is none that matters.
const MAX_LINE: usize = 4096;
/// How much of the console an error shows.
const TAIL: usize = 4000;

/// What the agent's ready line said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Milliseconds from kernel entry to the line.
    pub kernel_ms: u64,
    /// Milliseconds from kernel entry to the start of `/init`.
    pub init_ms: u64,
    /// The agent's version.
    pub version: String,
}

impl Ready {
    /// Reads `agent ready: <N> ms since kernel start (init at <M> ms), version <V>`.
    pub fn parse(line: &str) -> Option<Self> {
        let rest = without_controls(line).trim().strip_prefix("agent ready: ")?;
        let (kernel_ms, rest) = rest.split_once(" ms since kernel start (init at ")?;
        let (init_ms, version) = rest.split_once(" ms), version ")?;
        Some(Self {
            kernel_ms: kernel_ms.parse().ok()?,
            init_ms: init_ms.parse().ok()?,
            version: version.to_owned(),
        })
    }
}

/// Firmware clears its screen and leaves the cursor where it is, so a line may begin with control sequences (ECMA-48: ESC,
/// `[`, and all up to a letter or the like).
fn without_controls(mut line: &str) -> &str {
    while let Some(rest) = line.strip_prefix("\x1b[")
        && let Some(end) = rest.find(|c: char| ('@'..='~').contains(&c))
    {
        line = &rest[end + 1..];
    }
    line
}

/// How far the guest has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// No ready line yet.
    Booting,
    /// The ready line has come.
    Ready { ready: Ready, at: Instant },
    /// QEMU closed the console.
    Closed,
}

#[derive(Debug, Clone)]
struct Progress {
    ready: Option<(Ready, Instant)>,
    closed: bool,
}

/// Everything known about a console.
#[derive(Debug, Clone)]
pub(super) struct Console {
    text: Arc<Mutex<Text>>,
    progress: watch::Receiver<Progress>,
}

/// The end of what was written.
#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    /// How many bytes were before these.
    gone: u64,
}

impl Text {
    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * KEPT {
            let surplus = self.bytes.len() - KEPT;
            self.bytes.drain(..surplus);
            self.gone += surplus as u64;
        }
    }
}

impl Console {
    /// Starts to drain a serial stream, copying it to files in `dir`.
    pub(super) fn follow(stream: ChildStdout, dir: &Path) -> Result<Self, VmError> {
        Self::drain(stream, dir)
    }

    fn drain(stream: impl Read + Send + 'static, dir: &Path) -> Result<Self, VmError> {
        let log = Segments::create(dir, NAME, SEGMENTS);
        let log = log.map_err(|source| VmError::io("create the console's log in", dir.display(), source))?;
        let text = Arc::new(Mutex::new(Text::default()));
        let (publish, progress) = watch::channel(Progress { ready: None, closed: false });
        let reader = Reader { text: Arc::clone(&text), publish, line: Vec::new() };
        std::thread::Builder::new()
            .name("console".into())
            .spawn(move || reader.run(stream, log))
            .map_err(|source| VmError::io("start", "the thread that reads the console", source))?;
        Ok(Self { text, progress })
    }

    /// Waits for the ready line, the end of QEMU, or the deadline.
    pub(super) async fn wait_for_boot(&self, deadline: Duration) -> Stage {
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|now| now.ready.is_some() || now.closed);
        let now = match tokio::time::timeout(deadline, reached).await {
            Ok(Ok(now)) => now.clone(),
            Ok(Err(_)) => return Stage::Closed,
            Err(_) => return Stage::Booting,
        };
        match now.ready {
            Some((ready, at)) => Stage::Ready { ready, at },
            None => Stage::Closed,
        }
    }

    /// Waits until QEMU has closed the stream, which it does when it ends; false at the deadline.
    pub(super) async fn wait_for_end(&self, deadline: Duration) -> bool {
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|now| now.closed);
        tokio::time::timeout(deadline, reached).await.is_ok()
    }

    /// All of it that is kept. If that is not all, its first line says so.
    pub(super) fn text(&self) -> String {
        let text = lock(&self.text);
        let kept = String::from_utf8_lossy(&text.bytes);
        match text.gone {
            0 => kept.into_owned(),
            gone => format!("[{gone} bytes before this are gone]\n{kept}"),
        }
    }

    /// The end of it, from the beginning of a line.
    pub(super) fn tail(&self) -> String {
        let text = self.text();
        let mut start = text.len().saturating_sub(TAIL);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        let tail = &text[start..];
        match tail.split_once('\n') {
            Some((_, rest)) if start > 0 => rest.to_owned(),
            _ => tail.to_owned(),
        }
    }
}

/// The text is changed by one call at a time, so it is sound even when a reader panicked.
fn lock(text: &Mutex<Text>) -> MutexGuard<'_, Text> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Reader {
    text: Arc<Mutex<Text>>,
    publish: watch::Sender<Progress>,
    line: Vec<u8>,
}

impl Reader {
    fn run(mut self, mut stream: impl Read, mut log: Segments) {
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let at = Instant::now();
                    lock(&self.text).append(&buffer[..count]);
                    // A full disk must not stop the guest; the text is still in memory.
                    drop(log.append(&buffer[..count]));
                    self.take(&buffer[..count], at);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.publish.send_modify(|progress| progress.closed = true);
    }

    fn take(&mut self, bytes: &[u8], at: Instant) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.look_at(&String::from_utf8_lossy(&line), at);
            } else if self.line.len() < MAX_LINE {
                self.line.push(byte);
            }
        }
    }

    fn look_at(&self, line: &str, at: Instant) {
        if let Some(ready) = Ready::parse(line) {
            self.publish.send_modify(|progress| progress.ready = Some((ready, at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn drain(stream: impl Read + Send + 'static) -> (Console, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Console::drain(stream, dir.path()).unwrap(), dir)
    }

    const LINE: &str = "agent ready: 812 ms since kernel start (init at 790 ms), version 0.1.0";

    fn ready() -> Ready {
        Ready { kernel_ms: 812, init_ms: 790, version: "0.1.0".into() }
    }

    #[test]
    fn the_ready_line_is_read() {
        assert_eq!(Ready::parse(LINE), Some(ready()));
        assert_eq!(Ready::parse(&format!("{LINE}\r")), Some(ready()));
        assert_eq!(Ready::parse(&format!("\x1b[2J\x1b[01;01H\x1b[=3h{LINE}")), Some(ready()));
        assert_eq!(Ready::parse("\x1b["), None);
    }

    #[test]
    fn other_lines_are_not_ready_lines() {
        for line in [
            "agent ready",
            "x agent ready: 1 ms since kernel start (init at 1 ms), version 1",
            "agent ready: a",
        ] {
            assert_eq!(Ready::parse(line), None, "{line}");
        }
    }

    #[tokio::test]
    async fn a_ready_line_in_pieces_is_seen() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (console, _dir) = drain(reader);
        writer.write_all(b"booting\r\nagent re").unwrap();
        assert_eq!(console.wait_for_boot(Duration::from_millis(50)).await, Stage::Booting);
        writer.write_all(LINE.strip_prefix("agent re").unwrap().as_bytes()).unwrap();
        writer.write_all(b"\r\n").unwrap();
        match console.wait_for_boot(Duration::from_secs(10)).await {
            Stage::Ready { ready: seen, .. } => assert_eq!(seen, ready()),
            other => panic!("{other:?}"),
        }
        assert!(console.text().starts_with("booting\r\nagent ready: 812"));
    }

    #[tokio::test]
    async fn a_closed_console_ends_the_wait() {
        let (console, _dir) = drain(&b"Kernel panic - not syncing\n"[..]);
        assert_eq!(console.wait_for_boot(Duration::from_secs(10)).await, Stage::Closed);
        assert_eq!(console.tail(), "Kernel panic - not syncing\n");
    }

    #[tokio::test]
    async fn no_line_is_the_end_of_the_machine() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (console, _dir) = drain(reader);
        let lines =
            "[    1.2] reboot: Power down\nreboot: System halted\n[    1.2] reboot: machine restart\n";
        writer.write_all(lines.as_bytes()).unwrap();
        while !console.text().contains("restart\n") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!console.wait_for_end(Duration::from_millis(50)).await);
        assert_eq!(console.wait_for_boot(Duration::from_millis(50)).await, Stage::Booting);
        drop(writer);
        assert!(console.wait_for_end(Duration::from_secs(10)).await);
    }

    #[test]
    fn the_tail_begins_with_a_line() {
        let bytes = "é line\n".repeat(1000).into_bytes();
        let text = Arc::new(Mutex::new(Text { bytes, gone: 0 }));
        let (_publish, progress) = watch::channel(Progress { ready: None, closed: false });
        let tail = Console { text, progress }.tail();
        assert!(tail.starts_with("é line\n") && tail.len() <= TAIL);
    }

    #[tokio::test]
    async fn a_flood_fills_neither_memory_nor_disk_and_hides_nothing_after_it() {
        let flood = std::io::repeat(b'x').take(30 << 20);
        let after = format!("\n{LINE}\n");
        let (console, dir) = drain(flood.chain(std::io::Cursor::new(after.clone().into_bytes())));
        assert!(matches!(console.wait_for_boot(Duration::from_secs(60)).await, Stage::Ready { .. }));
        assert!(console.wait_for_end(Duration::from_secs(60)).await, "the stream has ended");
        let text = console.text();
        assert!(text.len() <= 2 * KEPT + 4096 && text.ends_with(&after));
        let missing = text.split_once(" bytes before this are gone]").unwrap().0;
        assert!(missing.trim_start_matches('[').parse::<usize>().unwrap() >= (30 << 20) - 2 * KEPT);
        let files =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        let on_disk: u64 = files.sum();
        assert!(on_disk <= 4 << 20, "{on_disk} bytes");
    }
}
