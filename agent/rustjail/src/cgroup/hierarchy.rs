//! A cgroup's birth and end.
//!
//! Owns: making the directories of a path with every controller handed down, and taking them away again. Promises:
//! a create that fails leaves no directory behind; a remove takes the processes with it, and the ancestors that
//! nobody needs any more; removing twice is no error. Must never: remove a directory that neither this cgroup nor
//! another [`Cgroup::create`] made.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::file::Directory;
use super::stats::huge_page_sizes;
use super::{Cgroup, CgroupPath, Controller, Error};

/// How often a create starts again when a neighbour's remove took an ancestor from under it.
const ATTEMPTS: usize = 16;
/// The first and the longest pause between two tries at a busy directory.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// How often the processes of a cgroup that is not empty yet are killed again.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// A controller that an ancestor did not hand down.
#[derive(Debug)]
pub(super) struct Refused {
    controller: String,
    ancestor: PathBuf,
    errno: Option<i32>,
}

impl Cgroup {
    /// Makes the cgroup below `root`, the cgroup2 mount, with the ancestors it needs, each of which hands down
    /// every controller it has. A controller that cannot be handed down is no error here, but where a limit needs
    /// it.
    ///
    /// # Errors
    /// [`Error::Exists`] if the cgroup is there already; otherwise what the kernel said, with nothing left behind.
    pub fn create(root: &Path, path: &CgroupPath) -> Result<Cgroup, Error> {
        let mut attempt = 1;
        loop {
            match create_once(root, path) {
                Err(error) if error.vanished() && attempt < ATTEMPTS && root.is_dir() => attempt += 1,
                result => return result,
            }
        }
    }

    /// Opens a cgroup that is there.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is not; otherwise what the kernel said.
    pub fn open(root: &Path, path: &CgroupPath) -> Result<Cgroup, Error> {
        let root = Directory::open(root)?;
        let mut directory = root.reopen()?;
        for name in path.ancestors().iter().map(String::as_str).chain([path.leaf()]) {
            let missing = directory.path().join(name);
            directory = directory.child(name)?.ok_or(Error::NotFound { path: missing })?;
        }
        Ok(Cgroup {
            directory,
            root,
            path: path.clone(),
            ancestors_made: 0,
            refused: Vec::new(),
            huge_pages: OnceLock::new(),
        })
    }

