//! The events of all pods, in order: one JSON object per line.
//!
//! Every process that runs a pod appends to the same file. Promises that a line is written whole or not at all, and that the
//! file and its predecessor are bounded. Must never make a run fail: an event that cannot be written is dropped.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use store::plain;

use super::state::StateDir;

/// The names begin with a point: they are no pods.
const NAME: &str = ".events";
const OLDER: &str = ".events.1";
/// When the file is larger than this it becomes the older one.
const MOST: u64 = 1 << 20;
/// A line that is longer than this is left out.
const MOST_LINE: usize = 16 << 10;

/// The journal of one state directory.
#[derive(Debug, Clone)]
pub struct Journal {
    directory: PathBuf,
}

impl Journal {
    /// The one of these pods.
    pub fn of(state: &StateDir) -> Self {
        Self { directory: state.root().to_path_buf() }
    }

    /// Adds what happened to `pod` now.
    pub(super) fn add(&self, pod: &str, what: &Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = serde_json::json!({"time": now.as_secs_f64(), "pod": pod});
        if let (Some(line), Some(what)) = (line.as_object_mut(), what.as_object()) {
            let fields = what.iter().filter(|(name, value)| !line.contains_key(*name) && !value.is_null());
            let fields: Vec<_> = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
            line.extend(fields);
        }
        let mut line = line.to_string();
        line.push('\n');
        if line.len() <= MOST_LINE {
            drop(self.write(line.as_bytes()));
        }
    }

    fn write(&self, line: &[u8]) -> io::Result<()> {
        loop {
            let path = self.directory.join(NAME);
            let mut options = File::options().create(true).append(true).mode(0o600).clone();
            let file = plain::open_no_link(&mut options, &path)?;
            let mut held =
                Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
            let (mine, there) = (held.metadata()?, fs::metadata(&path));
            // Another one may have made it the older one meanwhile, and nobody begun the next one yet.
            if !there.is_ok_and(|there| there.ino() == mine.ino()) {
                continue;
            }
            if mine.len() > MOST {
                fs::rename(&path, self.directory.join(OLDER))?;
                continue;
            }
            return held.write_all(line);
        }
    }

    /// All that is written down, in its order.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&self) -> io::Result<Vec<Value>> {
        let mut lines = Vec::new();
        for name in [OLDER, NAME] {
            let text = match open(&self.directory.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text?,
            };
            lines.extend(
                String::from_utf8_lossy(&text).lines().filter_map(|line| serde_json::from_str(line).ok()),
            );
        }
        Ok(lines)
    }
}

fn open(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = plain::open_no_link(File::options().read(true), path)?;
    file.take(MOST + MOST_LINE as u64).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_write_and_the_journal_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of(&StateDir::new(dir.path().into()));
        assert!(journal.read().unwrap().is_empty());
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let journal = journal.clone();
                std::thread::spawn(move || {
                    let text = "x".repeat(1000);
                    for number in 0..1000 {
                        journal.add("web", &serde_json::json!({"event": "note", "writer": writer, "n": number, "text": text}));
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let lines = journal.read().unwrap();
        assert!(lines.len() > 1000, "{}", lines.len());
        for writer in 0..4 {
            let numbers: Vec<u64> = lines
                .iter()
                .filter(|line| line["writer"] == writer)
                .filter_map(|line| line["n"].as_u64())
                .collect();
            assert!(numbers.is_sorted(), "in order");
        }
        // Who was done early may be forgotten by now; who was the last is not.
        assert_eq!(lines.last().and_then(|line| line["n"].as_u64()), Some(999), "the last one is there");
        let size: u64 =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(size <= 2 * (MOST + MOST_LINE as u64), "{size}");
        journal.add("web", &serde_json::json!({"event": "note", "text": "x".repeat(MOST_LINE)}));
        assert_eq!(journal.read().unwrap().len(), lines.len(), "what is too long is left out");
    }
}
