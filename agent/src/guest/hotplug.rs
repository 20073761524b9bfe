//! Brings processors and memory that the VMM has added into use (`sysfs-devices-system-cpu`, `sysfs-devices-memory` of
//! the kernel's ABI documents).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::device::watch::DeviceWatch;
use crate::error::{ErrorKind, Kind};

/// How long a processor may take to appear after the VMM added it.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why something could not be brought into use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HotplugError {
    /// The kernel refused.
    #[error("write {value} to {path}")]
    Write {
        /// What was written.
        value: String,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Fewer processors than asked for.
    #[error("{online} of {wanted} processors are online after {} s", DEADLINE.as_secs())]
    TooFew {
        /// How many are.
        online: u32,
        /// How many should be.
        wanted: u32,
    },
    /// The kernel cannot be told of memory.
    #[error("this kernel has no memory probe interface")]
    NoProbe,
}

impl Kind for HotplugError {
    fn kind(&self) -> ErrorKind {
        match self {
            HotplugError::Write { .. } => ErrorKind::Internal,
            HotplugError::TooFew { .. } => ErrorKind::Timeout,
            HotplugError::NoProbe => ErrorKind::Unsupported,
        }
    }
}

/// Brings all memory online, unless `cpu_only`, and processors until `wanted` are; 0 leaves them alone. Blocks until
/// the processors have appeared, for five seconds at most.
pub(crate) fn online(devices: &DeviceWatch, wanted: u32, cpu_only: bool) -> Result<(), HotplugError> {
    let sys = devices.sys();
    if !cpu_only {
        for block in entries(&sys.join("devices/system/memory"), "memory") {
            bring_online(&block)?;
        }
    }
    let mut online = 0;
    let look = || match processors(sys, wanted) {
        Ok(now) => {
            online = now;
            (now >= wanted).then_some(Ok(()))
        }
        Err(error) => Some(Err(error)),
    };
    let found = devices.wait_until(DEADLINE, look);
    found.unwrap_or(Err(HotplugError::TooFew { online, wanted }))
}

/// Brings processors online until `wanted` are, or there are no more; gives how many are.
fn processors(sys: &Path, wanted: u32) -> Result<u32, HotplugError> {
    let all = entries(&sys.join("devices/system/cpu"), "cpu");
    let mut online = all.iter().filter(|processor| !is_offline(processor)).count() as u32;
    for processor in all.iter().filter(|processor| is_offline(processor)) {
        if online >= wanted {
            break;
        }
        bring_online(processor)?;
        online += 1;
    }
    Ok(online)
}

/// Tells the kernel of memory at physical addresses. None are no error on any kernel.
pub(crate) fn probe(sys: &Path, addresses: &[u64]) -> Result<(), HotplugError> {
    let path = sys.join("devices/system/memory/probe");
    if !addresses.is_empty() && !path.exists() {
        return Err(HotplugError::NoProbe);
    }
    addresses.iter().try_for_each(|address| write(&path, &format!("0x{address:X}")))
}

/// Directories `NAMEn` below a directory, by number.
fn entries(directory: &Path, name: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix(name)?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// The first processor often has no such file: it cannot be taken offline.
fn is_offline(directory: &Path) -> bool {
    std::fs::read_to_string(directory.join("online")).is_ok_and(|text| text.trim() == "0")
}

fn bring_online(directory: &Path) -> Result<(), HotplugError> {
    if is_offline(directory) { write(&directory.join("online"), "1") } else { Ok(()) }
}

fn write(path: &Path, value: &str) -> Result<(), HotplugError> {
    std::fs::write(path, value).map_err(|source| HotplugError::Write {
        value: value.to_owned(),
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysfs(online: &[(&str, &str)]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        for (name, state) in online {
            let directory = sys.path().join("devices/system").join(name);
            std::fs::create_dir_all(&directory).unwrap();
            if !state.is_empty() {
                std::fs::write(directory.join("online"), format!("{state}\n")).unwrap();
            }
        }
        sys
    }

    fn states(sys: &tempfile::TempDir, names: &[&str]) -> Vec<bool> {
        names.iter().map(|name| is_offline(&sys.path().join("devices/system").join(name))).collect()
    }

    #[test]
    fn as_many_processors_as_wanted_come_online_and_memory_only_if_asked() {
        let all = [("cpu/cpu0", ""), ("cpu/cpu1", "0"), ("cpu/cpu2", "0"), ("memory/memory7", "0")];
        let sys = sysfs(&all);
        let devices = DeviceWatch::deaf(sys.path(), Duration::ZERO);
        online(&devices, 2, true).unwrap();
        assert_eq!(states(&sys, &["cpu/cpu1", "cpu/cpu2", "memory/memory7"]), [false, true, true]);
        online(&devices, 0, false).unwrap();
        assert_eq!(states(&sys, &["cpu/cpu2", "memory/memory7"]), [true, false]);
    }

    #[test]
    fn memory_is_probed_where_the_kernel_can() {
        let sys = sysfs(&[("memory", "")]);
        assert_eq!(probe(sys.path(), &[1]).unwrap_err().kind(), ErrorKind::Unsupported);
        let file = sys.path().join("devices/system/memory/probe");
        std::fs::write(&file, "").unwrap();
        probe(sys.path(), &[0x1_0000_0000]).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "0x100000000");
    }
}