    /// Kills what is left in the cgroup, removes it with all cgroups below it, and then the ancestors that a create
    /// had to make and that are empty now. A cgroup that is gone already is fine.
    ///
    /// # Errors
    /// [`Error::Timeout`] if processes are still dying at the deadline (they may be stuck in the kernel); it may
    /// be called again.
    pub fn remove(&self, deadline: Duration) -> Result<(), Error> {
        let start = Instant::now();
        let mut pause = PAUSE.0;
        let mut killed: Option<Instant> = None;
        loop {
            // Once kills all, also what is forked meanwhile; but each kill looks at every process, which are many where they
            // take long to die. Later ones are for what was put in from outside.
            let kills = killed.is_none_or(|at| at.elapsed() >= KILL_AGAIN);
            if kills {
                killed = Some(Instant::now());
            }
            match self.remove_once(kills, start + deadline) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // A directory went between seeing and opening it, as processes that remove their own do.
                Err(error) if error.vanished() => {}
                Err(error) => return Err(error),
            }
            if start.elapsed() >= deadline {
                let path = self.path().to_owned();
                return Err(Error::Timeout { path, awaited: "is still in use", waited: start.elapsed() });
            }
            std::thread::sleep(pause);
            pause = PAUSE.1.min(pause * 2);
        }
    }

    /// Where another process of the container can be born, next to the one whose `/proc/<pid>/cgroup` `read` gives as
    /// seen from the root. Usually that is the cgroup itself, and nothing is read; but once a container has handed
    /// controllers down to cgroups of its own (systemd does), the kernel takes processes only in those (EBUSY).
    ///
    /// # Errors
    /// [`Error::NotFound`] if that process is not in the cgroup, or its cgroup is gone.
    pub fn dir_beside(&self, read: impl FnOnce() -> Option<String>) -> Result<OwnedFd, Error> {
        let handed_down = self.directory.read("cgroup.subtree_control")?.unwrap_or_default();
        let mut here = self.directory.reopen()?;
        if !handed_down.trim().is_empty() {
            let lost = || Error::NotFound { path: self.path().to_owned() };
            // The v2 hierarchy is number 0 without controllers (cgroups.7).
            let proc_cgroup = read().ok_or_else(lost)?;
            let place = proc_cgroup.lines().find_map(|line| line.strip_prefix("0::")).ok_or_else(lost)?;
            let below = place.strip_prefix(&self.path.to_string()).ok_or_else(lost)?;
            if !below.is_empty() && !below.starts_with('/') {
                return Err(lost());
            }
            for name in below.split('/').filter(|name| !name.is_empty()) {
                // The kernel prints " (deleted)" after a cgroup that is gone: no such directory then.
                here = here.child(name)?.ok_or_else(lost)?;
            }
        }
        Ok(here.into())
    }

    /// One try. False while something in it is busy, or when the time is over.
    fn remove_once(&self, kills: bool, until: Instant) -> Result<bool, Error> {
        // From the root down, as when it was made: a held parent descriptor would be one more per container.
        let mut above = vec![self.root.reopen()?];
        for name in self.path.ancestors() {
            let Some(next) = above[above.len() - 1].child(name)? else { break };
            above.push(next);
        }
        if above.len() == self.path.ancestors().len() + 1 {
            let parent = &above[above.len() - 1];
            // A later cgroup of the same name is not ours to remove; ours is gone then.
            if let Some(leaf) = parent.child(self.path.leaf())?
                && leaf.is(&self.directory)?
            {
                if kills {
                    leaf.write("cgroup.kill", "1")
                        .or_else(|error| if error.vanished() { Ok(false) } else { Err(error) })?;
                }
                // To try each directory costs more than to ask once.
                if self.populated()? || !leaf.remove_below(until)? || !parent.remove(self.path.leaf())? {
                    return Ok(false);
                }
            }
        }
        for (depth, name) in self.path.ancestors().iter().enumerate().rev() {
            let ours = self.path.ancestors().len() - depth <= self.ancestors_made;
            let Some(directory) = above.get(depth + 1) else { continue };
            // A neighbour may live there still: then it stays, and the neighbour's remove takes it.
            if !(ours || directory.is_marked_made()) || !above[depth].remove(name)? {
                break;
            }
        }
        Ok(true)
    }

    /// Why `file`, which is not there, is not there.
    pub(super) fn explain_missing(&self, file: &str) -> Result<Error, Error> {
        let Some(controller) = Controller::of_file(file) else {
            return Ok(Error::NoFile { path: self.path().join(file) });
        };
        if self.has_controller(controller)? {
            if let Some(size) = file.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(".max")) {
                return self.explain_page_size(size);
            }
            return Ok(Error::NoFile { path: self.path().join(file) });
        }
        let file = file.to_owned();
        let refused = self.refused.iter().find(|refused| refused.controller == controller.name());
        Ok(match refused {
            Some(Refused { ancestor, errno, .. }) => {
                let source = errno.map_or_else(|| io::ErrorKind::Other.into(), io::Error::from_raw_os_error);
                Error::ControllerRefused { file, controller, ancestor: ancestor.clone(), source }
            }
            None => Error::NoController { file, controller },
        })
    }

    /// Says which sizes of huge pages there are.
    fn explain_page_size(&self, size: &str) -> Result<Error, Error> {
        let sizes = huge_page_sizes(&self.directory)?;
        let others = match sizes.as_slice() {
            [] => "there are none".to_owned(),
            sizes => format!("those that do are {}", sizes.join(", ")),
        };
        let problem = format!("huge pages of {size} do not exist on this processor and kernel; {others}");
        Ok(Error::resource("hugepageLimits.pageSize", problem))
    }

    /// Whether the cgroup has `controller`.
    pub(super) fn has_controller(&self, controller: Controller) -> Result<bool, Error> {
        let available = self.directory.read("cgroup.controllers")?.unwrap_or_default();
        Ok(available.split_whitespace().any(|name| name == controller.name()))
    }
}

