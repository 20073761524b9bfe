//! A log without a limit, kept in files with a limit.
//!
//! ```text
//! NAME.log.0          the first MiB; removed when there are too many files
//! NAME.log.1048576    the next one
//! NAME.log.2097152    the one that is written now
//! ```
//!
//! Beside each file is `NAME.log.N.times`: pairs of a position and the time at which it was written, as 64-bit little-endian
//! numbers. The time is in milliseconds since 1970.
//!
//! The number in a file's name is the number of bytes before it. So a reader knows how much is gone, and where to continue.
//! Promises that a log never takes more than its number of segments, and that a reader learns of every byte that is gone. Only
//! one [`Segments`] may write a log.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::plain;

/// Bytes of a segment.
const SEGMENT: u64 = 1 << 20;
/// Bytes of a position and its time.
const TIME: usize = 16;
/// What is written within this many milliseconds of a time has that time.
const GRAIN: u64 = 10;
/// Times of a segment; it ends when it has more.
const MOST_TIMES: u64 = 16 << 10;

/// Writes a log.
#[derive(Debug)]
pub struct Segments {
    dir: PathBuf,
    name: String,
    keep: usize,
    /// Bytes written so far.
    at: u64,
    file: Option<File>,
    /// The times of that file, how many there are, and the last one.
    times: Option<File>,
    timed: u64,
    last_time: u64,
    /// Where the segments that are kept begin.
    starts: VecDeque<u64>,
}

impl Segments {
    /// A log called `name` in `dir`, of which the last `keep` segments are kept. Its first one is made now.
    pub fn create(dir: &Path, name: &str, keep: usize) -> io::Result<Self> {
        let (dir, name) = (dir.to_path_buf(), name.to_owned());
        let mut log = Self {
            dir,
            name,
            keep,
            at: 0,
            file: None,
            times: None,
            timed: 0,
            last_time: 0,
            starts: VecDeque::new(),
        };
        log.file = Some(log.begin()?);
        Ok(log)
    }

    /// Adds to it. After an error what was given is lost, and the next call begins a new segment.
    pub fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let used = self.at - self.starts.back().copied().unwrap_or_default();
            if used >= SEGMENT || self.timed >= MOST_TIMES {
                self.file = None;
            }
            let mut file = match self.file.take() {
                Some(file) => file,
                None => self.begin()?,
            };
            let room = SEGMENT - (self.at - self.starts.back().copied().unwrap_or_default());
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            file.write_all(now)?;
            self.note_time();
            self.at += now.len() as u64;
            self.file = Some(file);
            bytes = later;
        }
        Ok(())
    }

    /// Writes down when the next bytes come. A log without times is a log all the same.
    fn note_time(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        if self.timed > 0 && now.abs_diff(self.last_time) < GRAIN {
            return;
        }
        let pair = [self.at, now].map(u64::to_le_bytes);
        if self.times.as_mut().is_some_and(|times| times.write_all(pair.as_flattened()).is_ok()) {
            (self.timed, self.last_time) = (self.timed + 1, now);
        }
    }

    fn begin(&mut self) -> io::Result<File> {
        // The one before may hold less than it should, so this name may be taken by it.
        let path = path(&self.dir, &self.name, self.at);
        let mut options = File::options();
        options.create(true).write(true).truncate(true).mode(0o600);
        let file = options.open(&path)?;
        (self.times, self.timed) = (options.open(times_of(&path)).ok(), 0);
        if self.starts.back() != Some(&self.at) {
            self.starts.push_back(self.at);
        }
        while self.starts.len() > self.keep
            && let Some(oldest) = self.starts.pop_front()
        {
            let path = self::path(&self.dir, &self.name, oldest);
            drop(fs::remove_file(times_of(&path)));
            fs::remove_file(path)?;
        }
        Ok(file)
    }
}

fn path(dir: &Path, name: &str, start: u64) -> PathBuf {
    dir.join(format!("{name}.log.{start}"))
}

fn times_of(segment: &Path) -> PathBuf {
    let mut name = segment.as_os_str().to_owned();
    name.push(".times");
    name.into()
}

