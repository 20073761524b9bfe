//! A watched directory, and those below it, over inotify(7).
//!
//! The kernel watches directories one by one and tells of names in them. So a directory that appears below is watched when
//! its event is read, and what is found in it by then is told as created: some of it came before the watch did. What is told
//! so is remembered, since the kernel may tell it as well. A directory that is moved keeps its watch, under its new path.

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Dir, FileType, OFlags};
use rustix::io::Errno;

use super::budget::Budget;
use super::event::{Event, Kept, Kind};
use crate::sandbox_api::account::Names;
use crate::sandbox_api::rooted::{Entry, FileError, Root, Stop, below, join, magic, reopen};

/// Directories that all watchers together watch. Each keeps an inode in the kernel, which no container pays for.
pub(crate) const MOST_DIRECTORIES: usize = 8192;
/// Names that were told without an event of the kernel.
const MOST_FOUND: usize = 4096;
/// Bytes of events that are read at once.
const BUFFER: usize = 16 << 10;
/// Reads until others have a turn.
const READS: u32 = 16;

/// What a watch is to do.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The directory, as the client called it.
    pub(crate) path: String,
    /// Whether directories below are watched, too.
    pub(crate) recursive: bool,
    /// Whether events come with what they happened to.
    pub(crate) include_entry: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tree {
    inotify: Arc<OwnedFd>,
    root: Root,
    /// The watched directory: device and number. A descriptor of it would keep its removal from being told.
    top: (u64, u64),
    options: Options,
    budget: Budget,
    /// Paths below the top, by watch descriptor.
    watched: HashMap<i32, PathBuf>,
    /// Told as created without an event.
    found: HashSet<PathBuf>,
    /// A directory that was moved away: where from, and the cookie by which its new place is known.
    moved: Option<(u32, PathBuf)>,
}

impl Tree {
    /// Watches a directory. Blocks.
    pub(super) fn new(
        root: Root,
        top: OwnedFd,
        options: Options,
        budget: Budget,
        stop: &Stop,
    ) -> Result<Tree, FileError> {
        let path = options.path.clone();
        let top = identity(&top).map_err(FileError::during("watch", &path))?;
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        let mut tree = Tree {
            inotify: Arc::new(inotify.map_err(FileError::during("watch", &path))?),
            root,
            top,
            options,
            budget,
            watched: HashMap::new(),
            found: HashSet::new(),
            moved: None,
        };
        if !tree.add(PathBuf::new(), &mut None, stop)? {
            return Err(FileError::Exhausted(format!(
                "to watch '{path}' would be more than {MOST_DIRECTORIES} watched directories: watch fewer, or not recursively"
            )));
        }
        Ok(tree)
    }