fn create_once(root: &Path, path: &CgroupPath) -> Result<Cgroup, Error> {
    let root = Directory::open(root)?;
    let mut refused = Vec::new();
    let mut trail = Trail { made: Vec::new() };
    let mut here = root.reopen()?;
    hand_down(&here, &mut refused)?;
    for name in path.ancestors() {
        let made = trail.make(&here, name)?;
        let next = enter(&here, name)?;
        if made {
            next.mark_made()?;
        }
        hand_down(&next, &mut refused)?;
        here = next;
    }
    if !trail.make(&here, path.leaf())? {
        // Also the name of one of the kernel's own files ends here; opening it as a directory tells the two apart.
        let path = enter(&here, path.leaf())?.path().to_owned();
        return Err(Error::Exists { path });
    }
    let directory = enter(&here, path.leaf())?;
    let ancestors_made = trail.commit() - 1;
    Ok(Cgroup { directory, root, path: path.clone(), ancestors_made, refused, huge_pages: OnceLock::new() })
}

fn enter(parent: &Directory, name: &str) -> Result<Directory, Error> {
    let gone = || Error::Io {
        operation: "open",
        path: parent.path().join(name),
        source: rustix::io::Errno::NOENT.into(),
    };
    parent.child(name)?.ok_or_else(gone)
}

