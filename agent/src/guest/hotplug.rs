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
    #[error("{online} of {wanted} processors are online after {} s{}", DEADLINE.as_secs(), most(*possible, *wanted))]
    TooFew {
        /// How many are.
        online: u32,
        /// How many should be.
        wanted: u32,
        /// How many the kernel has made room for; none where it does not say so.
        possible: Option<u32>,
    },
    /// The kernel cannot be told of memory.
    #[error("this kernel has no memory probe interface")]
    NoProbe,
}

/// Why there will never be as many as wanted, if that is so.
fn most(possible: Option<u32>, wanted: u32) -> String {
    let possible = possible.filter(|possible| *possible < wanted);
    possible.map_or_else(String::new, |possible| {
        format!(
            "; this machine has {possible} at most, as it told the kernel at its start: let it have more places for processors"
        )
    })
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
    found.unwrap_or_else(|_| Err(HotplugError::TooFew { online, wanted, possible: possible_processors(sys) }))
}

/// How many processors the kernel has made room for, those that are absent among them.
fn possible_processors(sys: &Path) -> Option<u32> {
    let ranges = std::fs::read_to_string(sys.join("devices/system/cpu/possible")).ok()?;
    ranges.trim().split(',').try_fold(0_u32, |count, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
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

    /// On Arm, machines without hot-plug have no places for more.
    #[test]
    fn an_error_says_if_a_machine_has_no_places_for_more() {
        let sys = sysfs(&[("cpu/cpu0", "")]);
        let possible = sys.path().join("devices/system/cpu/possible");
        let told = |wanted| {
            let possible = possible_processors(sys.path());
            HotplugError::TooFew { online: 1, wanted, possible }.to_string()
        };
        assert_eq!(told(3), "1 of 3 processors are online after 5 s");
        for (text, count) in [("0-1\n", 2), ("0", 1), ("0-1,4", 3), ("0,2-3,8-11", 7)] {
            std::fs::write(&possible, text).unwrap();
            assert_eq!(possible_processors(sys.path()), Some(count), "{text}");
        }
        for text in ["", "x", "3-1", "0-4294967295", "0-1,"] {
            std::fs::write(&possible, text).unwrap();
            assert_eq!(possible_processors(sys.path()), None, "{text}");
        }
        std::fs::write(&possible, "0-1").unwrap();
        assert!(told(3).contains("5 s; this machine has 2 at most"), "{}", told(3));
        assert_eq!(told(2), "1 of 2 processors are online after 5 s");
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
