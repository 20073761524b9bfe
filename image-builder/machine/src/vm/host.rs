//! Programs, the cache and facts of the host's kernel.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use store::arch::Arch;
use store::cache::Cache;
use store::layout::INSTALLED_PRODUCTS;

use super::VmError;

/// What to do on a host that has no vsock, whose kernel's module is the other way.
pub const VSOCK_FIX: &str = "the Debian package and the tarball of a release have it in lib/pith; in the source tree \
    `make setup-run` builds it; PITH_VHOST_DEVICE_VSOCK can name another program";
/// What to do on a host without the daemon of shared directories.
pub const VIRTIOFSD_FIX: &str = "apt-get install qemu-system-common on Debian 12, virtiofsd on newer ones; in the source tree \
    `make setup-run` builds it; PITH_VIRTIOFSD can name another program";

/// The QEMU for guests of an architecture: its name, the variable that names another one, and what to do where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub name: &'static str,
    /// The variable.
    pub variable: &'static str,
    /// What to do.
    pub fix: &'static str,
}

impl Qemu {
    /// For guests of this architecture. `PITH_QEMU` is for those of the host's own.
    pub fn of(arch: Arch) -> Self {
        let own = arch == Arch::host();
        match arch {
            Arch::X86_64 => Self {
                name: "qemu-system-x86_64",
                variable: if own { "PITH_QEMU" } else { "PITH_QEMU_X86_64" },
                fix: "apt-get install qemu-system-x86",
            },
            Arch::Aarch64 => Self {
                name: "qemu-system-aarch64",
                variable: if own { "PITH_QEMU" } else { "PITH_QEMU_AARCH64" },
                fix: "apt-get install qemu-system-arm",
            },
        }
    }

    /// Where it is, or is said to be.
    pub fn find(self) -> Option<PathBuf> {
        find_tool(self.name, self.variable)
    }

    /// Where it is.
    ///
    /// # Errors
    /// [`VmError::MissingQemu`]; [`VmError::NamedTool`] when the variable has a path where nothing is.
    pub fn needed(self) -> Result<PathBuf, VmError> {
        let Self { name, variable, fix } = self;
        present(self.find().ok_or(VmError::MissingQemu { name, fix, variable })?, name, variable)
    }
}

/// Finds a program: by an environment variable, on PATH, in the cache's `bin`, or where a release has it beside this program.
pub fn find_tool(name: &str, variable: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
        return Some(PathBuf::from(path));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(cache_root().map(|root| root.join("bin")));
    places.extend(std::env::current_exe().ok().and_then(|program| shipped(&program)));
    places.into_iter().map(|place| place.join(name)).find(|candidate| candidate.is_file())
}

/// As [`find_tool`], for a program that is needed.
///
/// # Errors
/// [`VmError::MissingTool`] with `fix`; [`VmError::NamedTool`] when the variable has a path where nothing is.
pub(super) fn needed_tool(
    tool: &'static str,
    variable: &'static str,
    fix: &'static str,
) -> Result<PathBuf, VmError> {
    let path = find_tool(tool, variable).ok_or(VmError::MissingTool { tool, fix })?;
    present(path, tool, variable)
}

/// Refuses a path where nothing is: only a variable says such a thing.
///
/// # Errors
/// [`VmError::NamedTool`].
pub(super) fn present(path: PathBuf, tool: &'static str, variable: &'static str) -> Result<PathBuf, VmError> {
    // A name without a slash is looked up on PATH when it is started.
    if path.components().count() > 1 && !path.is_file() {
        return Err(VmError::NamedTool { variable, path, tool });
    }
    Ok(path)
}

/// Where a release has products and daemons, beside the program at this path.
fn shipped(program: &Path) -> Option<PathBuf> {
    Some(program.parent()?.parent()?.join(INSTALLED_PRODUCTS))
}

/// The project's cache directory, where there can be one.
pub(super) fn cache_root() -> Option<PathBuf> {
    Cache::locate(|name| std::env::var_os(name)).ok().map(|cache| cache.root().to_path_buf())
}

/// Reads a small file of the kernel's, for example below `/proc`.
pub(super) fn read_trimmed(path: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_its_daemon_beside_its_programs() {
        assert_eq!(shipped(Path::new("/usr/bin/pith")), Some("/usr/lib/pith".into()));
        assert_eq!(shipped(Path::new("/opt/pith-1/bin/pith")), Some("/opt/pith-1/lib/pith".into()));
        assert_eq!(shipped(Path::new("/")), None);
    }

    #[test]
    fn a_program_that_a_release_ships_is_found() {
        // This test's own program is the one beside which it is looked for.
        let program = std::env::current_exe().unwrap();
        let place = shipped(&program).unwrap();
        let name = format!("test-daemon-{}", std::process::id());
        assert_eq!(find_tool(&name, "PITH_TEST_NO_SUCH_VARIABLE"), None);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join(&name), "").unwrap();
        let found = find_tool(&name, "PITH_TEST_NO_SUCH_VARIABLE");
        fs::remove_file(place.join(&name)).unwrap();
        assert_eq!(found, Some(place.join(name)));
    }
}
