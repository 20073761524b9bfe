//! A plan carried out, or nothing of it.
//!
//! ```text
//! look: whose is what stands in the way?      nothing is written yet
//! receipt: all that may be there from now on
//! directories, then every file beside its place, under a name of its own
//! each file into its place; the one that was there keeps a second name
//! receipt: what is there; second names go
//! ```
//! An error, or a call for the end, takes it all back in reverse. A process that is killed leaves a receipt that names all it
//! may have made, so [`super::remove()`] takes it away.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

use super::error::DeployError;
use super::plan::{Plan, Planned};
use super::receipt::{Receipt, Written};
use super::root::{Found, Root};

/// Why a file stays that was changed since it was written.
pub(super) const EDITED: &str = "it was changed since it was installed (--force takes it all the same)";

/// What an installation did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files that were written.
    pub written: Vec<PathBuf>,
    /// Files that were there already as they should be.
    pub unchanged: Vec<PathBuf>,
    /// Files that were removed.
    pub removed: Vec<PathBuf>,
    /// Files that stay although they were written from here, and why.
    pub kept: Vec<Kept>,
}

/// A file that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The file.
    pub path: PathBuf,
    /// Why it stays.
    pub reason: String,
}

/// How an installation is made or removed.
#[derive(Clone, Copy)]
pub struct How<'a> {
    /// Also what was changed since it was installed is replaced or removed. Never anything that somebody else made.
    pub force: bool,
    /// Only look.
    pub dry_run: bool,
    /// Whether the end is called for. Asked before each step of an installation, and while somebody else holds the lock.
    pub stop: &'a dyn Fn() -> bool,
}

/// What is to be done with one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Create,
    Replace,
    Leave,
}

/// Writes all files of a plan.
///
/// # Errors
/// [`DeployError::Foreign`], [`DeployError::Edited`] and [`DeployError::Shared`] before any file is written; with every error
/// all is as it was.
pub fn install(plan: &Plan, how: How<'_>) -> Result<Report, DeployError> {
    if how.dry_run {
        return Ok(Look::at(plan, how.force)?.report);
    }
    let mut undo = Undo { plan, before: None, receipt: false, done: Vec::new() };
    let result = undo.carry_out(how);
    if result.is_err() {
        undo.back();
    }
    result
}

/// What there is, and what is to be done.
struct Look {
    before: Option<Receipt>,
    steps: Vec<Step>,
    report: Report,
}

impl Look {
    fn at(plan: &Plan, force: bool) -> Result<Self, DeployError> {
        let (before, others) = own_and_others(Receipt::all(&plan.root, &plan.prefix)?, &plan.name);
        let steps = look(plan, before.as_ref(), &others, force)?;
        let Stale { gone: removed, kept } = stale(plan, before.as_ref(), &others)?;
        let mut report = Report { removed, kept, ..Report::default() };
        for (Planned { path, .. }, step) in plan.files.iter().zip(&steps) {
            let list = if *step == Step::Leave { &mut report.unchanged } else { &mut report.written };
            list.push(path.clone());
        }
        missing(plan)?;
        Ok(Self { before, steps, report })
    }
}

/// The receipt of the installation called `name`, and those of others.
pub(super) fn own_and_others(receipts: Vec<Receipt>, name: &str) -> (Option<Receipt>, Vec<Receipt>) {
    let (mut own, others): (Vec<_>, Vec<_>) = receipts.into_iter().partition(|receipt| receipt.name == name);
    (own.pop(), others)
}

fn look(
    plan: &Plan,
    before: Option<&Receipt>,
    others: &[Receipt],
    force: bool,
) -> Result<Vec<Step>, DeployError> {
    let step = |Planned { path, content }: &Planned| {
        let at = || plan.root.at(path);
        let wanted = content.sha256();
        let mine = before.and_then(|receipt| receipt.digests(path));
        let theirs = others.iter().find(|receipt| receipt.digests(path).is_some());
        match plan.root.find(path)? {
            Found::Nothing => Ok(Step::Create),
            Found::Other => Err(DeployError::Foreign(at())),
            Found::File(_) if mine.is_none() && theirs.is_none() => Err(DeployError::Foreign(at())),
            Found::File(found) if found == wanted => Ok(Step::Leave),
            Found::File(found) => match (theirs, mine) {
                (Some(other), _) => Err(DeployError::Shared { path: at(), other: other.name.clone() }),
                (None, Some(digests)) if force || digests.contains(&found) => Ok(Step::Replace),
                (None, _) => Err(DeployError::Edited(at())),
            },
        }
    };
    plan.files.iter().map(step).collect()
}

