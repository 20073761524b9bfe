//! Taking back memory that a cgroup does not use, and what tells how much that is.
//!
//! Owns: `memory.reclaim`, the pressure files, and the two numbers of `memory.stat` that say how much was left alone.
//! Promises: reclaim goes in one write; what the kernel could not find is an answer, not an error. Must never: change a
//! limit, or decide when to reclaim.

use std::io;

use super::events::flat_keyed;
use super::{Cgroup, Error};

/// For how long at least one task has stood still for want of something, since the start of time (`some` of the kernel's
/// pressure stall information), in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stalls {
    /// For want of memory.
    pub memory_us: u64,
    /// For want of a disk's answer.
    pub io_us: u64,
}

impl Stalls {
    /// Reads `memory.pressure` and `io.pressure`, or the same files of the whole system in `/proc/pressure`.
    pub fn parse(memory: &str, io: &str) -> Stalls {
        Stalls { memory_us: some_total(memory), io_us: some_total(io) }
    }
}

/// The total of the line `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`; 0 if there is none.
fn some_total(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("some "));
    let total = line.and_then(|line| line.split(' ').find_map(|word| word.strip_prefix("total=")));
    total.and_then(|total| total.trim().parse().ok()).unwrap_or(0)
}

/// Bytes that were not used lately, by the kernel's own lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inactive {
    /// Page cache.
    pub file: u64,
    /// Memory of processes.
    pub anon: u64,
}

/// How a reclaim ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reclaimed {
    /// All that was asked for.
    All,
    /// The kernel found less than that.
    Less,
}

impl Cgroup {
    /// What the cgroup and all below it have waited for so far; zeros from a kernel without CONFIG_PSI.
    pub fn stalls(&self) -> Result<Stalls, Error> {
        let text = |name| Ok::<_, Error>(self.directory.read(name)?.unwrap_or_default());
        Ok(Stalls::parse(&text("memory.pressure")?, &text("io.pressure")?))
    }

    /// How much memory lies idle in the cgroup and all below it.
    pub fn inactive(&self) -> Result<Inactive, Error> {
        let text = self.directory.read("memory.stat")?.unwrap_or_default();
        let bytes = |key| flat_keyed(&text, key).unwrap_or(0);
        Ok(Inactive { file: bytes("inactive_file"), anon: bytes("inactive_anon") })
    }

    /// Takes memory back, the coldest first (`memory.reclaim`; `swappiness=` came with Linux 6.11). `swappiness` is 0
    /// for the page cache alone, to 200 for memory of processes first. Blocks while pages are written out.
    ///
    /// # Errors
    /// [`Error::NoFile`] where the kernel has no such file.
    pub fn reclaim(&self, bytes: u64, swappiness: u8) -> Result<Reclaimed, Error> {
        match self.directory.write("memory.reclaim", &format!("{bytes} swappiness={swappiness}")) {
            Ok(true) => Ok(Reclaimed::All),
            // Without its files the cgroup has been removed: nothing of it is left to reclaim.
            Ok(false) if !self.directory.has("cgroup.procs") => Ok(Reclaimed::Less),
            Ok(false) => Err(self.explain_missing("memory.reclaim")?),
            Err(Error::Write { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                Ok(Reclaimed::Less)
            }
            Err(error) if error.vanished() => Ok(Reclaimed::Less),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::fake;
    use super::*;

    const PRESSURE: &str = "some avg10=1.53 avg60=0.40 avg300=0.10 total=77123\n\
                            full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";

    #[test]
    fn stalls_are_the_totals_of_some() {
        assert_eq!(Stalls::parse(PRESSURE, ""), Stalls { memory_us: 77123, io_us: 0 });
        assert_eq!(Stalls::parse("full total=5\n", "some total=many\n"), Stalls::default());
        let (_tree, cgroup) = fake(&[("memory.pressure", PRESSURE), ("io.pressure", "some total=3\n")]);
        assert_eq!(cgroup.stalls().unwrap(), Stalls { memory_us: 77123, io_us: 3 });
    }

    #[test]
    fn what_lies_idle_is_read_from_the_statistics() {
        let (_tree, cgroup) = fake(&[(
            "memory.stat",
            "anon 9\nfile 8\ninactive_anon 4096\nactive_file 1\ninactive_file 8192\n",
        )]);
        assert_eq!(cgroup.inactive().unwrap(), Inactive { file: 8192, anon: 4096 });
        assert_eq!(fake(&[]).1.inactive().unwrap(), Inactive::default());
    }

    #[test]
    fn a_reclaim_is_one_write_and_needs_its_file() {
        let (tree, cgroup) = fake(&[("cgroup.procs", ""), ("memory.reclaim", "")]);
        assert_eq!(cgroup.reclaim(1 << 20, 0).unwrap(), Reclaimed::All);
        let written = fs::read_to_string(tree.path().join("c1/memory.reclaim")).unwrap();
        assert_eq!(written, "1048576 swappiness=0");
        let (_tree, cgroup) = fake(&[("cgroup.procs", ""), ("cgroup.controllers", "memory")]);
        assert!(cgroup.reclaim(1, 0).unwrap_err().to_string().contains("memory.reclaim"));
        assert_eq!(fake(&[]).1.reclaim(1, 0).unwrap(), Reclaimed::Less);
    }
}
