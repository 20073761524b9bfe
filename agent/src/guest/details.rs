//! Facts that a host asks for before it sizes or feeds the guest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Kind, kind_of_errno};

/// The agent's version, as the API tells it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A fact about the guest could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DetailsError {
    /// The file is there but cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel wrote something else than a size.
    #[error("{text:?} in {} is not a hexadecimal size", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
}

impl Kind for DetailsError {
    fn kind(&self) -> ErrorKind {
        match self {
            DetailsError::Read { source, .. } => kind_of_errno(source.raw_os_error()),
            DetailsError::Size { .. } => ErrorKind::Internal,
        }
    }
}

/// Where the facts are read from.
#[derive(Debug, Clone)]
pub struct Details {
    sys: PathBuf,
    proc: PathBuf,
}

impl Default for Details {
    fn default() -> Self {
        Details::new("/sys", "/proc")
    }
}

impl Details {
    /// Facts from the sysfs mounted at `sys` and the procfs at `proc`.
    pub fn new(sys: impl Into<PathBuf>, proc: impl Into<PathBuf>) -> Details {
        Details { sys: sys.into(), proc: proc.into() }
    }

    fn memory(&self, name: &str) -> PathBuf {
        self.sys.join("devices/system/memory").join(name)
    }

    /// The size in bytes of the blocks in which memory can be added, 0 when the kernel cannot add any.
    ///
    /// # Errors
    /// When the kernel has such a size but does not tell it.
    pub fn memory_block_size(&self) -> Result<u64, DetailsError> {
        let path = self.memory("block_size_bytes");
        match fs::read_to_string(&path) {
            Ok(text) => parse_size(&path, text.trim()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(source) => Err(DetailsError::Read { path, source }),
        }
    }

    /// Whether the seccomp profile of a container is applied: the agent always does it, where the kernel has filters
    /// (`CONFIG_SECCOMP_FILTER`, proc(5)).
    pub fn seccomp(&self) -> bool {
        self.proc.join("sys/kernel/seccomp/actions_avail").exists()
    }

    /// Whether the kernel wants to be told of added memory by its address.
    pub fn memory_probe(&self) -> bool {
        self.memory("probe").exists()
    }
}

/// The kernel writes bare hexadecimal digits.
fn parse_size(path: &Path, text: &str) -> Result<u64, DetailsError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    // A sign would be taken too.
    let size = u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'));
    size.ok_or_else(|| DetailsError::Size { path: path.to_owned(), text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_memory_hotplug_says_zero_and_no() {
        let sys = tempfile::tempdir().unwrap();
        let details = Details::new(sys.path(), sys.path());
        assert_eq!(details.memory_block_size().unwrap(), 0);
        assert!(!details.memory_probe());
    }

    #[test]
    fn block_size_and_probe_are_read() {
        let sys = tempfile::tempdir().unwrap();
        let memory = sys.path().join("devices/system/memory");
        fs::create_dir_all(&memory).unwrap();
        let details = Details::new(sys.path(), sys.path());
        for (text, size) in [("8000000\n", 128 << 20), ("0x8000000", 128 << 20), ("80000000\n", 2 << 30)] {
            fs::write(memory.join("block_size_bytes"), text).unwrap();
            assert_eq!(details.memory_block_size().unwrap(), size, "{text}");
        }
        fs::write(memory.join("probe"), "").unwrap();
        assert!(details.memory_probe());
    }

    #[test]
    fn a_kernel_without_filters_applies_no_profile() {
        let proc = tempfile::tempdir().unwrap();
        let details = Details::new("/nonexistent", proc.path());
        assert!(!details.seccomp());
        fs::create_dir_all(proc.path().join("sys/kernel/seccomp")).unwrap();
        assert!(!details.seccomp());
        fs::write(proc.path().join("sys/kernel/seccomp/actions_avail"), "kill_process allow\n").unwrap();
        assert!(details.seccomp());
    }

    #[test]
    fn nonsense_names_the_file() {
        let sys = tempfile::tempdir().unwrap();
        let memory = sys.path().join("devices/system/memory");
        fs::create_dir_all(&memory).unwrap();
        for text in ["", "big", "-1", "+10", "11111111111111111"] {
            fs::write(memory.join("block_size_bytes"), text).unwrap();
            let details = Details::new(sys.path(), sys.path());
            let error = details.memory_block_size().map(|size| size.to_string());
            let error =
                error.map_or_else(|error| error.to_string(), |size| format!("{text:?} was taken for {size}"));
            assert!(error.contains("block_size_bytes is not a hexadecimal size"), "{error}");
        }
    }
}