/// Files of the installation before that are not in this one.
struct Stale {
    gone: Vec<PathBuf>,
    kept: Vec<Kept>,
}

fn stale(plan: &Plan, before: Option<&Receipt>, others: &[Receipt]) -> Result<Stale, DeployError> {
    let mut stale = Stale { gone: Vec::new(), kept: Vec::new() };
    let planned = |path: &Path| plan.files.iter().any(|file| file.path == path);
    for Written { path, sha256 } in before.iter().flat_map(|receipt| &receipt.files) {
        let shared = others.iter().any(|receipt| receipt.digests(path).is_some());
        if planned(path) || shared {
            continue;
        }
        match plan.root.find(path)? {
            Found::Nothing => {}
            Found::File(found) if sha256.contains(&found) => stale.gone.push(path.clone()),
            _ => stale.kept.push(Kept { path: path.clone(), reason: EDITED.into() }),
        }
    }
    Ok(stale)
}

/// Every directory that has to be made, outermost first.
fn missing(plan: &Plan) -> Result<Vec<PathBuf>, DeployError> {
    let own = plan.own();
    let mut directories: Vec<PathBuf> = Vec::new();
    let receipts = Receipt::directory(&plan.prefix);
    let parents = plan.files.iter().filter_map(|file| file.path.parent());
    for parent in std::iter::once(receipts.as_path()).chain(parents) {
        for directory in plan.root.missing(parent, &own)? {
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
    }
    Ok(directories)
}

/// The name under which a file waits beside its place.
pub(super) fn new_name(path: &Path, name: &str) -> PathBuf {
    hidden(path, &format!("{name}.new"))
}

/// The second name of a file that is being replaced.
pub(super) fn old_name(path: &Path, name: &str) -> PathBuf {
    hidden(path, &format!("{name}.old"))
}

/// A name of our own near `path`. Not in a `config.d`: shims read every file there, also hidden and unfinished ones.
fn hidden(path: &Path, end: &str) -> PathBuf {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    match path.parent() {
        Some(parent) if parent.ends_with("config.d") => {
            parent.with_file_name(format!(".config.d.{file}.{end}"))
        }
        _ => path.with_file_name(format!(".{file}.{end}")),
    }
}

/// How often a lock that somebody else holds is asked for again.
const LOCK_AGAIN: Duration = Duration::from_millis(50);

/// A lock on the prefix, for one installation or removal at a time. Waits for it until the end is called for.
pub(super) fn lock(root: &Root, prefix: &Path, stop: &dyn Fn() -> bool) -> Result<Flock<File>, DeployError> {
    let at = root.at(prefix);
    let mut directory = File::open(&at).map_err(DeployError::io("open", &at))?;
    loop {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) => directory = back,
            Err((_, errno)) => return Err(DeployError::io("lock", &at)(errno.into())),
        }
        if stop() {
            return Err(DeployError::Stopped);
        }
        std::thread::sleep(LOCK_AGAIN);
    }
}

/// Something that was done.
enum Done {
    Directory(PathBuf),
    New(PathBuf),
    Kept(PathBuf),
    Created(PathBuf),
    Replaced(PathBuf),
    Removed(PathBuf),
}

struct Undo<'a> {
    plan: &'a Plan,
    before: Option<Receipt>,
    /// Whether the receipt that is there is of this installation.
    receipt: bool,
    done: Vec<Done>,
}

