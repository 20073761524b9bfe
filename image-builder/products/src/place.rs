//! Where files of Debian packages are taken from: this machine, or a directory with the packages of another processor.
//!
//! Promises that a file of such a directory is never one of this machine, whatever its symbolic links say. Must never execute
//! anything, nor install a package.

use std::fs::Metadata;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use store::arch::Arch;
use store::layout::Layout;

/// dpkg's database of what is installed, below the root.
const DPKG: &str = "var/lib/dpkg";

/// The root of a Debian system, and its processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    root: PathBuf,
    arch: Arch,
}

impl Place {
    /// This machine.
    pub fn machine() -> Self {
        Self { root: "/".into(), arch: Arch::host() }
    }

    /// Where the packages are for the processor of `layout`.
    pub fn of(layout: &Layout) -> Self {
        Self { root: layout.packages(), arch: layout.arch() }
    }

    /// The processor that programs in it are for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// dpkg's database.
    pub fn dpkg(&self) -> PathBuf {
        self.root.join(DPKG)
    }

    /// Where an absolute path of it is on this machine, for messages, and for what is no symbolic link.
    pub fn shown(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// What to do when a file of a package is missing.
    pub fn hint(&self, package: &str) -> String {
        match self.is_machine() {
            true => format!("install the Debian package {package}"),
            false => format!(
                "unpack the Debian package {package}:{arch} into {root}: `.ci/packages {arch} {package}` of the source tree \
                 does it, and `make setup ARCH={ours}` for all that our flavours need",
                arch = self.arch.debian(),
                root = self.root.display(),
                ours = self.arch,
            ),
        }
    }

    /// Reads a file; symbolic links lead to files of the same place.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or links lead out of a directory that no longer is below the root.
    pub fn read(&self, path: &str) -> io::Result<(Vec<u8>, Metadata)> {
        let path = self.resolved(path)?;
        Ok((std::fs::read(&path)?, std::fs::metadata(&path)?))
    }

    /// What a path is, behind all links.
    ///
    /// # Errors
    /// As [`Place::read`].
    pub fn metadata(&self, path: &str) -> io::Result<Metadata> {
        std::fs::metadata(self.resolved(path)?)
    }

    /// Whether there is a file.
    pub fn is_file(&self, path: &str) -> bool {
        self.metadata(path).is_ok_and(|meta| meta.is_file())
    }

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// As [`Place::read`].
    pub fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(self.resolved(directory)?)?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    /// Where a path leads when the root of this place is that of all links.
    fn resolved(&self, path: &str) -> io::Result<PathBuf> {
        if self.is_machine() {
            return Ok(path.into());
        }
        let root = open(&self.root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let found = openat2(&root, path, how)?;
        std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A place with packages of another processor.
    pub(crate) fn foreign(root: &Path) -> Place {
        let arch = if Arch::host() == Arch::Aarch64 { Arch::X86_64 } else { Arch::Aarch64 };
        Place { root: root.into(), arch }
    }

    #[test]
    fn links_never_lead_to_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        let place = foreign(dir.path());
        std::fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
        std::fs::write(dir.path().join("usr/lib/a"), "theirs").unwrap();
        symlink("usr/lib", dir.path().join("lib")).unwrap();
        symlink("/usr/lib/a", dir.path().join("absolute")).unwrap();
        symlink("../../../../usr/lib/a", dir.path().join("usr/lib/up")).unwrap();
        symlink("/etc/passwd", dir.path().join("out")).unwrap();
        for path in ["/lib/a", "/absolute", "/usr/lib/up", "/usr/lib/../../usr/lib/a"] {
            assert_eq!(place.read(path).unwrap().0, b"theirs", "{path}");
        }
        for path in ["/out", "/etc/passwd", "/../../../../../../etc/passwd"] {
            assert_eq!(place.read(path).unwrap_err().kind(), io::ErrorKind::NotFound, "{path}");
            assert!(!place.is_file(path));
        }
        let mut names = place.names("/lib").unwrap();
        names.sort();
        assert_eq!(names, ["a", "up"]);
        assert!(foreign(&dir.path().join("none")).names("/").is_err());
    }

    #[test]
    fn what_is_missing_is_installed_or_unpacked() {
        assert_eq!(Place::machine().hint("thing"), "install the Debian package thing");
        let place = foreign(Path::new("/r"));
        let hint = place.hint("thing");
        let arch = place.arch();
        for part in [
            format!("thing:{} into /r", arch.debian()),
            format!(".ci/packages {} thing", arch.debian()),
            format!("make setup ARCH={arch}"),
        ] {
            assert!(hint.contains(&part), "{hint}");
        }
    }
}