/// Where the segments of a log begin that are there now.
fn starts(dir: &Path, name: &str) -> Vec<u64> {
    let start = |file: &str| file.strip_prefix(name)?.strip_prefix(".log.")?.parse().ok();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut starts: Vec<u64> = entries.filter_map(|entry| start(entry.file_name().to_str()?)).collect();
    starts.sort_unstable();
    starts
}

/// Removes a log.
pub fn remove(dir: &Path, name: &str) {
    for start in starts(dir, name) {
        let path = path(dir, name, start);
        drop(fs::remove_file(times_of(&path)));
        drop(fs::remove_file(path));
    }
}

/// What was read of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// How many bytes before these are gone.
    pub missing: u64,
    /// How many bytes of the log come before these.
    pub at: u64,
    /// The next bytes; empty at the end of what there is.
    pub bytes: Vec<u8>,
}

/// Reads a log that may grow meanwhile.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    name: String,
    at: u64,
    /// Open segments by their beginnings. They can be read to their ends after they were removed.
    open: BTreeMap<u64, File>,
}

impl Reader {
    /// Begins with the oldest that is there.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self { dir: dir.to_path_buf(), name: name.to_owned(), at: 0, open: BTreeMap::new() }
    }

    /// The next piece of at most 64 KiB.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn next_piece(&mut self) -> io::Result<Piece> {
        for start in starts(&self.dir, &self.name) {
            if !self.open.contains_key(&start)
                // Removed in between: it counts as missing.
                && let Ok(file) = plain::open_no_link(File::options().read(true), &path(&self.dir, &self.name, start))
            {
                self.open.insert(start, file);
            }
        }
        let mut missing = 0;
        loop {
            let (Some((&start, file)), later) = (
                self.open.range(..=self.at).next_back(),
                self.open.range(self.at + 1..).next().map(|(&start, _)| start),
            ) else {
                match self.open.keys().next().copied() {
                    Some(first) => missing += self.skip_to(first),
                    None => return Ok(Piece { missing, at: self.at, bytes: Vec::new() }),
                }
                continue;
            };
            let mut bytes = vec![0; 64 << 10];
            let count = file.read_at(&mut bytes, self.at - start)?;
            bytes.truncate(count);
            let at = self.at;
            self.at += count as u64;
            match later {
                Some(later) if count == 0 => missing += self.skip_to(later),
                _ => {
                    self.open.retain(|&begin, _| begin >= start);
                    return Ok(Piece { missing, at, bytes });
                }
            }
        }
    }

    /// When what is at each of these positions was written, in milliseconds since 1970; 0 where that is not known. Positions
    /// are in rising order, and of the piece that was read last.
    pub fn times(&self, positions: &[u64]) -> Vec<u64> {
        let mut known: Vec<(u64, u64)> = Vec::new();
        let needed = positions.first().copied().unwrap_or_default();
        let first = self.open.range(..=needed).next_back().map(|(&start, _)| start).unwrap_or_default();
        for &start in
            self.open.range(first..=positions.last().copied().unwrap_or_default()).map(|(start, _)| start)
        {
            let path = times_of(&path(&self.dir, &self.name, start));
            let Ok(file) = plain::open_no_link(File::options().read(true), &path) else { continue };
            let mut bytes = Vec::new();
            drop(io::Read::take(file, MOST_TIMES * TIME as u64 + TIME as u64).read_to_end(&mut bytes));
            let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
            known.extend(bytes.chunks_exact(TIME).map(|pair| (number(&pair[..8]), number(&pair[8..]))));
        }
        let time = |position: &u64| {
            let at = known.partition_point(|(start, _)| start <= position);
            at.checked_sub(1).map(|at| known[at].1).unwrap_or_default()
        };
        positions.iter().map(time).collect()
    }

    /// Goes on at `start`, and says how many bytes lie between.
    fn skip_to(&mut self, start: u64) -> u64 {
        let missing = start.saturating_sub(self.at);
        self.at = start;
        missing
    }

    /// All that is there now, and how many bytes before it are gone.
    #[cfg(test)]
    pub fn rest(&mut self) -> (u64, Vec<u8>) {
        let mut all = Piece::default();
        loop {
            let piece = self.next_piece().unwrap();
            all.missing += piece.missing;
            if piece.bytes.is_empty() {
                return (all.missing, all.bytes);
            }
            all.bytes.extend(piece.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that differ by their place.
    fn content(from: u64, to: u64) -> Vec<u8> {
        (from..to).map(|at| (at % 251) as u8).collect()
    }

    fn size(dir: &Path) -> u64 {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }

    #[test]
    fn a_log_is_bounded_and_its_reader_knows_what_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Segments::create(dir.path(), "a", 3).unwrap();
        let total = 5 * SEGMENT + 777;
        for piece in content(0, total).chunks(60_000) {
            log.append(piece).unwrap();
            assert!(size(dir.path()) <= 3 * (SEGMENT + MOST_TIMES * TIME as u64));
        }
        let (missing, bytes) = Reader::new(dir.path(), "a").rest();
        assert_eq!(missing, 3 * SEGMENT);
        assert!(bytes == content(3 * SEGMENT, total));
        remove(dir.path(), "a");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_time_of_every_byte_is_known_to_a_grain() {
        let dir = tempfile::tempdir().unwrap();
        let now =
            || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let mut log = Segments::create(dir.path(), "a", 3).unwrap();
        let before = now();
        log.append(b"one").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5 * GRAIN));
        let between = now();
        log.append(&content(0, SEGMENT)).unwrap();
        let mut reader = Reader::new(dir.path(), "a");
        assert_eq!(reader.times(&[0]), [0], "nothing was read yet");
        reader.next_piece().unwrap();
        let times = reader.times(&[0, 2, 3, 10]);
        assert!(times[0] >= before && times[0] < between, "{times:?}");
        assert_eq!((times[0], times[2]), (times[1], times[3]));
        assert!(times[2] >= between, "{times:?}");
        remove(dir.path(), "a");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_segment_with_many_times_ends_early() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Segments::create(dir.path(), "a", 3).unwrap();
        log.append(b"first").unwrap();
        log.timed = MOST_TIMES;
        log.append(b"second").unwrap();
        assert_eq!(starts(dir.path(), "a"), [0, 5]);
    }

    #[test]
    fn who_reads_along_misses_nothing_and_who_falls_behind_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Segments::create(dir.path(), "a", 2).unwrap();
        let mut reader = Reader::new(dir.path(), "a");
        assert_eq!(reader.rest(), (0, Vec::new()));
        let mut at = 0;
        for _ in 0..20 {
            log.append(&content(at, at + 300_000)).unwrap();
            assert!(reader.rest() == (0, content(at, at + 300_000)));
            at += 300_000;
        }
        log.append(&content(at, at + 4 * SEGMENT)).unwrap();
        at += 4 * SEGMENT;
        let (missing, bytes) = reader.rest();
        // The rest of the segment that it had open, and the ones that are still there.
        assert!(missing > 0 && bytes.ends_with(&content(at - SEGMENT, at)));
        assert_eq!(missing + bytes.len() as u64, 4 * SEGMENT);
    }

    #[test]
    fn what_was_opened_is_read_to_its_end_after_it_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Segments::create(dir.path(), "a", 2).unwrap();
        let mut reader = Reader::new(dir.path(), "a");
        log.append(b"first").unwrap();
        assert_eq!(reader.rest().1, b"first");
        log.append(b"last").unwrap();
        remove(dir.path(), "a");
        assert_eq!(reader.rest(), (0, b"last".to_vec()));
    }

    #[test]
    fn names_of_others_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Segments::create(dir.path(), "a", 2).unwrap();
        Segments::create(dir.path(), "a-b", 2).unwrap().append(b"other").unwrap();
        fs::write(dir.path().join("a.log.x"), "other").unwrap();
        log.append(b"mine").unwrap();
        assert_eq!(Reader::new(dir.path(), "a").rest(), (0, b"mine".to_vec()));
    }
}