impl Undo<'_> {
    fn carry_out(&mut self, how: How<'_>) -> Result<Report, DeployError> {
        let Plan { root, prefix, name, files, .. } = self.plan;
        let go_on = || if (how.stop)() { Err(DeployError::Stopped) } else { Ok(()) };
        let first = root.missing(&Receipt::directory(prefix), &self.plan.own())?;
        self.make_directories(&first, &go_on)?;
        let _lock = lock(root, prefix, how.stop)?;
        let Look { before, steps, report } = Look::at(self.plan, how.force)?;
        self.before = before;
        let later = missing(self.plan)?;
        go_on()?;
        let mut receipt = self.journal(first.into_iter().chain(later.iter().cloned()));
        self.receipt = true;
        receipt.write(root, prefix)?;
        self.make_directories(&later, &go_on)?;
        let changed = || files.iter().zip(&steps).filter(|(_, step)| **step != Step::Leave);
        for (Planned { path, content }, _) in changed() {
            go_on()?;
            let new = new_name(path, name);
            root.remove(&new)?;
            self.done.push(Done::New(new.clone()));
            content.write(&mut root.create(&new)?, &root.at(&new))?;
        }
        for (Planned { path, .. }, step) in changed() {
            go_on()?;
            let new = new_name(path, name);
            if *step == Step::Replace {
                self.keep(path)?;
                root.rename(&new, path)?;
                self.done.push(Done::Replaced(path.clone()));
            } else {
                // A file may have come meanwhile: a second name is refused there, where a rename would replace.
                root.second_name(&new, path)?;
                self.done.push(Done::Created(path.clone()));
                root.remove(&new)?;
            }
        }
        for path in &report.removed {
            go_on()?;
            self.keep(path)?;
            root.remove(path)?;
            self.done.push(Done::Removed(path.clone()));
        }
        go_on()?;
        self.settle(&mut receipt, &report);
        receipt.write(root, prefix)?;
        // It is done. A second name that stays is removed with the installation.
        for done in self.done.drain(..) {
            if let Done::Kept(path) = done {
                drop(root.remove(&old_name(&path, name)));
            }
        }
        Ok(report)
    }

    fn make_directories(
        &mut self,
        directories: &[PathBuf],
        go_on: &dyn Fn() -> Result<(), DeployError>,
    ) -> Result<(), DeployError> {
        for directory in directories {
            go_on()?;
            self.plan.root.make_directory(directory)?;
            self.done.push(Done::Directory(directory.clone()));
        }
        Ok(())
    }

    /// Gives a file its second name.
    fn keep(&mut self, path: &Path) -> Result<(), DeployError> {
        let Plan { root, name, .. } = self.plan;
        let old = old_name(path, name);
        root.remove(&old)?;
        root.second_name(path, &old)?;
        self.done.push(Done::Kept(path.to_path_buf()));
        Ok(())
    }

    /// The receipt of all that may be there until the end.
    fn journal(&self, directories: impl Iterator<Item = PathBuf>) -> Receipt {
        let Plan { root, name, files, .. } = self.plan;
        let mut receipt =
            self.before.clone().unwrap_or_else(|| Receipt::new(name, root.is_staged(), Vec::new()));
        receipt.own = self.plan.own();
        for Planned { path, content } in files {
            let wanted = content.sha256();
            match receipt.files.iter_mut().find(|file| file.path == *path) {
                Some(file) if file.sha256.contains(&wanted) => {}
                Some(file) => file.sha256.push(wanted),
                None => receipt.files.push(Written { path: path.clone(), sha256: vec![wanted] }),
            }
        }
        for directory in directories {
            if !receipt.directories.contains(&directory) {
                receipt.directories.push(directory);
            }
        }
        receipt
    }

    /// What is there in the end: the plan's files, and those that were kept.
    fn settle(&self, receipt: &mut Receipt, report: &Report) {
        let planned = |path: &Path| self.plan.files.iter().find(|file| file.path == path);
        receipt.files.retain_mut(|file| match planned(&file.path) {
            Some(Planned { content, .. }) => {
                file.sha256 = vec![content.sha256()];
                true
            }
            None => report.kept.iter().any(|kept| kept.path == file.path),
        });
    }

    /// Takes back what was done. What cannot be taken back is named by the receipt, which stays then.
    fn back(&mut self) {
        let Plan { root, prefix, name, .. } = self.plan;
        let mut whole = true;
        let mut directories = Vec::new();
        while let Some(done) = self.done.pop() {
            let result = match done {
                Done::Directory(path) => {
                    directories.push(path);
                    Ok(())
                }
                Done::New(path) => root.remove(&path).map(drop),
                Done::Kept(path) => root.remove(&old_name(&path, name)).map(drop),
                Done::Created(path) => root.remove(&path).map(drop),
                Done::Replaced(path) | Done::Removed(path) => root.rename(&old_name(&path, name), &path),
            };
            whole &= result.is_ok();
        }
        if !whole {
            return;
        }
        if self.receipt {
            let restored = match &self.before {
                Some(before) => before.write(root, prefix),
                None => root.remove(&Receipt::path(prefix, name)).map(drop),
            };
            if restored.is_err() {
                return;
            }
        }
        for path in directories {
            // One that somebody else has put something into meanwhile stays.
            if root.remove_directory(&path).is_err() {
                return;
            }
        }
    }
}