    /// What is readable when something happened.
    pub(super) fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.inotify)
    }

    /// Reads what happened. Whether there may be more. Blocks while directories are added.
    pub(super) fn drain(&mut self, kept: &mut Kept, stop: &Stop) -> Result<bool, FileError> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut names = None;
        for _ in 0..READS {
            let happened = match self.read(&mut buffer) {
                Err(Errno::AGAIN) => {
                    self.forget_moved();
                    // What the kernel tells from now on happened after that.
                    self.found.clear();
                    return Ok(false);
                }
                read => read.map_err(FileError::during("read the events of", &self.options.path))?,
            };
            for one in happened {
                self.tell(one, kept, &mut names, stop)?;
            }
        }
        Ok(true)
    }

    fn read(&self, buffer: &mut [MaybeUninit<u8>]) -> rustix::io::Result<Vec<Happened>> {
        let mut reader = inotify::Reader::new(&*self.inotify, buffer);
        let mut all = Vec::new();
        loop {
            // One read; what it brought is in the reader.
            let event = match reader.next() {
                Err(Errno::INTR) => continue,
                event => event?,
            };
            all.push(Happened {
                watch: event.wd(),
                flags: event.events(),
                cookie: event.cookie(),
                name: event.file_name().map(|name| PathBuf::from(OsStr::from_bytes(name.to_bytes()))),
            });
            if reader.is_buffer_empty() {
                return Ok(all);
            }
        }
    }

    fn tell(
        &mut self,
        one: Happened,
        kept: &mut Kept,
        names: &mut Option<Names>,
        stop: &Stop,
    ) -> Result<(), FileError> {
        let Happened { watch, flags, cookie, name } = one;
        let is_directory = flags.contains(ReadFlags::ISDIR);
        if !(flags.contains(ReadFlags::MOVED_TO)
            && self.moved.as_ref().is_some_and(|moved| moved.0 == cookie))
        {
            self.forget_moved();
        }
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            kept.lose();
            return Ok(());
        }
        if flags.contains(ReadFlags::IGNORED) {
            if self.watched.remove(&watch).is_some() {
                self.budget.give_back(1);
            }
            return Ok(());
        }
        let Some(directory) = self.watched.get(&watch) else { return Ok(()) };
        let path = match &name {
            Some(name) => directory.join(name),
            // Of a directory below, the one above it tells the same.
            None if !directory.as_os_str().is_empty() => return Ok(()),
            None => PathBuf::new(),
        };
        if flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            self.found.remove(&path);
        }
        if flags.contains(ReadFlags::MOVE_SELF) && self.options.recursive {
            // What is made in it from now on is not found by its path.
            kept.lose();
        }
        let is_known = flags.contains(ReadFlags::CREATE) && self.found.remove(&path);
        if !is_known {
            for kind in Kind::of(flags) {
                kept.push(self.event(kind, &path, names));
            }
        }
        if !is_directory || name.is_none() || !self.options.recursive {
            return Ok(());
        }
        if flags.contains(ReadFlags::MOVED_FROM) {
            self.moved = Some((cookie, path));
        } else if flags.contains(ReadFlags::MOVED_TO)
            && let Some((_, from)) = self.moved.take()
        {
            self.renamed(&from, &path);
        } else if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) && !is_known {
            // What is moved here from elsewhere comes as a whole: only its name is new.
            let tells = flags.contains(ReadFlags::CREATE);
            let mut told = tells.then_some(Told { kept, names });
            if !self.add(path, &mut told, stop)? {
                kept.lose();
            }
        }
        Ok(())
    }

    fn event(&self, kind: Kind, path: &Path, names: &mut Option<Names>) -> Event {
        let name = if path.as_os_str().is_empty() { ".".into() } else { path.to_string_lossy().into_owned() };
        let entry = (self.options.include_entry && kind.has_entry()).then(|| {
            let names = names.get_or_insert_with(|| self.root.names());
            let whole = if name == "." { self.options.path.clone() } else { join(&self.options.path, &name) };
            Entry::of(&self.root, names, &whole).ok().map(Box::new)
        });
        Event { name, kind, entry: entry.flatten() }
    }

    /// Watches a directory and, if so wanted, all below it. False if that is too many.
    fn add(&mut self, path: PathBuf, told: &mut Option<Told<'_>>, stop: &Stop) -> Result<bool, FileError> {
        const WHAT: WatchFlags = WatchFlags::CREATE
            .union(WatchFlags::MOVED_TO)
            .union(WatchFlags::MOVED_FROM)
            .union(WatchFlags::ATTRIB)
            .union(WatchFlags::MODIFY)
            .union(WatchFlags::MOVE_SELF)
            .union(WatchFlags::DELETE)
            .union(WatchFlags::DELETE_SELF)
            .union(WatchFlags::ONLYDIR);
        let top = match self.root.directory(&self.options.path) {
            Ok(top) if identity(&top) == Ok(self.top) => top,
            // Gone, with all that was in it. If it was moved, that is told.
            _ if !path.as_os_str().is_empty() => return Ok(true),
            Ok(_) => return Err(FileError::Missing(self.options.path.clone())),
            Err(errno) => return Err(FileError::io("watch", &self.options.path, errno)),
        };
        let mut waiting = vec![path];
        while let Some(path) = waiting.pop() {
            stop.check()?;
            let directory = match below(&top, &path, OFlags::PATH | OFlags::DIRECTORY) {
                // Gone again, or replaced, or deeper than a path can say.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG)
                    if !path.as_os_str().is_empty() =>
                {
                    continue;
                }
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => return Ok(false),
                directory => directory.map_err(FileError::during("watch", &self.options.path))?,
            };
            if !self.budget.take(1) {
                return Ok(false);
            }
            let watch = match inotify::add_watch(&*self.inotify, magic(&directory), WHAT) {
                Ok(watch) => watch,
                Err(errno) => {
                    self.budget.give_back(1);
                    return match errno {
                        Errno::NOSPC | Errno::NOMEM => Ok(false),
                        Errno::NOENT | Errno::NOTDIR if !path.as_os_str().is_empty() => continue,
                        errno => Err(FileError::io("watch", &self.options.path, errno)),
                    };
                }
            };
            if self.watched.insert(watch, path.clone()).is_some() {
                self.budget.give_back(1);
            }
            if !self.options.recursive {
                continue;
            }
            let Ok(entries) = reopen(&directory, OFlags::RDONLY | OFlags::DIRECTORY).and_then(Dir::new)
            else {
                continue;
            };
            for entry in entries {
                let Ok(entry) = entry else { break };
                if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    continue;
                }
                let child = path.join(OsStr::from_bytes(entry.file_name().to_bytes()));
                // What is not remembered may be told twice, but is not lost.
                if let Some(told) = told.as_mut()
                    && (self.found.len() >= MOST_FOUND || self.found.insert(child.clone()))
                {
                    let event = self.event(Kind::Create, &child, told.names);
                    told.kept.push(event);
                }
                if is_directory(&directory, &entry) {
                    // As many as can be watched, and no more, wait.
                    if waiting.len() >= MOST_DIRECTORIES {
                        return Ok(false);
                    }
                    waiting.push(child);
                }
            }
        }
        Ok(true)
    }

    /// A directory below has another path now.
    fn renamed(&mut self, from: &Path, to: &Path) {
        for path in self.watched.values_mut() {
            if let Ok(rest) = path.strip_prefix(from) {
                *path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            }
        }
    }

    /// A directory was moved to where nobody watches.
    fn forget_moved(&mut self) {
        let Some((_, path)) = self.moved.take() else { return };
        let gone: Vec<i32> = self
            .watched
            .iter()
            .filter(|(_, below)| below.starts_with(&path))
            .map(|(watch, _)| *watch)
            .collect();
        for watch in gone {
            self.watched.remove(&watch);
            self.budget.give_back(1);
            // It may be gone by itself.
            inotify::remove_watch(&*self.inotify, watch).unwrap_or_default();
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.budget.give_back(self.watched.len());
    }
}

/// Where what is found is told.
struct Told<'a> {
    kept: &'a mut Kept,
    names: &'a mut Option<Names>,
}

struct Happened {
    watch: i32,
    flags: ReadFlags,
    cookie: u32,
    name: Option<PathBuf>,
}

/// Device and number.
fn identity(directory: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    rustix::fs::fstat(directory).map(|stat| (stat.st_dev, stat.st_ino))
}

fn is_directory(directory: &OwnedFd, entry: &rustix::fs::DirEntry) -> bool {
    match entry.file_type() {
        FileType::Directory => true,
        FileType::Unknown => {
            let name: CString = entry.file_name().to_owned();
            rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        }
        _ => false,
    }
}