/// Enables every controller that `directory` has for the directories below it.
fn hand_down(directory: &Directory, refused: &mut Vec<Refused>) -> Result<(), Error> {
    let available = directory.read("cgroup.controllers")?.unwrap_or_default();
    let enabled = directory.read("cgroup.subtree_control")?.unwrap_or_default();
    let missing: Vec<&str> =
        available.split_whitespace().filter(|name| !enabled.split_whitespace().any(|e| e == *name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
    // The kernel takes all of them or none.
    if directory.write("cgroup.subtree_control", &all.join(" ")).is_ok() {
        return Ok(());
    }
    for (name, word) in missing.into_iter().zip(&all) {
        match directory.write("cgroup.subtree_control", word) {
            Ok(_) => {}
            Err(error) if error.vanished() && !directory.has("cgroup.controllers") => return Err(error),
            Err(Error::Write { source, .. }) => refused.push(Refused {
                controller: name.to_owned(),
                ancestor: directory.path().to_owned(),
                errno: source.raw_os_error(),
            }),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The directories made so far, removed again unless [`Trail::commit`] is reached.
struct Trail {
    made: Vec<(Directory, String)>,
}

impl Trail {
    fn make(&mut self, parent: &Directory, name: &str) -> Result<bool, Error> {
        let made = parent.make(name)?;
        if made {
            self.made.push((parent.reopen()?, name.to_owned()));
        }
        Ok(made)
    }

    /// Keeps them all, and says how many.
    fn commit(mut self) -> usize {
        std::mem::take(&mut self.made).len()
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        while let Some((parent, name)) = self.made.pop() {
            // The first error is what the caller gets; a directory that stays is one that somebody uses by now.
            drop(parent.remove(&name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::ErrorClass;
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn path(text: &str) -> CgroupPath {
        CgroupPath::parse(text, "").unwrap()
    }

    #[test]
    fn every_controller_is_handed_down_once() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        fs::write(tree.path().join("cgroup.subtree_control"), "cpu memory\n").unwrap();
        Cgroup::create(tree.path(), &path("a")).unwrap();
        let written = fs::read_to_string(tree.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(written, "+cpuset +io +pids");

        fs::write(tree.path().join("cgroup.subtree_control"), "pids memory io cpu cpuset\n").unwrap();
        Cgroup::create(tree.path(), &path("b")).unwrap();
        let kept = fs::read_to_string(tree.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(kept, "pids memory io cpu cpuset\n");
    }

    #[test]
    fn a_refusal_matters_only_to_the_limit_that_needs_it() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("cgroup.controllers"), "pids\n").unwrap();
        let mut refused = Vec::new();
        let directory = Directory::open(tree.path()).unwrap();
        hand_down(&directory, &mut refused).unwrap();
        assert!(refused.is_empty());

        let mut cgroup = Cgroup::create(tree.path(), &path("a")).unwrap();
        let ancestor = tree.path().to_owned();
        cgroup.refused.push(Refused { controller: "pids".to_owned(), ancestor, errno: Some(16) });
        let error = cgroup.apply(&serde_json::from_str(r#"{"pids": {"limit": 4}}"#).unwrap()).unwrap_err();
        assert!(matches!(error, Error::ControllerRefused { .. }), "{error}");
        assert!(error.to_string().contains(&tree.path().display().to_string()), "{error}");
        assert!(cgroup.apply(&serde_json::from_str("{}").unwrap()).is_ok());
    }

    #[test]
    fn what_is_there_is_not_created_twice() {
        let tree = tempfile::tempdir().unwrap();
        Cgroup::create(tree.path(), &path("pod/c1")).unwrap();
        let error = Cgroup::create(tree.path(), &path("pod/c1")).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Exists);
        assert!(tree.path().join("pod/c1").is_dir());
        assert_eq!(Cgroup::open(tree.path(), &path("pod/c2")).unwrap_err().class(), ErrorClass::NotFound);
        fs::write(tree.path().join("pod/file"), "").unwrap();
        assert_eq!(Cgroup::create(tree.path(), &path("pod/file")).unwrap_err().class(), ErrorClass::Invalid);
        assert!(Cgroup::create(&tree.path().join("missing"), &path("a")).is_err());
    }

    #[test]
    fn a_create_that_fails_leaves_nothing() {
        let tree = tempfile::tempdir().unwrap();
        let root = Directory::open(tree.path()).unwrap();
        let mut trail = Trail { made: Vec::new() };
        assert!(trail.make(&root, "a").unwrap());
        let a = root.child("a").unwrap().unwrap();
        assert!(trail.make(&a, "b").unwrap());
        assert!(!trail.make(&a, "b").unwrap());
        drop(trail);
        assert_eq!(root.entries().unwrap(), []);
    }

    #[test]
    fn only_what_was_made_is_removed_and_only_when_empty() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("given")).unwrap();
        let first = Cgroup::create(tree.path(), &path("given/pod/c1")).unwrap();
        let second = Cgroup::create(tree.path(), &path("given/pod/c2")).unwrap();
        fs::create_dir_all(tree.path().join("given/pod/c1/own/nested")).unwrap();
        first.remove(SOON).unwrap();
        first.remove(SOON).unwrap();
        assert!(!tree.path().join("given/pod/c1").exists());
        assert!(tree.path().join("given/pod/c2").exists());
        second.remove(SOON).unwrap();
        assert!(tree.path().join("given").exists());
    }

    #[test]
    fn a_later_cgroup_of_the_same_name_is_not_ours() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("pod")).unwrap();
        let old = Cgroup::create(tree.path(), &path("pod/c1")).unwrap();
        fs::remove_dir(tree.path().join("pod/c1")).unwrap();
        Cgroup::create(tree.path(), &path("pod/c1")).unwrap();
        old.remove(SOON).unwrap();
        assert!(tree.path().join("pod/c1").exists());
    }

    #[test]
    fn what_stays_busy_times_out() {
        let tree = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::create(tree.path(), &path("c1")).unwrap();
        fs::write(tree.path().join("c1/file"), "").unwrap();
        let error = cgroup.remove(Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Timeout, "{error}");
        fs::remove_file(tree.path().join("c1/file")).unwrap();
        cgroup.remove(SOON).unwrap();
    }

    #[test]
    fn an_exec_is_born_where_processes_may_be() {
        let tree = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::create(tree.path(), &path("pod/c1")).unwrap();
        fs::create_dir_all(tree.path().join("pod/c1/init.scope")).unwrap();
        let is = |fd: OwnedFd, place: &str| {
            let place = fs::File::open(tree.path().join(place)).unwrap();
            rustix::fs::fstat(fd).unwrap().st_ino == rustix::fs::fstat(place).unwrap().st_ino
        };
        let init = "1:name=systemd:/x\n0::/pod/c1/init.scope\n";
        assert!(is(cgroup.dir_beside(|| Some(init.to_owned())).unwrap(), "pod/c1"));

        fs::write(tree.path().join("pod/c1/cgroup.subtree_control"), "memory\n").unwrap();
        assert!(is(cgroup.dir_beside(|| Some(init.to_owned())).unwrap(), "pod/c1/init.scope"));
        for lost in ["", "0::/pod/c11\n", "0::/pod/c1/init.scope (deleted)\n", "0::/\n"] {
            assert_eq!(
                cgroup.dir_beside(|| Some(lost.to_owned())).unwrap_err().class(),
                ErrorClass::NotFound,
                "{lost:?}"
            );
        }
    }
}
