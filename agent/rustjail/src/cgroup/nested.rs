//! A cgroup inside of a container's own, for one command and all that it starts.
//!
//! Owns: its directory. Promises: no controller is handed down for it, so the container's own cgroup may have processes beside
//! it (cgroups(7), "no internal processes"), and what the command takes is charged to the container as ever. Must never: kill
//! or remove what is outside of it.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use super::file::Directory;
use super::{Cgroup, Error};

/// How long a removal may take with cgroups that the command has made.
const REMOVING: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Nested {
    directory: Directory,
    parent: Directory,
    name: String,
}

impl Cgroup {
    /// Makes a cgroup inside of this one. `name` is one component of a path.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is one of this name; else what the kernel said.
    pub fn nest(&self, name: &str) -> Result<Nested, Error> {
        let parent = self.directory.reopen()?;
        if !parent.make(name)? {
            return Err(Error::Exists { path: parent.path().join(name) });
        }
        let path = parent.path().join(name);
        let directory = parent.child(name)?.ok_or(Error::NotFound { path })?;
        Ok(Nested { directory, parent, name: name.to_owned() })
    }
}

impl Nested {
    /// Its directory, for `CLONE_INTO_CGROUP`.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Kills every process in it and below it. Returns before they are dead. One that is gone has none.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn kill(&self) -> Result<(), Error> {
        self.order("cgroup.kill", "1")
    }

    /// Stops every process in it and below it, or lets them go on. Does not wait until they stand still.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn set_frozen(&self, is_frozen: bool) -> Result<(), Error> {
        self.order("cgroup.freeze", if is_frozen { "1" } else { "0" })
    }

    fn order(&self, file: &str, value: &str) -> Result<(), Error> {
        match self.directory.write(file, value) {
            Ok(_) => Ok(()),
            Err(error) if error.vanished() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes it if no process is left in it. False if one is. One that is gone is fine.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn remove_if_empty(&self) -> Result<bool, Error> {
        if self.parent.remove(&self.name)? {
            return Ok(true);
        }
        let populated = self.directory.read("cgroup.events")?.unwrap_or_default();
        if super::flat_keyed(&populated, "populated") == Some(1) {
            return Ok(false);
        }
        Ok(self.directory.remove_below(Instant::now() + REMOVING)? && self.parent.remove(&self.name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[test]
    fn is_made_once_and_goes_when_it_is_empty() {
        let (tree, cgroup) = fake(&[]);
        let nested = cgroup.nest("command").unwrap();
        let path = tree.path().join("c1/command");
        assert!(path.is_dir());
        assert!(matches!(cgroup.nest("command"), Err(Error::Exists { .. })));
        std::fs::create_dir(path.join("own")).unwrap();
        assert!(nested.remove_if_empty().unwrap());
        assert!(!path.exists() && nested.remove_if_empty().unwrap());
        nested.kill().unwrap();
        nested.set_frozen(false).unwrap();
    }

    #[test]
    fn stays_while_somebody_lives_in_it() {
        let (tree, cgroup) = fake(&[]);
        let nested = cgroup.nest("command").unwrap();
        let path = tree.path().join("c1/command");
        std::fs::write(path.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        std::fs::write(path.join("cgroup.kill"), "").unwrap();
        std::fs::write(path.join("cgroup.freeze"), "0").unwrap();
        assert!(!nested.remove_if_empty().unwrap());
        nested.kill().unwrap();
        nested.set_frozen(true).unwrap();
        let text = |name| std::fs::read_to_string(path.join(name)).unwrap();
        assert_eq!((text("cgroup.kill"), text("cgroup.freeze")), ("1".into(), "1".into()));
    }
}
